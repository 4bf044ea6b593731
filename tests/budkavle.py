"""`budkavle` as a process of its own, watched from outside as its user does: by what it prints and how it ends."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import httpx2

from tests.eventually import eventually

BUDKAVLE = Path(sys.executable).with_name("budkavle")


class Process:
    """A running `budkavle`. What it prints lies in two files."""

    def __init__(self, directory: Path, port: int) -> None:
        self._printed, self._complained = directory / "out.txt", directory / "err.txt"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BUDKAVLE_")}
        self.environment = {**inherited, "BUDKAVLE_DATA_DIR": str(directory / "data")}
        self.move_to(port)
        self._process: asyncio.subprocess.Process | None = None

    def move_to(self, port: int) -> None:
        """Answer at another port from the next start on."""
        self.port = port
        self.environment["BUDKAVLE_PORT"] = str(port)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def out(self) -> str:
        return self._printed.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self._complained.read_text(encoding="utf-8")

    async def start(self, *arguments: str, **environment: str) -> None:
        with self._printed.open("w") as out, self._complained.open("w") as err:
            self._process = await asyncio.create_subprocess_exec(
                str(BUDKAVLE), *arguments, stdout=out, stderr=err, env={**self.environment, **environment}
            )

    async def says(self, text: str, within: float = 60) -> None:
        """Return when it has printed `text`."""

        def said() -> bool:
            if self._process is None or self._process.returncode is not None:
                raise RuntimeError(f"it has ended: {self.out}{self.err}")
            return text in self.out

        await eventually(said, within=within)

    async def ended(self, number: signal.Signals | None = None, within: float = 60) -> int:
        """Its exit status, after `number` was sent to it."""
        assert self._process is not None
        if number is not None:
            self._process.send_signal(number)
        return await asyncio.wait_for(self._process.wait(), within)

    async def end_at_last(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def site(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, timeout=30, follow_redirects=True)
