"""How often somebody gets an item: the rule, and what is kept of it."""

from uuid import UUID

import pytest
from tests.integration.subscriptions.conftest import Register

from shared.contracts.news import Audience
from shared.database import Database
from subscriptions.frequencies import Frequency, frequencies_of, frequency_of, put_frequencies

DAILY, WEEKLY, AT_ONCE = Frequency.DAILY, Frequency.WEEKLY, Frequency.IMMEDIATE


@pytest.mark.parametrize(
    ("chosen", "topics", "wanted", "expected"),
    [
        pytest.param({}, {"results"}, set(), AT_ONCE, id="nothing chosen"),
        pytest.param({"": DAILY}, {"results"}, set(), DAILY, id="everything daily"),
        pytest.param({"": DAILY}, set(), set(), DAILY, id="an item about nothing"),
        pytest.param({"": DAILY, "results": WEEKLY}, {"results"}, set(), WEEKLY, id="a topic's own"),
        pytest.param({"results": WEEKLY}, {"results", "mental_health"}, set(), AT_ONCE, id="the soonest wins"),
        pytest.param({"results": WEEKLY}, {"results", "mental_health"}, {"results"}, WEEKLY, id="of those wanted"),
        pytest.param({"": DAILY, "results": AT_ONCE}, {"results"}, {"results"}, AT_ONCE, id="at once, although"),
    ],
)
def test_the_rule(chosen: dict[str, Frequency], topics: set[str], wanted: set[str], expected: Frequency) -> None:
    assert frequency_of(chosen, Audience.PUBLIC, topics, wanted) is expected
    assert frequency_of(chosen, Audience.NEWSROOM, topics, wanted) is AT_ONCE


async def test_what_is_chosen_is_kept_replaced_whole_and_goes_with_the_person(
    register: Register, database: Database
) -> None:
    person = UUID(await register.person("anna@kalmar.example", {"audience": "public"}))
    for chosen, kept in (
        ({"": DAILY, "results": WEEKLY}, {"": DAILY, "results": WEEKLY}),
        ({"": AT_ONCE, "results": AT_ONCE}, {"results": AT_ONCE}),
    ):
        async with database.transaction() as session:
            await put_frequencies(session, person, chosen)
        async with database.reading() as session:
            assert (await frequencies_of(session, [person]))[person] == kept
    assert (await register.office.delete(f"/api/subscriptions/v1/subscribers/{person}")).status_code == 204
    async with database.reading() as session:
        assert await frequencies_of(session, [person]) == {}
