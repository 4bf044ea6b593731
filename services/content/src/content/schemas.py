"""What the API answers with, and the bodies of its acts."""

from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

from pydantic import BaseModel, Field, TypeAdapter

from content.fields import ItemFields, without_defaults
from content.link_warnings import link_warnings
from content.models import FanoutTotals, Item, ItemRevision, ReachSnapshot
from content.reach import Fanout, Reach, adds_up, audiences_reached, digests, follow_ups, whole
from content.snapshots import public_url
from content.swedish_time import InstantWritten
from content.wording import Note
from shared.contracts.delivery import DeliveryCount, ExclusionCount
from shared.contracts.mail import AudienceTotal
from shared.contracts.news import ItemState
from shared.http import RequestModel
from shared.problems import FieldError

_counts = TypeAdapter(list[DeliveryCount])
_exclusions = TypeAdapter(list[ExclusionCount])
_totals = TypeAdapter(list[AudienceTotal])


class Publication(RequestModel, json_schema_extra=without_defaults):
    """When a draft becomes public: at once, unless a time is given."""

    publish_at: InstantWritten = Field(
        default=None,
        description="RFC 3339 with an offset, within a year; until then the item is a draft that nobody edits",
    )


class Correction(RequestModel):
    """What was wrong, in words for the readers."""

    note: Note


class Withdrawal(RequestModel):
    """Why the item is taken back, in words for the readers."""

    reason: Note


class ItemView(ItemFields):
    """An item as its editors see it: the working copy, and where it stands."""

    id: UUID
    state: ItemState
    revision: int = Field(description="the newest public revision; 0 for a draft")
    slug: str | None
    url: str | None = Field(description="the public page, once there is one")
    created_at: datetime
    changed_at: datetime
    published_at: datetime | None
    revised_at: datetime | None
    publish_at: datetime | None = Field(description="scheduled: when the draft becomes public by itself")
    missed_at: datetime | None = Field(
        description="it was scheduled for then, and an hour later it was not public: publish or schedule it anew"
    )
    warnings: list[FieldError] = Field(description="links that are taken, and better looked at once more")

    @classmethod
    def of(cls, item: Item, site: str) -> Self:
        """The view of one row."""
        fields = ItemFields.model_validate(item.working_copy)
        return cls.model_validate(
            {
                **fields.model_dump(),
                "warnings": link_warnings(fields),
                "id": item.id,
                "state": item.state,
                "revision": item.revision,
                "slug": item.slug,
                "url": public_url(site, item.slug) if item.slug else None,
                "created_at": item.created_at,
                "changed_at": item.changed_at,
                "published_at": item.published_at,
                "revised_at": item.revised_at,
                "publish_at": item.publish_at,
                "missed_at": item.missed_at,
            }
        )


class RevisionView(ItemFields):
    """One public revision, as it was."""

    revision: int
    state: ItemState
    note: str = Field(description="a correction's note or a withdrawal's reason")
    body_html: str
    body_text: str
    popular_version_html: str
    popular_version_text: str
    made_by: str = Field(description="id of the key that made it public")
    made_at: datetime

    @classmethod
    def of(cls, row: ItemRevision) -> Self:
        """The view of one row."""
        names = cls.model_fields.keys() - ItemFields.model_fields.keys()
        return cls.model_validate({**row.fields, **{name: getattr(row, name) for name in names}})


class Revisions(BaseModel):
    """All public revisions of an item, the first first."""

    data: list[RevisionView]


def reach_view(item: Item, progress: ReachSnapshot | None, totals: FanoutTotals | None, now: datetime) -> Reach:
    """What is known of an item's reach right now."""
    counts = _counts.validate_python(progress.deliveries if progress else [])
    reached = audiences_reached(counts, _exclusions.validate_python(progress.exclusions if progress else []))
    fanout = _fanout(totals)
    return Reach(
        item_id=item.id,
        state=ItemState(item.state),
        revision=item.revision,
        sequence=progress.sequence if progress else 0,
        counted_at=progress.counted_at if progress else None,
        total=whole(reached),
        excluded=sum(row.excluded for row in reached),
        audiences=reached,
        follow_ups=follow_ups(counts),
        digests=digests(counts),
        fanout=fanout,
        adds_up=adds_up(reached, fanout, _quiet_for(progress, totals, now)),
        counts=counts,
    )


def _quiet_for(progress: ReachSnapshot | None, totals: FanoutTotals | None, now: datetime) -> timedelta:
    """How long since the last word of it, from whoever is slower: a distributor may still be accepting."""
    if totals is None:
        return timedelta()
    return now - max(totals.received_at, progress.counted_at if progress else totals.received_at)


def _fanout(totals: FanoutTotals | None) -> Fanout:
    if totals is None:
        return Fanout()
    return Fanout(
        complete=True,
        revision=totals.revision,
        cut_short=totals.cut_short,
        totals=_totals.validate_python(totals.totals),
    )
