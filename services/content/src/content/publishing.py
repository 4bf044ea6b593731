"""What editors do with an item: save a draft, edit it, publish, schedule, unschedule, correct, withdraw.

A state change, its revision and the event that tells of it are one transaction. The change is conditional on the
version that was read, so that of two publishes at the same time one makes the revision and the other is told
what became of the item. Once published, edits go to the working copy alone; readers see them when `correct` makes the
working copy the next revision.

A scheduled item is a draft that nobody edits: what goes out is what was there when a publisher said so, and whoever may
write but not publish cannot slip anything in. Unscheduling opens it again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from content import repository
from content.fields import ItemChanges, ItemDraft, ItemFields
from content.models import Item, ItemRevision
from content.requirements import frozen_that_changed, missing_for_publication, unfit_time
from content.slugs import candidates
from content.snapshots import TEXTS, next_revision
from content.swedish_time import swedish_time
from shared import correlation
from shared.contracts.news import ItemSnapshot, ItemState, NewsCorrected, NewsEvent, NewsPublished, NewsWithdrawn
from shared.ids import derived_id, new_id
from shared.messaging.outbox import emit
from shared.problems import FieldError, Problem

log = structlog.get_logger()

PUBLIC = (ItemState.PUBLISHED, ItemState.CORRECTED)
UNSCHEDULED = {"publish_at": None, "missed_at": None, "correlation_id": None, "traceparent": None}


@dataclass(frozen=True, slots=True)
class Act:
    """Who acts, when, on which site, and which version they have read (`None`: whichever it is)."""

    by: str
    at: datetime
    site: str
    expected: frozenset[int] | None = None


async def save_draft(session: AsyncSession, draft: ItemDraft, act: Act) -> Item:
    """A new item, seen by editors alone."""
    item_id = new_id()
    await repository.add(
        session,
        Item,
        id=item_id,
        kind=draft.kind,
        state=ItemState.DRAFT,
        revision=0,
        version=1,
        working_copy=draft.fields().model_dump(mode="json"),
        created_by=act.by,
        created_at=act.at,
        changed_by=act.by,
        changed_at=act.at,
    )
    return await _found(session, item_id)


async def edit(session: AsyncSession, item_id: UUID, changes: ItemChanges, act: Act) -> Item:
    """Change the working copy. What is public stays as it is."""
    return await rework(session, item_id, lambda before: before.changed(changes.sent()), act)


async def rework(session: AsyncSession, item_id: UUID, change: Callable[[ItemFields], ItemFields], act: Act) -> Item:
    """Put what `change` makes of the working copy in its place."""
    item = await _expected(session, item_id, act)
    if item.state == ItemState.WITHDRAWN:
        raise _invalid_transition(item, "edited")
    if item.publish_at is not None:
        raise _scheduled(item.publish_at)
    before = ItemFields.model_validate(item.working_copy)
    after = change(before)
    if item.state != ItemState.DRAFT and (faults := frozen_that_changed(before, after)):
        raise Problem(422, errors=faults)
    kept = {"kind": after.kind, "working_copy": after.model_dump(mode="json")}
    if not await repository.change(session, item, changed_by=act.by, changed_at=act.at, **kept):
        raise Problem(412)
    return await _found(session, item_id)


async def publish(session: AsyncSession, item_id: UUID, act: Act) -> Item:
    """Make a draft public, and tell everybody it is for."""
    item = await _expected(session, item_id, act)
    if item.state != ItemState.DRAFT:
        raise _invalid_transition(item, "published")
    fields = await _ready(item)
    slug = await _take_slug(session, item, fields.title, act)
    made = await _make_revision(session, item, fields, ItemState.PUBLISHED, "", slug, act)
    await _tell(session, NewsPublished(item=made), act)
    return await _found(session, item_id)


async def schedule(session: AsyncSession, item_id: UUID, publish_at: datetime, act: Act) -> Item:
    """Have a draft published at its time; one that is scheduled gets another. `act.at` is the database's present."""
    item = await _expected(session, item_id, act)
    if item.state != ItemState.DRAFT:
        raise _invalid_transition(item, "scheduled")
    await _ready(item)
    if faults := unfit_time(publish_at, act.at):
        raise Problem(422, errors=faults)
    trail = correlation.current()
    told = {"correlation_id": trail.correlation_id, "traceparent": trail.traceparent}
    kept = {**UNSCHEDULED, **told, "publish_at": publish_at}
    if not await repository.change(session, item, changed_by=act.by, changed_at=act.at, **kept):
        raise Problem(412)
    log.info("item_scheduled", item_id=str(item_id), publish_at=publish_at.isoformat(), key_id=act.by)
    return await _found(session, item_id)


