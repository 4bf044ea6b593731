"""The ledger's API: what became of every delivery, with the receivers' own words as proof."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request, Response
from sqlalchemy import Row

from distributor import digests, ledger, repository
from distributor.ledger import NotRetriable, UnknownDelivery
from distributor.schemas import AttemptView, BounceView, DeliveryDetail, DeliveryView, ExclusionView, status_of
from distributor.states import LANE_OF_RANK
from shared import paging
from shared.contracts.delivery import DeliveryState
from shared.database import instant
from shared.http import Reading, Writing
from shared.keys import Publisher, Reader
from shared.paging import Cursor, Limit, Page
from shared.problems import Problem, documented
from shared.routes import Router

router = Router(prefix="/api/distributor/v1", tags=["Deliveries"])


@router.get("/deliveries", responses=documented(401, 403, 422))
async def list_deliveries(
    request: Request,
    response: Response,
    session: Reading,
    _caller: Reader,
    item: Annotated[UUID | None, Query(description="the item's id")] = None,
    recipient: UUID | None = None,
    state: DeliveryState | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[DeliveryView]:
    """The ledger's rows, by item, recipient and state. A page may be shorter than its limit, or empty: there is more
    as long as it has a `next_cursor`.
    """
    found = await repository.find_deliveries(
        session, item=item, recipient=recipient, state=state, after=paging.decode(cursor), limit=limit
    )
    following = paging.encode(found.following) if found.following else None
    paging.link_next(request, response, following)
    return Page(data=[_view(row) for row in found.rows], next_cursor=following)


@router.get("/deliveries/{delivery_id}", responses=documented(401, 403, 404, 422))
async def get_delivery(delivery_id: UUID, session: Reading, _caller: Reader) -> DeliveryDetail:
    """One row with its attempts, and what came back."""
    row = await repository.find_delivery(session, delivery_id)
    if row is None:
        raise Problem(404, "unknown_delivery")
    log = [AttemptView.model_validate(tried._asdict()) for tried in await repository.attempts_of(session, delivery_id)]
    back = [BounceView.model_validate(told._asdict()) for told in await repository.bounces_of(session, delivery_id)]
    return DeliveryDetail(**_view(row).model_dump(), attempt_log=log, bounce_log=back)


@router.post("/deliveries/{delivery_id}/retry", status_code=202, responses=documented(401, 403, 404, 409, 422))
async def retry_delivery(request: Request, delivery_id: UUID, session: Writing, _caller: Publisher) -> DeliveryView:
    """Send a delivery that ended badly, or is held in doubt, once more. 409 for one that must not be sent again."""
    try:
        now = await instant(session, request.app.state.clock)
        await digests.bring_up(session, delivery_id, now)
        await ledger.retry_by_hand(session, delivery_id, now)
    except UnknownDelivery as error:
        raise Problem(404, "unknown_delivery") from error
    except NotRetriable as error:
        detail = f"The delivery is {error}, or a newer revision has taken its place."
        raise Problem(409, "not_retriable", detail) from error
    row = await repository.find_delivery(session, delivery_id)
    assert row is not None
    return _view(row)


@router.get("/exclusions", responses=documented(401, 403, 422))
async def list_exclusions(
    request: Request,
    response: Response,
    session: Reading,
    _caller: Reader,
    item: UUID,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ExclusionView]:
    """Who was in the item's audience and left out, and why."""
    rows = await repository.find_exclusions(session, item=item, after=paging.decode(cursor), limit=limit + 1)
    following = paging.encode(rows[limit - 1].recipient_id) if len(rows) > limit else None
    paging.link_next(request, response, following)
    return Page(data=[ExclusionView.model_validate(row._asdict()) for row in rows[:limit]], next_cursor=following)


def _view(row: Row[Any]) -> DeliveryView:
    shown = {name: value for name, value in row._asdict().items() if name in DeliveryView.model_fields}
    shown |= {
        "lane": LANE_OF_RANK[row.lane],
        "status": status_of(DeliveryState(row.state), row.ended_reason),
        "attempts": row.tries,
    }
    return DeliveryView.model_validate(shown)
