"""Who would get an item: the fan-out's own matching, counted instead of written."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.mail import ExclusionReason
from shared.contracts.news import Audience
from subscriptions.audience import Target, why_left_out
from subscriptions.matching import audience_page, in_strength, overlaps
from subscriptions.schemas import AudiencePreview, Overlap, PreviewOut, ReasonCount

PAGE = 2000


async def preview(session: AsyncSession, target: Target, at: datetime) -> PreviewOut:
    """Counts per audience with the reasons of those left out, and who is in several audiences at once."""
    found = [await _audience(session, target, audience, at) for audience in in_strength(target.audiences)]
    together: Counter[ExclusionReason] = Counter()
    for counted in found:
        together.update({entry.reason: entry.count for entry in counted.exclusions})
    return PreviewOut(
        planned=sum(counted.planned for counted in found),
        excluded=sum(counted.excluded for counted in found),
        audiences=found,
        exclusions=_counts(together.items()),
        overlaps=[
            Overlap(audiences=in_strength(audiences), count=count)
            for audiences, count in await overlaps(session, target)
        ],
    )


async def _audience(session: AsyncSession, target: Target, audience: Audience, at: datetime) -> AudiencePreview:
    planned, reasons = 0, Counter[ExclusionReason]()
    after: UUID | None = None
    while True:
        matches, after = await audience_page(session, target, audience, after=after, limit=PAGE)
        for match in matches:
            cause = why_left_out(match, target, at)
            planned += cause is None
            if cause is not None:
                reasons[cause] += 1
        if after is None:
            break
    return AudiencePreview(
        audience=audience, planned=planned, excluded=reasons.total(), exclusions=_counts(reasons.items())
    )


def _counts(counted: Iterable[tuple[ExclusionReason, int]]) -> list[ReasonCount]:
    return [ReasonCount(reason=reason, count=count) for reason, count in sorted(counted)]