async def unschedule(session: AsyncSession, item_id: UUID, act: Act) -> Item:
    """Let nothing happen by itself any more; done once, and the same however often it is asked for."""
    item = await _expected(session, item_id, act)
    if item.state != ItemState.DRAFT:
        raise _invalid_transition(item, "unscheduled")
    if item.publish_at is None and item.missed_at is None:
        return item
    if not await repository.change(session, item, changed_by=act.by, changed_at=act.at, **UNSCHEDULED):
        return await unschedule(session, item_id, act)  # somebody was faster: where does it stand now?
    log.info("item_unscheduled", item_id=str(item_id), key_id=act.by)
    return await _found(session, item_id)


async def correct(session: AsyncSession, item_id: UUID, note: str, act: Act) -> Item:
    """Make the working copy the next public revision; `note` says what was wrong."""
    item = await _expected(session, item_id, act)
    if item.state not in PUBLIC:
        raise _invalid_transition(item, "corrected")
    fields = await _ready(item)
    if fields == ItemFields.model_validate((await _newest(session, item)).fields):
        raise Problem(409, "nothing_to_correct", "Edit the item first: its text is the one that is public.")
    made = await _make_revision(session, item, fields, ItemState.CORRECTED, note, str(item.slug), act)
    await _tell(session, NewsCorrected(item=made, note=note), act)
    return await _found(session, item_id)


async def withdraw(session: AsyncSession, item_id: UUID, reason: str, act: Act) -> Item:
    """Take the item back; `reason` is what readers are told."""
    item = await _expected(session, item_id, act)
    if item.state not in PUBLIC:
        raise _invalid_transition(item, "withdrawn")
    fields = ItemFields.model_validate((await _newest(session, item)).fields)
    made = await _make_revision(session, item, fields, ItemState.WITHDRAWN, reason, str(item.slug), act)
    await _tell(session, NewsWithdrawn(item=made, reason=reason), act)
    return await _found(session, item_id)


async def _found(session: AsyncSession, item_id: UUID) -> Item:
    item = await repository.item(session, item_id)
    if item is None:
        raise Problem(404)
    return item


async def _expected(session: AsyncSession, item_id: UUID, act: Act) -> Item:
    item = await _found(session, item_id)
    if act.expected is not None and item.version not in act.expected:
        raise Problem(412)
    return item


async def _newest(session: AsyncSession, item: Item) -> ItemRevision:
    return (await repository.revisions(session, item.id))[-1]


async def _ready(item: Item) -> ItemFields:
    fields = ItemFields.model_validate(item.working_copy)
    if faults := await asyncio.to_thread(missing_for_publication, fields):
        raise Problem(422, errors=faults)
    return fields


async def _take_slug(session: AsyncSession, item: Item, title: str, act: Act) -> str:
    for slug in candidates(title, act.at.date(), item.id):
        if await repository.take_slug(session, item.id, slug):
            return slug
    raise RuntimeError("the item's own id stands in the last candidate, so it cannot be taken")


async def _make_revision(
    session: AsyncSession, item: Item, fields: ItemFields, state: ItemState, note: str, slug: str, act: Act
) -> ItemSnapshot:
    """Move the item on and keep the revision; whoever came second is told where the item is now."""
    # The worst Markdown takes seconds, in which others are served.
    made = await asyncio.to_thread(next_revision, item, fields, state=state, slug=slug, site=act.site, at=act.at)
    moved = {"state": state, "revision": made.revision, "published_at": made.published_at, "revised_at": act.at}
    if not await repository.change(session, item, changed_by=act.by, changed_at=act.at, **moved, **UNSCHEDULED):
        raise _invalid_transition(await _found(session, item.id), state)
    await repository.add(
        session,
        ItemRevision,
        item_id=item.id,
        revision=made.revision,
        state=state,
        fields=fields.model_dump(mode="json"),
        note=note,
        made_by=act.by,
        made_at=act.at,
        **made.model_dump(include=set(TEXTS)),
    )
    return made


async def _tell(session: AsyncSession, event: NewsEvent, act: Act) -> None:
    event_id = derived_id(event.event_name, event.item.item_id, event.item.revision)
    await emit(session, event, source="content", subject=event.item.item_id, at=act.at, event_id=event_id)
    log.info("item_made_public", item_id=str(event.item.item_id), revision=event.item.revision, state=event.item.state)


def _scheduled(publish_at: datetime) -> Problem:
    message = f"It goes out as it is at {swedish_time(publish_at)}: unschedule it, edit it, schedule it again."
    fault = FieldError(
        pointer="/publish_at",
        code="scheduled",
        message=message,
        message_sv="Nyheten är schemalagd och går ut som den är. Avbryt schemaläggningen innan du ändrar den.",
    )
    return Problem(409, "scheduled", message, errors=[fault])


def _invalid_transition(item: Item, wanted: str) -> Problem:
    message = f"The item is {item.state} (revision {item.revision}) and cannot be {wanted} now."
    fault = FieldError(
        pointer="/state",
        code=item.state,
        message=message,
        message_sv="Nyhetens läge har ändrats. Läs in den på nytt.",
    )
    return Problem(409, "invalid_transition", message, errors=[fault])
