"""The arithmetic of reach, by hand-counted examples."""

from datetime import timedelta

import pytest

from content.reach import COUNTS_WITHIN, AudienceTotal, Fanout, adds_up, audiences_reached, digests, follow_ups, whole
from shared.contracts.delivery import Channel, DeliveryCount, DeliveryState, ExclusionCount
from shared.contracts.mail import ExclusionReason, Form
from shared.contracts.news import Audience

MAIL, WEBHOOK = Channel.MAIL, Channel.WEBHOOK


def count(state, number, *, revision=1, channel=MAIL, audience=Audience.PUBLIC, form=Form.NEWS, superseded=False):
    return DeliveryCount(
        revision=revision,
        channel=channel,
        audience=audience,
        form=form,
        state=DeliveryState(state),
        superseded=superseded,
        count=number,
    )


def left_out(reason, number, audience=Audience.PUBLIC):
    return ExclusionCount(audience=audience, reason=ExclusionReason(reason), count=number)


def complete(*totals):
    return Fanout(
        complete=True,
        revision=1,
        totals=[AudienceTotal(audience=audience, planned=planned, excluded=out) for audience, planned, out in totals],
    )


def test_each_state_has_its_column_and_they_add_up():
    counts = [count(state, 2**n) for n, state in enumerate(DeliveryState)]
    [row] = audiences_reached(counts, [])
    assert (row.waiting, row.sent, row.deferred, row.failed, row.uncertain, row.cancelled) == (3, 4, 8, 48, 64, 128)
    assert row.planned == 255


def test_audiences_come_strongest_first_and_endpoints_last():
    counts = [
        count("sent", 1, channel=WEBHOOK, audience=None),
        count("sent", 1),
        count("sent", 1, audience=Audience.NEWSROOM, form=Form.PRESS),
    ]
    rows = audiences_reached(counts, [left_out("paused", 1, Audience.POLITICIAN)])
    assert [(row.channel, row.audience) for row in rows] == [
        (MAIL, Audience.NEWSROOM),
        (MAIL, Audience.POLITICIAN),
        (MAIL, Audience.PUBLIC),
        (WEBHOOK, None),
    ]
    assert rows[1].planned == 0
    assert rows[1].excluded == 1


def test_whoever_was_left_out_is_counted_with_the_reason():
    [row] = audiences_reached([count("sent", 5)], [left_out("paused", 2), left_out("frequency", 3)])
    assert row.excluded == 5
    assert {(out.reason, out.count) for out in row.exclusions} == {("paused", 2), ("frequency", 3)}


def test_a_delivery_that_a_correction_took_over_counts_once():
    counts = [
        count("sent", 6),
        count("cancelled", 1),  # unsubscribed in time
        count("cancelled", 3, superseded=True),
        count("sent", 3, revision=2),
        count("sent", 2, revision=2),  # a late batch, planned straight at the newest revision
        count("sent", 6, revision=2, form=Form.CORRECTION),
    ]
    [row] = audiences_reached(counts, [])
    assert (row.planned, row.sent, row.cancelled) == (12, 11, 1)
    [told] = follow_ups(counts)
    assert (told.form, told.revision, told.planned, told.sent) == (Form.CORRECTION, 2, 6, 6)


def test_a_withdrawal_is_counted_apart_by_channel():
    counts = [
        count("sent", 4),
        count("cancelled", 2),
        count("sent", 3, revision=2, form=Form.WITHDRAWAL),
        count("deferred", 1, revision=2, form=Form.WITHDRAWAL),
        count("sent", 1, revision=2, form=Form.WITHDRAWAL, channel=WEBHOOK, audience=None),
    ]
    assert [(row.channel, row.planned, row.sent, row.deferred) for row in follow_ups(counts)] == [
        (MAIL, 4, 3, 1),
        (WEBHOOK, 1, 1, 0),
    ]
    assert whole(audiences_reached(counts, [])).planned == 6


@pytest.mark.parametrize(
    ("fanout", "wanted"),
    [
        (Fanout(), None),
        (complete((Audience.PUBLIC, 5, 1), (Audience.NEWSROOM, 2, 0)), True),
        (complete((Audience.PUBLIC, 5, 1), (Audience.NEWSROOM, 2, 0), (Audience.POLITICIAN, 0, 0)), True),
        (complete((Audience.PUBLIC, 6, 1), (Audience.NEWSROOM, 2, 0)), False),
        (complete((Audience.PUBLIC, 5, 0), (Audience.NEWSROOM, 2, 0)), False),
        (complete((Audience.PUBLIC, 5, 1)), False),
        (complete((Audience.PUBLIC, 5, 1), (Audience.NEWSROOM, 2, 0), (Audience.POLITICIAN, 1, 0)), False),
    ],
)
def test_it_adds_up_only_when_nobody_is_missing_and_nobody_too_many(fanout, wanted):
    counts = [
        count("sent", 4),
        count("failed", 1),
        count("sent", 2, audience=Audience.NEWSROOM, form=Form.PRESS),
        count("sent", 9, channel=WEBHOOK, audience=None),
    ]
    reached = audiences_reached(counts, [left_out("paused", 1)])
    assert adds_up(reached, fanout, COUNTS_WITHIN) is wanted
    on_their_way = timedelta(seconds=59)
    assert adds_up(reached, fanout, on_their_way) is (True if wanted else None)


def test_digests_stand_apart_from_whom_the_item_was_sent_to_at_once():
    by_digest = [count("sent", 2, form=Form.DIGEST), count("planned", 1, form=Form.DIGEST)]
    counts = [count("sent", 5), *by_digest]
    reached = audiences_reached(counts, [left_out("frequency", 3)])
    [row] = reached
    [digest] = digests(counts)
    assert (row.planned, row.excluded) == (5, 3)
    assert (digest.audience, digest.planned, digest.sent, digest.waiting) == (row.audience, 3, 2, 1)
    assert adds_up(reached, complete((Audience.PUBLIC, 5, 3)), COUNTS_WITHIN) is True
