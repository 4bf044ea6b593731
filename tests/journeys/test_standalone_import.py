"""A long import, and the process killed in the middle of it: after the restart it goes on and ends, nobody twice."""

import asyncio
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.budkavle import Process
from tests.eventually import eventually
from tests.journeys.test_standalone_up import budkavle, command, up

__all__ = ["budkavle"]

PEOPLE = 25_000


@pytest.mark.soak
async def test_killed_in_the_middle_of_an_import(budkavle: Process, tmp_path: Path) -> None:
    key = re.search(r"kept in \S+/admin-key: (\S+)", await up(budkavle))[1]
    lines = "".join(f"forsta.andra{number}@kalmar.example;Person {number};Kalmar\n" for number in range(PEOPLE))
    file = tmp_path / "folk.csv"
    file.write_text(f"email;namn;kommun\n{lines}")
    async with budkavle.site() as site:
        site.headers["Authorization"] = f"Bearer {key}"
        files = {"file": ("folk.csv", file.read_bytes())}
        answer = await site.post("/api/subscriptions/v1/imports", files=files, data={"audience": "public"})
        assert answer.status_code == 202, answer.text
        place = answer.headers["location"]

        async def told() -> dict[str, Any]:
            return dict((await site.get(place)).json())

        async def is_under_way() -> bool:
            return (await told())["rows_done"] > 0

        await eventually(is_under_way, within=60)
        assert await budkavle.ended(signal.SIGKILL) == -signal.SIGKILL
        asking = asyncio.create_task(command(budkavle, "import", file, "--audience", "public"))
        await asking  # nobody answers: one line, and no trace
        assert asking.result()[0] == 1
        await up(budkavle)

        async def has_ended() -> dict[str, Any] | None:
            now = await told()
            return now if now["ended_at"] else None

        done = await eventually(has_ended, within=120)
        assert done is not None
        assert [done[name] for name in ("state", "rows", "rows_done", "created")] == ["done", PEOPLE, PEOPLE, PEOPLE]
        status, out, err = await command(budkavle, "import", file, "--audience", "public")
        assert (status, out) == (0, f"0 created, 0 updated, {PEOPLE} unchanged ({PEOPLE} lines)\n"), err
    assert await budkavle.ended(signal.SIGTERM, within=25) == 0
