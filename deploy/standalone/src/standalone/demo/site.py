"""The running site as the demo calls it: over HTTP, with the administrator's key, like any other user."""

from types import TracebackType
from typing import Any, Self

import httpx2

from shared.contracts.news import Audience
from standalone import importing
from standalone.demo.failure import Failed

TIMEOUT_S = 60.0


class Site:
    """A connection to the site. Every refusal raises `Failed`."""

    def __init__(self, url: str, key: str) -> None:
        self._key = key
        self._client = httpx2.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT_S, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def get(self, path: str, **query: str) -> Any:
        """The JSON at `path`."""
        return (await self._call("GET", path, params=query)).json()

    async def fetch(self, path: str) -> bytes:
        """The bytes at `path`."""
        return (await self._call("GET", path)).content

    async def post(self, path: str, body: Any = None, *, once: str, accept: tuple[int, ...] = ()) -> Any:
        """POST `body`; `once` is the Idempotency-Key, so that a demo that was stopped may say it again.

        A status in `accept` is no failure.
        """
        headers = {"Idempotency-Key": f"demo-{once}"}
        return (await self._call("POST", path, json=body, headers=headers, accept=accept)).json()

    async def patch(self, path: str, body: Any) -> None:
        """Change what the body names, whatever the version."""
        read = await self._call("GET", path)
        headers = {"If-Match": read.headers.get("etag", "*")}
        await self._call("PATCH", path, json=body, headers=headers)

    async def attach(self, item_id: str, name: str, content: bytes, words: dict[str, str]) -> None:
        """Attach a file; done again, it changes nothing."""
        path = f"/api/content/v1/items/{item_id}/attachments"
        await self._call("POST", path, data=words, files={"file": (name, content)})

    async def import_people(self, name: str, content: bytes, audience: Audience) -> None:
        """Import a CSV file, all of it."""
        data = {"audience": audience.value}
        files = {"file": (name, content, "text/csv")}
        response = await self._send("POST", importing.PATH, data=data, files=files)
        result = importing.read(response)
        if not result.accepted:
            first = result.faults[0]
            raise Failed(f"{name}, line {first.line}: {first.message}")

    async def _call(self, method: str, path: str, *, accept: tuple[int, ...] = (), **request: Any) -> httpx2.Response:
        response = await self._send(method, path, **request)
        if response.is_error and response.status_code not in accept:
            raise Failed(f"{method} {path} answers {response.status_code}: {_reason(response)}")
        return response

    async def _send(self, method: str, path: str, **request: Any) -> httpx2.Response:
        try:
            return await self._client.request(method, path, **request)
        except httpx2.HTTPError as error:
            raise Failed(f"{method} {path}: {error or type(error).__name__}") from error


def _reason(response: httpx2.Response) -> str:
    try:
        problem = response.json()
    except ValueError:
        return response.text[:200]
    errors = "; ".join(f"{each.get('pointer')}: {each.get('message')}" for each in problem.get("errors", []))
    return errors or str(problem.get("detail") or problem.get("title"))
