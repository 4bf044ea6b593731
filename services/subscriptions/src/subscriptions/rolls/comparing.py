"""Compares what a file says of a council with what is known: who joins, who leaves, who changes. Pure.

A file is the whole truth about each council it names, for the term from the earliest to the latest date that it gives
there. Compared are the mandates that meet this term and are not over. A mandate that began before its successor does
is cut off the day before, never overwritten: whoever is elected again has both, and the calendar decides. Whoever
leaves keeps their mandate until the day before the term, or until yesterday where the term has begun.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from uuid import UUID

from shared.contracts.news import Audience
from subscriptions.csv_reading import Row
from subscriptions.people import role_id
from subscriptions.rolls.schemas import RollChange, RollDiff, RollField, RollPerson

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Person:
    """A subscriber, as far as a roll can change them."""

    id: UUID
    address: str
    key: str
    name: str
    locale: str
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class Seat:
    """A mandate that is known."""

    role_id: UUID
    person: Person
    municipalities: frozenset[str]
    mandate_from: date | None
    mandate_until: date | None

    def meets(self, first: date, last: date) -> bool:
        begins, ends = self.mandate_from or date.min, self.mandate_until or date.max
        return begins <= ends and begins <= last and ends >= first


@dataclass(frozen=True, slots=True)
class Listed:
    """One council as the file lists it; `organisation_id` is missing where nobody knows the organisation."""

    name: str
    organisation_id: UUID | None
    municipalities: frozenset[str]
    rows: Sequence[Row]

    @property
    def first(self) -> date:
        return min(row.mandate_from or date.max for row in self.rows)

    @property
    def last(self) -> date:
        return max(row.mandate_until or date.min for row in self.rows)


@dataclass(slots=True)
class Comparison:
    """What there is to tell, and what there is to write."""

    diff: RollDiff
    seats: list[Seat] = field(default_factory=list)
    """Written as they stand here: new, changed or cut off."""
    dropped: list[UUID] = field(default_factory=list)
    renamed: list[Person] = field(default_factory=list)
    touched: set[UUID] = field(default_factory=set)
    joined: list[UUID] = field(default_factory=list)


def compare(listed: Listed, held: Iterable[Seat], persons: Mapping[str, Person], day: date) -> Comparison:
    """`held` are all mandates in the organisation, `persons` the people of the file by address key."""
    comparison = Comparison(_empty(listed))
    seats: dict[str, list[Seat]] = {}
    wanted = {_seat(listed, row, persons[row.address.key]).role_id for row in listed.rows}
    for seat in held:
        is_here = seat.municipalities == listed.municipalities and seat.meets(max(listed.first, day), listed.last)
        if is_here or seat.role_id in wanted:
            seats.setdefault(seat.person.key, []).append(seat)
    for row in listed.rows:
        seat = _seat(listed, row, persons[row.address.key])
        _compare_seat(comparison, seat, row, seats.pop(row.address.key, []), day)
    for leaving in seats.values():
        _end(comparison, listed, leaving, day)
    return comparison


def _empty(listed: Listed) -> RollDiff:
    return RollDiff(
        organisation=listed.name,
        organisation_id=listed.organisation_id,
        municipalities=sorted(listed.municipalities),
        mandate_from=listed.first,
        mandate_until=listed.last,
        joining=[],
        leaving=[],
        changing=[],
        staying=0,
    )


def _seat(listed: Listed, row: Row, person: Person) -> Seat:
    key = role_id(person.id, Audience.POLITICIAN, listed.organisation_id, row.mandate_from)
    return Seat(key, person, listed.municipalities, row.mandate_from, row.mandate_until)


def _compare_seat(comparison: Comparison, seat: Seat, row: Row, seats: list[Seat], day: date) -> None:
    person = seat.person
    renamed = replace(person, name=row.name or person.name, locale=str(row.locale or person.locale))
    if not seats:
        comparison.diff.joining.append(_shown(person, row))
        comparison.joined.append(person.id)
    elif fields := _fields(seats, seat, renamed):
        comparison.diff.changing.append(RollChange(**_shown(person, row).model_dump(), fields=fields))
    else:
        comparison.diff.staying += 1
        return
    if renamed != person:
        comparison.renamed.append(renamed)
    comparison.touched.add(person.id)
    comparison.seats.append(seat)
    for other in seats:
        if other.role_id != seat.role_id:
            _give_way(comparison, other, seat, day)


def _give_way(comparison: Comparison, older: Seat, newer: Seat, day: date) -> None:
    """The older mandate ends where the newer begins; nothing is left of one that would have no day to come."""
    assert newer.mandate_from is not None
    until = newer.mandate_from - DAY
    if (older.mandate_from or date.min) <= until and until >= day:
        comparison.seats.append(replace(older, mandate_until=until))
    else:
        comparison.dropped.append(older.role_id)


def _end(comparison: Comparison, listed: Listed, seats: list[Seat], day: date) -> None:
    """Whoever leaves is kept, with a mandate that is over, until the weeding finds them."""
    comparison.diff.leaving.append(_shown(seats[0].person, None))
    comparison.touched.add(seats[0].person.id)
    for seat in seats:
        has_begun_before = (seat.mandate_from or date.min) < listed.first
        until = max(listed.first - DAY, day - DAY) if has_begun_before else day - DAY
        begins = min(seat.mandate_from, until) if seat.mandate_from else None
        comparison.seats.append(replace(seat, mandate_from=begins, mandate_until=until))


def _fields(seats: Sequence[Seat], wanted: Seat, renamed: Person) -> list[RollField]:
    before = next((seat for seat in seats if seat.role_id != wanted.role_id), seats[0])
    pairs = {
        "name": (before.person.name, renamed.name),
        "locale": (before.person.locale, renamed.locale),
        "municipalities": (", ".join(sorted(before.municipalities)), ", ".join(sorted(wanted.municipalities))),
        "mandate_from": (_day(before.mandate_from), _day(wanted.mandate_from)),
        "mandate_until": (_day(before.mandate_until), _day(wanted.mandate_until)),
    }
    return [RollField(field=name, before=old, after=new) for name, (old, new) in pairs.items() if old != new]


def _shown(person: Person, row: Row | None) -> RollPerson:
    return RollPerson(
        line=row.line if row else None,
        subscriber_id=None if person.is_new else person.id,
        address=person.address,
        name=(row.name if row else "") or person.name,
    )


def _day(day: date | None) -> str:
    return day.isoformat() if day else ""
