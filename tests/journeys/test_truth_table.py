"""The oracle of the journey agrees with the table that was written by hand, and the county is worth a journey."""

from collections import Counter

import pytest
from tests.journeys.county import (
    ENDPOINTS,
    NEWS,
    RECIPIENTS,
    RELEASE,
    TABLE,
    Fate,
    Gets,
    LeftOut,
    Person,
    everybody,
    places,
)
from tests.journeys.truth import fate


@pytest.mark.parametrize(("person", "of_release", "of_news"), TABLE, ids=[row[0].address for row in TABLE])
def test_the_oracle_says_what_the_table_says(person: Person, of_release: Fate, of_news: Fate) -> None:
    assert (fate(person, RELEASE, places()), fate(person, NEWS, places())) == (of_release, of_news)


def test_the_county_has_everything_that_can_happen() -> None:
    people = everybody()
    fates = [fate(person, item, places()) for person in people for item in (RELEASE, NEWS)]
    audiences = Counter(one.audience for one in fates if isinstance(one, Gets))

    assert len(people) == RECIPIENTS
    assert len({person.mailbox.casefold() for person in people}) == RECIPIENTS
    assert min(audiences[audience] for audience in RELEASE.audiences) > 30
    assert {one.reason for one in fates if isinstance(one, LeftOut)} == {
        "unsubscribed",
        "paused",
        "topic_choice",
        "municipality_choice",
    }
    assert fates.count(None) > 500
    assert len(ENDPOINTS) == 20
