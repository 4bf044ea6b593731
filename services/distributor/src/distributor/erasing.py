"""Forgetting somebody at their word: nothing personal of theirs is left, wherever it stands.

`recipient.erased` goes through here at once, and once more some minutes later: a batch, a follow-up or an attempt that
was being written in that moment saw nothing of the erasure, and the erasure nothing of it. Ids, states and counts stay.
"""

import json
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from distributor.ledger import (
    PERSONAL,
    attempts,
    bounce_reports,
    contents,
    deliveries,
    exclusions,
    stop_recipient,
    stops,
)
from shared.contracts.mail import SubjectKind
from shared.database import among
from shared.messaging import dead_letters, outbox

REQUESTED = "mail.requested"


async def erase(session: AsyncSession, recipient_id: UUID, at: datetime, *, version: int = 1) -> None:
    """Call off what is not sent, let nothing that comes late be sent, and forget what there is."""
    for_good = {"recipient_id": recipient_id, "audience": "", "stopped": True, "until": None, "erased": True}
    await stop_recipient(session, for_good | {"version": version}, at)
    await erase_recipient(session, recipient_id)


async def erase_recipient(session: AsyncSession, recipient_id: UUID) -> None:
    """Forget everything personal about the recipient, in the ledger, the dead letters and what was replayed of them."""
    theirs = deliveries.c.recipient_id == recipient_id
    await session.execute(update(deliveries).where(theirs).values(dict.fromkeys(PERSONAL)))
    await forget_words(session, list(await session.scalars(select(deliveries.c.id).where(theirs))))
    requests = select(deliveries.c.subject_id).where(theirs, deliveries.c.subject_kind == SubjectKind.REQUEST)
    asked = contents.c.subject_id.in_(requests)
    await session.execute(update(contents).where(asked, contents.c.request.is_not(None)).values(request=None))
    await session.execute(update(exclusions).where(exclusions.c.recipient_id == recipient_id).values(detail=""))
    await _erase_dead_letters(session, recipient_id)
    async for row in outbox.redirected(session, recipient_id):
        await outbox.rewrite(session, row.id, _without(row.body, recipient_id))


async def erase_unknown(session: AsyncSession, recipient_ids: Collection[UUID], at: datetime) -> int:
    """Erase those of whose erasure the ledger knows nothing: it was put back from a backup that is older. How many."""
    known = select(stops.c.recipient_id).where(among(session, stops.c.recipient_id, recipient_ids), stops.c.erased)
    unknown = set(recipient_ids) - set(await session.scalars(known))
    for recipient_id in sorted(unknown):
        await erase(session, recipient_id, at)
    return len(unknown)


async def forget_words(session: AsyncSession, delivery_ids: Iterable[UUID]) -> None:
    """Servers' words may quote the address: drop them, and keep their codes."""
    ids = list(delivery_ids)
    said = among(session, attempts.c.delivery_id, ids) & (attempts.c.reply != "")
    await session.execute(update(attempts).where(said).values(reply=""))
    reported = among(session, bounce_reports.c.delivery_id, ids) & (bounce_reports.c.diagnostic != "")
    await session.execute(update(bounce_reports).where(reported).values(diagnostic=""))


async def erase_again(session: AsyncSession, at: datetime) -> bool:
    """Do one erasure once more whose second look is due; False when none is."""
    due = select(stops.c.recipient_id).where(stops.c.look_again_at <= at).order_by(stops.c.look_again_at).limit(1)
    recipient_id = await session.scalar(due.with_for_update(skip_locked=True))
    if recipient_id is None:
        return False
    await erase_recipient(session, recipient_id)
    await session.execute(update(stops).where(stops.c.recipient_id == recipient_id).values(look_again_at=None))
    return True


async def _erase_dead_letters(session: AsyncSession, recipient_id: UUID) -> None:
    async for letter in dead_letters.mentioning(session, recipient_id, event_type=REQUESTED):
        await dead_letters.rewrite(session, letter["id"], _without(letter["body"], recipient_id))


def _without(body: bytes, recipient_id: UUID) -> bytes:
    """The batch without the recipient; nothing at all where it is too broken to take them out."""
    try:
        envelope: dict[str, Any] = json.loads(body)
        recipients = envelope["data"]["recipients"]
        envelope["data"]["recipients"] = [one for one in recipients if one["recipient_id"] != str(recipient_id)]
    except (ValueError, TypeError, KeyError):
        return b""
    written = json.dumps(envelope, ensure_ascii=False).encode()
    return b"" if str(recipient_id).encode() in written else written
