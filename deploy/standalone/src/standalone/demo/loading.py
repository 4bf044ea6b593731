"""Loads the sample data and publishes the sample items, each step once however often the demo is started."""

import json
import secrets
from base64 import b64encode
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import standalone
from shared.clock import Clock
from shared.contracts.news import Audience
from standalone.demo.site import Site
from standalone.demo.state import DemoState, PublishedItem

SAMPLE = Path(standalone.__file__).parent / "sample"
FILES = {
    "newsrooms.csv": Audience.NEWSROOM,
    "politicians.csv": Audience.POLITICIAN,
    "collaboration_groups.csv": Audience.COLLABORATION_GROUP,
    "agency_officials.csv": Audience.AGENCY_OFFICIAL,
    "public.csv": Audience.PUBLIC,
}
ITEMS = ("press_release", "news")
SECRET_BYTES = 24
PAUSE = timedelta(days=30)
ALREADY_THERE = 409

Tell = Callable[[str], None]


async def load_people(site: Site, state: DemoState, clock: Clock, tell: Tell) -> None:
    """Import the lists, and add the subscribers who made choices of their own; the first of those pauses."""
    if state.people_loaded:
        return
    for name, audience in FILES.items():
        await site.import_people(name, (SAMPLE / name).read_bytes(), audience)
        tell(f"imported {name}")
    subscribers = _sample("subscribers.json")
    subscribers[0]["paused_until"] = _pause_ends(state, clock)
    for subscriber in subscribers:
        await site.post(
            "/api/subscriptions/v1/subscribers", subscriber, once=subscriber["address"], accept=(ALREADY_THERE,)
        )
    tell(f"added {len(subscribers)} subscribers with choices of their own")
    state.people_loaded = True
    state.save()


def _pause_ends(state: DemoState, clock: Clock) -> str:
    """The same however often it is said: under an Idempotency-Key the site takes no other words."""
    if not state.pause_ends:
        state.pause_ends = (clock.now() + PAUSE).isoformat()
        state.save()
    return state.pause_ends


async def connect_intranets(site: Site, state: DemoState, receiver: str, tell: Tell) -> None:
    """Register the intranets' endpoints, which all lie under `receiver`; or tell where it has moved to."""
    for name, endpoint in _sample("endpoints.json").items():
        url = f"{receiver}/{name}"
        if name in state.endpoints:
            await _follow(site, f"/api/distributor/v1/endpoints/{state.endpoints[name]}", url)
            continue
        state.secrets.setdefault(name, "whsec_" + b64encode(secrets.token_bytes(SECRET_BYTES)).decode())
        state.save()  # before anybody else knows it: afterwards it could not be asked for
        wanted = {**endpoint, "url": url, "secret": state.secrets[name]}
        made = await site.post("/api/distributor/v1/endpoints", wanted, once=f"endpoint-{name}")
        state.endpoints[name] = made["id"]
        state.save()
    tell(f"connected {len(state.endpoints)} intranets")


async def publish_items(site: Site, state: DemoState, tell: Tell) -> list[PublishedItem]:
    """Publish what was not published before; returns that."""
    fresh = []
    for name in ITEMS:
        item = await _draft(site, state, name)
        if item.url:
            continue
        published = await site.post(f"/api/content/v1/items/{item.id}/publish", once=f"publish-{name}")
        item.url = published["url"]
        state.save()
        fresh.append(item)
        tell(f"published “{item.title}”")
    return fresh


async def _draft(site: Site, state: DemoState, name: str) -> PublishedItem:
    if name not in state.items:
        fields = _sample(f"{name}.json")
        files = fields.pop("attachments", {})
        body = (SAMPLE / f"{name}.md").read_text(encoding="utf-8")
        made = await site.post("/api/content/v1/items", {**fields, "body": body}, once=f"item-{name}")
        for file, words in files.items():
            await site.attach(made["id"], file, (SAMPLE / file).read_bytes(), words)
        state.items[name] = PublishedItem(made["id"], made["title"])
        state.save()
    return state.items[name]


async def _follow(site: Site, path: str, url: str) -> None:
    endpoint = await site.get(path)
    if endpoint["url"] != url:
        await site.patch(path, {"url": url})


def _sample(name: str) -> Any:
    return json.loads((SAMPLE / name).read_text(encoding="utf-8"))
