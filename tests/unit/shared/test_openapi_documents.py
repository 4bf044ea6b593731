"""The three OpenAPI documents look like one product's, and say of every operation what the house itself may answer."""

from typing import Any

import pytest
from tests.unit.deploy.composed import SERVICES

import content.app
import distributor.app
import subscriptions.app
from content.settings import ContentSettings
from distributor.settings import DistributorSettings
from subscriptions.settings import SubscriptionsSettings

BUILT = {
    "content": (content.app.build, ContentSettings),
    "subscriptions": (subscriptions.app.build, SubscriptionsSettings),
    "distributor": (distributor.app.build, DistributorSettings),
}


@pytest.fixture(params=SERVICES)
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    build, settings = BUILT[request.param]
    told = settings(database_url="sqlite:///x", broker_url="embedded:x", secret_keys="k" * 40)
    return {"service": request.param, **build(told).app.openapi()}


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def test_the_titles_are_alike(document: dict[str, Any]) -> None:
    assert document["info"]["title"] == f"Budkavle {document['service']}"


def test_every_operation_says_what_the_house_may_answer(document: dict[str, Any]) -> None:
    assert len(operations(document)) >= 9
    for operation in operations(document):
        told = set(operation["responses"])
        assert {"401", "403", "503"} <= told, operation["operationId"]
        if "requestBody" in operation:
            assert {"400", "413", "415", "422"} <= told, operation["operationId"]
        assert all("application/problem+json" in operation["responses"][status]["content"] for status in ("401", "503"))
        assert list(operation["responses"]) == sorted(operation["responses"])


def test_reach_says_when_it_does_not_know_as_yet(document: dict[str, Any]) -> None:
    if document["service"] == "content":
        described = document["components"]["schemas"]["Reach"]["properties"]["adds_up"]["description"]
        assert "null: not known as yet" in described
