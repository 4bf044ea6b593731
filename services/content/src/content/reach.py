"""How far an item has come: whom it was for, who has it, who waits, who was left out and why.

Made from the distributor's latest counts and the fan-out's totals; pure arithmetic. `planned` counts people and
endpoints, each once: a row that a later revision took over is not counted beside the row that stands in its place.
Every planned one is in exactly one of waiting, sent, deferred, failed, uncertain, cancelled. Corrections and
withdrawals that followed somebody's original are counted apart, and so are the digests that carry the item: their
readers are left out of the fan-out for that reason ("frequency").
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

from pydantic import BaseModel, Field

from shared.contracts.delivery import Channel, DeliveryCount, DeliveryState, ExclusionCount
from shared.contracts.mail import AudienceTotal, ExclusionReason, Form
from shared.contracts.news import STRONGEST_FIRST, Audience, ItemState

COUNTS_WITHIN = timedelta(minutes=1)
"""Counts that have not moved for so long since the fan-out was complete have arrived: until then nobody is missing. A
large fan-out is busy for longer than that, and not broken."""

FOLLOW_UPS = (Form.CORRECTION, Form.WITHDRAWAL)

COLUMN_OF = {
    DeliveryState.PLANNED: "waiting",
    DeliveryState.LEASED: "waiting",
    DeliveryState.SENT: "sent",
    DeliveryState.DEFERRED: "deferred",
    DeliveryState.BOUNCED: "failed",
    DeliveryState.FAILED: "failed",
    DeliveryState.UNCERTAIN: "uncertain",
    DeliveryState.CANCELLED: "cancelled",
}


class Outcomes(BaseModel):
    """What became of a number of deliveries; those from `waiting` to `cancelled` add up to `planned`."""

    planned: int = Field(default=0, description="all there are; each person or endpoint once")
    waiting: int = Field(default=0, description="not tried yet, or being tried now")
    sent: int = Field(default=0, description="the receiver's server accepted it")
    deferred: int = Field(default=0, description="tried in vain, will be tried again")
    failed: int = Field(default=0, description="bounced, or given up")
    uncertain: int = Field(default=0, description="the server fell silent after the last byte")
    cancelled: int = Field(default=0, description="stopped before it was sent")
    given_up: int = Field(default=0, description="of the failed: tried for three days, and put off each time")

    @classmethod
    def of(cls, counts: Collection[DeliveryCount]) -> Self:
        """Add the counts up by state."""
        columns: dict[str, int] = defaultdict(int)
        for count in counts:
            columns[COLUMN_OF[count.state]] += count.count
        given_up = sum(count.count for count in counts if count.given_up)
        return cls(planned=sum(columns.values()), given_up=given_up, **columns)


class ExcludedFor(BaseModel):
    """How many were left out for one reason."""

    reason: ExclusionReason
    count: int


class AudienceReach(Outcomes):
    """One audience over one channel. Endpoints (webhooks) have no audience."""

    channel: Channel
    audience: Audience | None
    excluded: int = 0
    exclusions: list[ExcludedFor] = []


class FollowUp(Outcomes):
    """Those who got an older revision and are told that it was corrected or withdrawn."""

    form: Form
    revision: int
    channel: Channel
    audience: Audience | None
    unreachable: int = Field(
        default=0, description="of the cancelled: cannot be told, since their addresses are no longer kept"
    )


class DigestReach(Outcomes):
    """Those who chose to get the item by digest, as far as a digest run has come to them."""

    audience: Audience | None


class Fanout(BaseModel):
    """What the matching of people found; `complete` is false until every batch is on its way."""

    complete: bool = False
    revision: int | None = None
    cut_short: bool = False
    totals: list[AudienceTotal] = []


class Reach(BaseModel):
    """The whole answer: whom the item was for, what became of each, and whether that accounts for everybody."""

    item_id: UUID
    state: ItemState
    revision: int
    sequence: int = Field(description="number of the snapshot; 0 before the first")
    counted_at: datetime | None
    total: Outcomes
    excluded: int
    audiences: list[AudienceReach]
    follow_ups: list[FollowUp]
    digests: list[DigestReach] = []
    fanout: Fanout
    adds_up: bool | None = Field(
        description="true: everybody whom the fan-out found is planned or left out; null: not known as yet, "
        "the fan-out or the counts are on their way; false: the fan-out is complete, the counts have not moved for a "
        "minute, and somebody is missing or too many"
    )
    counts: list[DeliveryCount] = Field(description="the distributor's own counts, as they came")


def audiences_reached(deliveries: Sequence[DeliveryCount], exclusions: Sequence[ExclusionCount]) -> list[AudienceReach]:
    """Whom the item was for, by channel and audience, the strongest audience first."""
    groups: dict[tuple[Channel, Audience | None], list[DeliveryCount]] = defaultdict(list)
    for count in deliveries:
        if count.form not in (*FOLLOW_UPS, Form.DIGEST) and not count.superseded:
            groups[count.channel, count.audience].append(count)
    for exclusion in exclusions:
        groups.setdefault((Channel.MAIL, exclusion.audience), [])
    return [
        AudienceReach(
            channel=channel,
            audience=audience,
            **Outcomes.of(groups[channel, audience]).model_dump(),
            **_left_out(channel, audience, exclusions),
        )
        for channel, audience in sorted(groups, key=_strength)
    ]


def follow_ups(deliveries: Sequence[DeliveryCount]) -> list[FollowUp]:
    """Corrections and withdrawals, by form, revision, channel and audience."""
    groups: dict[tuple[Form, int, Channel, Audience | None], list[DeliveryCount]] = defaultdict(list)
    for count in deliveries:
        if count.form in FOLLOW_UPS and not count.superseded:
            groups[count.form, count.revision, count.channel, count.audience].append(count)
    return [
        FollowUp(
            form=form,
            revision=revision,
            channel=channel,
            audience=audience,
            **Outcomes.of(groups[form, revision, channel, audience]).model_dump(),
            unreachable=sum(count.count for count in groups[form, revision, channel, audience] if count.unreachable),
        )
        for form, revision, channel, audience in sorted(groups, key=lambda key: (key[1], _strength(key[2:])))
    ]


def digests(deliveries: Sequence[DeliveryCount]) -> list[DigestReach]:
    """The digests that carry the item, by audience."""
    groups: dict[Audience | None, list[DeliveryCount]] = defaultdict(list)
    for count in deliveries:
        if count.form is Form.DIGEST:
            groups[count.audience].append(count)
    ordered = sorted(groups, key=lambda audience: _strength((Channel.MAIL, audience)))
    return [DigestReach(audience=audience, **Outcomes.of(groups[audience]).model_dump()) for audience in ordered]


def adds_up(reached: Sequence[AudienceReach], fanout: Fanout, waited: timedelta) -> bool | None:
    """Whether every person the fan-out found is either planned or left out, audience by audience.

    `waited` is the time since the last word of it, be it totals or counts; `None` says that it is too early to tell.
    """
    if not fanout.complete:
        return None
    counted = {row.audience: (row.planned, row.excluded) for row in reached if row.channel is Channel.MAIL}
    found: dict[Audience | None, tuple[int, int]] = {
        total.audience: (total.planned, total.excluded) for total in fanout.totals
    }
    nobody = (0, 0)
    if all(counted.get(audience, nobody) == found.get(audience, nobody) for audience in {*counted, *found}):
        return True
    return None if waited < COUNTS_WITHIN else False


def whole(reached: Sequence[AudienceReach]) -> Outcomes:
    """All audiences and channels together."""
    return Outcomes(**{name: sum(getattr(row, name) for row in reached) for name in Outcomes.model_fields})


def _left_out(
    channel: Channel, audience: Audience | None, exclusions: Sequence[ExclusionCount]
) -> dict[str, int | list[ExcludedFor]]:
    mine = [exclusion for exclusion in exclusions if channel is Channel.MAIL and exclusion.audience == audience]
    reasons = [ExcludedFor(reason=exclusion.reason, count=exclusion.count) for exclusion in mine if exclusion.count]
    return {"excluded": sum(exclusion.count for exclusion in mine), "exclusions": reasons}


def _strength(group: tuple[Channel, Audience | None]) -> tuple[int, int]:
    channel, audience = group
    rank = len(STRONGEST_FIRST) if audience is None else STRONGEST_FIRST.index(audience)
    return list(Channel).index(channel), rank
