"""An editor's and an administrator's acts over the HTTP APIs, and what they read there. Every answer must be a 2xx."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from tests.eventually import eventually

CONTENT, SUBSCRIPTIONS, DISTRIBUTOR = "/api/content/v1", "/api/subscriptions/v1", "/api/distributor/v1"
Json = dict[str, Any]


class Desk:
    """Calls in the name of one key."""

    def __init__(self, api: httpx2.AsyncClient) -> None:
        self.api = api

    async def draft(self, fields: Mapping[str, object]) -> str:
        """A new item's id."""
        return str((await self.call("POST", f"{CONTENT}/items", json=fields))["id"])

    async def attach(self, item: str, file: bytes, name: str, **words: str) -> Json:
        """What is told of a file that goes with the item from now on."""
        return await self.call("POST", f"{CONTENT}/items/{item}/attachments", files={"file": (name, file)}, data=words)

    async def publish(self, item: str, **headers: str) -> Json:
        return await self.call("POST", f"{CONTENT}/items/{item}/publish", headers=headers)

    async def publish_new(self, fields: Mapping[str, object]) -> str:
        item = await self.draft(fields)
        await self.publish(item)
        return item

    async def correct(self, item: str, changes: Mapping[str, object], note: str) -> Json:
        """Change the working copy and make it the next revision."""
        await self.call("PATCH", f"{CONTENT}/items/{item}", json=changes, headers={"If-Match": "*"})
        return await self.call("POST", f"{CONTENT}/items/{item}/correct", json={"note": note})

    async def withdraw(self, item: str, reason: str) -> Json:
        return await self.call("POST", f"{CONTENT}/items/{item}/withdraw", json={"reason": reason})

    async def reach(self, item: str) -> Json:
        return await self.call("GET", f"{CONTENT}/items/{item}/reach")

    async def reached(self, item: str, *, within: float = 60.0) -> Json:
        """`reach`, once the fan-out is complete, everybody is accounted for and nobody waits any more."""

        async def settled() -> Json:
            reach = await self.reach(item)
            assert reach["adds_up"], reach
            open_rows = [*([reach["total"]]), *reach["follow_ups"]]
            assert not any(row["waiting"] + row["deferred"] + row["uncertain"] for row in open_rows), reach
            return reach

        return await eventually(settled, within=within, every=0.2)

    async def deliveries(self, item: str, **filters: str) -> list[Json]:
        return await self.all_pages(f"{DISTRIBUTOR}/deliveries", item=item, **filters)

    async def exclusions(self, item: str) -> list[Json]:
        return await self.all_pages(f"{DISTRIBUTOR}/exclusions", item=item)

    async def all_pages(self, path: str, **query: str) -> list[Json]:
        found: list[Json] = []
        cursor: str | None = None
        while True:
            page = await self.call(
                "GET", path, params={**query, "limit": "100", **({"cursor": cursor} if cursor else {})}
            )
            found += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    async def add_place(self, kind: str, name: str, municipalities: Sequence[str] = ()) -> str:
        """A newsroom, council or agency, or (`group`) a local collaboration group; gives its id."""
        body: Json = {"name": name, "municipalities": list(municipalities)}
        path = "groups" if kind == "group" else "organisations"
        answer = await self.call(
            "POST", f"{SUBSCRIPTIONS}/{path}", json=body if kind == "group" else {**body, "kind": kind}
        )
        return str(answer["id"])

    async def add_subscriber(self, fields: Mapping[str, object]) -> Json:
        return await self.call("POST", f"{SUBSCRIPTIONS}/subscribers", json=fields)

    async def change_subscriber(self, subscriber: str, changes: Mapping[str, object]) -> Json:
        path = f"{SUBSCRIPTIONS}/subscribers/{subscriber}"
        return await self.call("PATCH", path, json=changes, headers={"If-Match": "*"})

    async def import_file(self, audience: str, file: bytes) -> Json:
        """All lines of a CSV file."""
        upload = {"file": (f"{audience}.csv", file, "text/csv")}
        return await self.call("POST", f"{SUBSCRIPTIONS}/imports", files=upload, data={"audience": audience})

    async def add_endpoint(self, fields: Mapping[str, object]) -> Json:
        defaults = {"organisation": "Kalmar kommun", "contact_email": "webb@kalmar.example"}
        return await self.call("POST", f"{DISTRIBUTOR}/endpoints", json={**defaults, **fields})

    async def call(self, method: str, path: str, **request: Any) -> Json:
        answer = await self.api.request(method, path, **request)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:2000]}"
        body: Json = answer.json() if answer.content else {}
        return body
