"""Tries an endpoint out at an operator's word: one webhook, signed like all others, that tells of no item.

It touches neither the ledger nor the endpoint. Only an answer of 2xx is noted: it ends a series of failures, so that
whoever mended something sees it at once. It ends within the timeout of webhooks. A disabled endpoint may be tried too,
since that is how one learns whether to enable it.
"""

from datetime import timedelta
from uuid import UUID

from distributor.channels import Outcome
from distributor.settings import DistributorSettings
from distributor.webhooks import endpoints, health
from distributor.webhooks.body import trial_body
from distributor.webhooks.client import Answer, Silence, Why
from distributor.webhooks.endpoints import Target
from distributor.webhooks.schemas import TrialResult
from distributor.webhooks.sending import Signed, classified, new_client, posted, seal_of, unreadable
from distributor.webhooks.signing import SecretUnreadable
from shared import correlation
from shared.clock import Clock
from shared.contracts.delivery import DeliveryState
from shared.database import Database
from shared.ids import new_id


async def run(
    endpoint_id: UUID, *, settings: DistributorSettings, database: Database, clock: Clock
) -> TrialResult | None:
    """Send a test webhook and say what came back; `None` when there is no such endpoint."""
    async with database.reading() as session:
        target = (await endpoints.targets(session, [endpoint_id], clock.now())).get(endpoint_id)
    if target is None:
        return None
    try:
        answer = await _post(endpoint_id, target, settings, clock)
    except SecretUnreadable:
        return _shown(unreadable(), None)
    outcome = classified(answer, clock.now())
    if outcome.state is DeliveryState.SENT and target.enabled:
        async with database.transaction() as session:
            await health.succeeded(session, {endpoint_id: outcome.code}, clock.now())
    return _shown(outcome, answer.why if isinstance(answer, Silence) else None)


def _shown(outcome: Outcome, failure: Why | None) -> TrialResult:
    return TrialResult(
        outcome=outcome.state,
        status=outcome.code,
        failure=failure,
        reply=outcome.reply,
        duration_ms=outcome.duration // timedelta(milliseconds=1),
    )


async def _post(endpoint_id: UUID, target: Target, settings: DistributorSettings, clock: Clock) -> Answer | Silence:
    at, seal = clock.now(), seal_of(settings)
    signed = Signed(str(new_id()), at, trial_body(endpoint_id, at, correlation.current().correlation_id))
    async with new_client(settings) as client:
        return await posted(signed, target, client, seal)
