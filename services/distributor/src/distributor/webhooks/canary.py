"""The canary's end of webhooks: takes what is signed with a secret of its endpoint, and notes that it arrived.

Anybody may call it, and learns nothing: without a signature of ours it answers 401, and a webhook that is repeated
changes nothing, however old it is; so its time is not looked at. A sample is answered like news and noted nowhere.
"""

import hmac
from uuid import UUID

from fastapi import Request, Response

from distributor import canary
from distributor.webhooks import endpoints
from distributor.webhooks.endpoints import Target
from distributor.webhooks.sending import seal_of
from distributor.webhooks.signing import Seal, SecretUnreadable
from distributor.webhooks.urls import CANARY_PATH
from shared.problems import Problem
from shared.routes import Router

router = Router(include_in_schema=False)


@router.post(CANARY_PATH)
async def receive(request: Request) -> Response:
    """Take one webhook."""
    state, body = request.app.state, await request.body()
    endpoint_id: UUID | None = state.settings.canary_endpoint
    if endpoint_id is None:
        raise Problem(404)
    async with state.database.transaction() as session:
        target = (await endpoints.targets(session, [endpoint_id], state.clock.now())).get(endpoint_id)
        if target is None or not _is_signed(request, body, target, seal_of(state.settings)):
            raise Problem(401, detail="It is not signed with a secret of the canary's endpoint.")
        delivery_id = _uuid(request.headers["webhook-id"])
        if delivery_id is not None:
            await canary.note_arrival(session, state.clock, delivery_id, endpoint_id)
    return Response(status_code=204)


def _is_signed(request: Request, body: bytes, target: Target, seal: Seal) -> bool:
    told = request.headers
    content = f"{told.get('webhook-id', '')}.{told.get('webhook-timestamp', '')}.".encode() + body
    try:
        ours = [seal.signer(sealed)(content).encode() for sealed in target.sealed]
    except SecretUnreadable:  # then nothing is sent to it either, and the sender says so
        return False
    given = told.get("webhook-signature", "").encode().split()
    return any(hmac.compare_digest(one, another) for one in ours for another in given)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
