"""The path table of the one origin."""

import httpx2
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from standalone.origin import Origin


class Named:
    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(self.name)(scope, receive, send)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "content"),
        ("/nyheter/en-nyhet", "content"),
        ("/finns-inte", "content"),
        ("/api/content/v1/items", "content"),
        ("/api/subscriptions/v1/subscribers", "subscriptions"),
        ("/api/subscriptionsx", "content"),
        ("/api/distributor/v1/deliveries", "distributor"),
        ("/prenumeration/abc.def", "subscriptions"),
        ("/prenumerationer", "content"),
        ("/mailbox", "mailbox"),
        ("/mailbox/1/html", "mailbox"),
        ("/mailboxes", "content"),
        ("/healthz", "health"),
    ],
)
async def test_each_path_reaches_its_owner(path: str, name: str) -> None:
    prefixes = {
        "/": "content",
        "/api/content": "content",
        "/api/subscriptions": "subscriptions",
        "/prenumeration": "subscriptions",
        "/api/distributor": "distributor",
        "/mailbox": "mailbox",
        "/healthz": "health",
    }
    origin = Origin({prefix: Named(owner) for prefix, owner in prefixes.items()})
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(origin), base_url="http://localhost") as client:
        assert (await client.get(path)).text == name
