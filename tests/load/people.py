"""Many invented subscribers at once, straight into the tables: the import is measured elsewhere."""

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import Engine, Table, create_engine, insert, select
from tests.deployments import Deployment, Distributed, Standalone

from shared.contracts.news import Audience
from shared.database import sync_url
from subscriptions.models import Role, Subscriber, rank_of

CHUNK = 5_000
KEPT_WITHIN_S = 600


def add_people(deployment: Deployment, audience: Audience, numbers: range) -> None:
    """One subscriber per number, in one audience, reading Swedish."""
    engine = create_engine(sync_url(subscriptions_url(deployment)))
    people: Table = Subscriber.__table__  # type: ignore[assignment]
    roles: Table = Role.__table__  # type: ignore[assignment]
    with engine.begin() as connection:
        for chunk in _chunks(numbers):
            rows = [_person(audience, number) for number in chunk]
            connection.execute(insert(people), [person for person, _ in rows])
            connection.execute(insert(roles), [role for _, role in rows])
    _until_words_are_kept(deployment, engine)
    engine.dispose()


def _until_words_are_kept(deployment: Deployment, engine: Engine) -> None:
    """Those who were just put in are being written into the office's search: that is their import's cost, not that of
    the mails that follow.
    """
    behind = select(Subscriber.id).where(Subscriber.indexed_version < Subscriber.version).limit(1)
    deadline = time.monotonic() + KEPT_WITHIN_S
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while deployment.every_replica() and connection.execute(behind).first() is not None:
            assert time.monotonic() < deadline, "the search index does not come to rest"
            time.sleep(0.5)


def subscriptions_url(deployment: Deployment) -> str:
    if isinstance(deployment, Standalone):
        return f"sqlite:///{deployment.database('subscriptions')}"
    assert isinstance(deployment, Distributed)
    return deployment._databases["subscriptions"]


def _person(audience: Audience, number: int) -> tuple[dict[str, object], dict[str, object]]:
    address, key = f"{audience}.{number:06}@lasare.example", uuid.uuid4()
    person = {
        "id": key,
        "address": address,
        "address_key": address,
        "name": f"Läsare {number}",
        "locale": "sv",
        "topics": frozenset[str](),
        "municipalities": frozenset[str](),
        "generation": 1,
        "version": 1,
        "created_at": datetime.now(UTC),
    }
    role = {
        "id": uuid.uuid4(),
        "subscriber_id": key,
        "audience_rank": rank_of(audience),
        "municipalities": frozenset[str](),
    }
    return person, role


def _chunks(numbers: range) -> Iterator[range]:
    for start in range(numbers.start, numbers.stop, CHUNK):
        yield range(start, min(start + CHUNK, numbers.stop))
