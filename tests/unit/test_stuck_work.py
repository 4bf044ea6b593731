"""Work whose worker died lies no longer than a minute, in any service: the longest that somebody may hold it, and then the
longest until the next one looks. And what hangs is noticed in time."""

import pytest

from content import schedule
from distributor import delivery, follow_ups, leases, progress, recovery, restored
from distributor.webhooks import care
from shared.messaging import embedded, rabbitmq, rabbitmq_link, relay
from subscriptions import digest_worker, fanout
from subscriptions.imports import worker as imports
from subscriptions.office import indexing

PICKED_UP_WITHIN_S = 60.0
TAKEN_OVER_WITHIN_S = 30.0
HEARTBEAT_AT_MOST_S, PUBLISHED_WITHIN_S = 10.0, 5.0


@pytest.mark.parametrize(
    "waits_s",
    [
        relay.LEASE.total_seconds() + relay.POLL_S,
        imports.LEASE.total_seconds() + imports.POLL_S,
        embedded.POLL_S + embedded.IDLE_S,
        schedule.POLL_S,
        fanout.POLL_S,
        digest_worker.POLL_S,
        indexing.POLL_S,
        progress.POLL_S,
        follow_ups.POLL_S,
        delivery.POLL_S,
        care.LOOK_EVERY_S,
        restored.LOOK_EVERY_S,
        recovery.STUCK_AFTER.total_seconds(),
    ],
)
def test_stuck_work_is_picked_up_within_a_minute(waits_s: float) -> None:
    assert waits_s <= PICKED_UP_WITHIN_S


def test_a_dead_sender_s_work_is_taken_over_within_half_a_minute() -> None:
    assert leases.HELD_FOR.total_seconds() + recovery.SWEEP_EVERY_S <= TAKEN_OVER_WITHIN_S


def test_a_broker_that_hangs_is_noticed_in_time() -> None:
    assert rabbitmq_link.HEARTBEAT_S <= HEARTBEAT_AT_MOST_S
    assert rabbitmq.PUBLISH_TIMEOUT_S <= PUBLISHED_WITHIN_S
