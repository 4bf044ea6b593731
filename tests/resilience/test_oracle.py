"""The oracle finds each kind of fault, or no scenario that it ends would mean anything."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from tests.deployments import WINDOW_OF_DOUBT
from tests.inboxes import Mail
from tests.resilience.oracle import WEBHOOKS_IN_FLIGHT, Oracle
from tests.servers.receiver import ReceivedRequest

BOTH = frozenset({"eva@a.example", "bo@b.example"})
HOOK = "/hook"


def mail(to: str, item: str = "one", *, body: str = "", answered: bool = True) -> Mail:
    content = f"X-Budkavle-Item: {item}\r\n\r\n{body}".encode()
    return Mail(to, f"{item}.{to}", body, content, 1.0, 2.0 if answered else None)


def webhook(path: str = HOOK, item: str = "one", *, key: str = "w1") -> ReceivedRequest:
    body = json.dumps({"subject": item}).encode()
    return ReceivedRequest("POST", path, (("webhook-id", key),), body, datetime.now(UTC), 204)


@pytest.fixture
def oracle() -> Oracle:
    made = Oracle()
    made.accepted("one", BOTH, frozenset({HOOK}))
    return made


ALL = [mail(to) for to in sorted(BOTH)]


def test_what_came_as_it_should_balances(oracle: Oracle) -> None:
    assert oracle.check(ALL, [webhook()]) == {
        "items": 1,
        "expected": 3,
        "repeats": 0,
        "ambiguous": 0,
        "repeated_mails": 0,
        "repeated_hooks": 0,
    }


@pytest.mark.parametrize(
    ("mails", "requests", "says"),
    [
        (ALL[1:], [webhook()], "1 lost"),
        (ALL, [], "1 lost"),
        ([*ALL, mail("stranger@c.example")], [webhook()], "1 unexpected"),
        (ALL, [webhook(), webhook("/another")], "1 unexpected"),
        ([*ALL, mail("eva@a.example", "two")], [webhook()], "nobody accepted"),
        (ALL, [webhook(), webhook(item="two")], "nobody accepted"),
        ([*ALL, mail("eva@a.example", "")], [webhook()], "mail of no item"),
        ([*ALL, mail("eva@a.example")], [webhook()], "1 repeats"),
        (ALL, [webhook(), webhook()], "1 repeats"),
        ([*ALL, mail("eva@a.example", body="other")], [webhook()], "copies that differ"),
        (ALL, [webhook(), webhook(key="w2")], "copies that differ"),
    ],
)
def test_whatever_differs_is_found(
    oracle: Oracle, mails: list[Mail], requests: list[ReceivedRequest], says: str
) -> None:
    with pytest.raises(AssertionError, match=says):
        oracle.check(mails, requests)


@pytest.mark.parametrize("kills", [1, 2])
def test_a_death_excuses_its_window_and_no_more(kills: int, oracle: Oracle) -> None:
    oracle.kills = kills

    def repeated(mails: int, hooks: int) -> Callable[[], object]:
        return lambda: oracle.check([*ALL, *ALL[:1] * mails], [webhook()] * (1 + hooks))

    repeated(WINDOW_OF_DOUBT * kills, WEBHOOKS_IN_FLIGHT * kills)()
    for too_many in (
        repeated(WINDOW_OF_DOUBT * kills + 1, 0),
        repeated(0, WEBHOOKS_IN_FLIGHT * kills + 1),
    ):
        with pytest.raises(AssertionError, match="repeats"):
            too_many()


def test_who_asked_for_a_mail_of_their_own_may_have_it(oracle: Oracle) -> None:
    oracle.askers.add("eva@a.example")
    oracle.check([*ALL, mail("eva@a.example", "")], [webhook()])


def test_a_receiver_that_was_not_heard_is_counted_as_doubt(oracle: Oracle) -> None:
    assert oracle.check([ALL[0], mail("eva@a.example", answered=False)], [webhook()])["ambiguous"] == 1
