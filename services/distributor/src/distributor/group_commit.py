"""One commit for many deliveries: how some ended, and which are to begin.

This is the ledger's hot path, and everything here is for its sake. All that a group of deliveries changes is written in
one go: on PostgreSQL by a single statement that is its own transaction (`group_commit_postgresql`), on SQLite in a
single visit to a thread (`group_commit_sqlite`). Both do the same, in words of their own:

- outcomes: each delivery's new state, where nobody has taken it over, and its attempt with the receiver's words. A
  zombie's attempt may bear a number that whoever took over has used: theirs stands.
- what follows from outcomes: the tallies, how the endpoint fares, the event that tells of a bounce.
- beginnings: due deliveries, the strongest lane first, the longest waiting of a lane first, are leased and begun at
  once. Each lane is looked up by itself: one look in the order of lanes would walk through everything that a stronger
  lane is to try again tomorrow. Whose lease has run out gets nothing, whether or not it has noticed. A stop, a
  correction or a withdrawal has its last word here: what one covers is leased and not begun, and is then set aside
  (`leases.set_aside`).
- with a limit per domain, a group claims ahead, and what it begins was claimed by an earlier one (`at_hand`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import ColumnElement, Dialect, literal_column, or_, update

from distributor.leases import Claimed, Ended, is_old, is_overtaken
from distributor.ledger import barred, deliveries
from distributor.tallies import Standing, standing
from distributor.webhooks.health import Fared
from shared.contracts.delivery import Channel


@dataclass(frozen=True, slots=True)
class Group:
    """What is to be written together. `bounces` are rows of the outbox.

    `wanted` deliveries of `channel` are claimed; they begin at once, unless they are claimed `ahead`. Then those begin
    that are `starting`: they were claimed ahead before.
    """

    ended: Sequence[Ended]
    fared: Sequence[Fared]
    bounces: Sequence[dict[str, Any]]
    channel: Channel
    owner: str
    wanted: int
    ahead: bool = False
    starting: Sequence[UUID] = ()


class GroupCommit(Protocol):
    """Writes groups, one at a time."""

    async def write(self, group: Group) -> list[Claimed]:
        """Commit `group`; what it claimed and began, in the order in which it is to go out."""

    async def close(self) -> None:
        """Let go of the database."""


def standings(one: Ended) -> tuple[Standing | None, Standing | None]:
    """Where the delivery was counted, and where it is from now on."""
    return standing(one.row, one.row.leased_from), standing(one.row, one.verdict.state, one.verdict.reason)


Move = tuple[object, ...]


def move_of(one: Ended) -> Move:
    """The same for all deliveries that leave one standing for another: cheaper to make and to compare than both."""
    row, verdict = one.row, one.verdict
    about = (row.subject_kind, row.edition_id or row.subject_id, row.revision, row.audience, row.form)
    return (*about, row.leased_from, verdict.state, verdict.reason)


def tallied(ended: Sequence[Ended]) -> Counter[Standing]:
    """What all of them together take from each count, and add to it."""
    moves = [move_of(one) for one in ended]
    first = dict(zip(moves, ended, strict=True))
    counted: Counter[Standing] = Counter()
    for move, count in Counter(moves).items():
        for place, change in zip(standings(first[move]), (-count, count), strict=True):
            if place is not None:
                counted[place] += change
    return counted


def in_order(claimed: Sequence[Claimed]) -> list[Claimed]:
    """The strongest lane first, the longest waiting first."""
    return sorted(claimed, key=lambda row: (row.lane, row.planned_at))


def must_not_begin(at: str, dialect: Dialect, *, mail: bool = True) -> str:
    """SQL of what keeps a row of `deliveries` from beginning at the instant that `at` is SQL for. No webhook carries an
    edition, and none goes to somebody who could stop it.
    """
    covered: ColumnElement[bool] = or_(is_old(), barred(literal_column(at))) if mail else is_overtaken()
    whole = update(deliveries).values(tries=0).where(covered)
    words = str(whole.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    return words.partition(" WHERE ")[2]
