"""A fast mail server in a process of its own, for tests that kill senders and for benches.

    python -m tests.servers.sink --port 0 --log mails.jsonl [--store DIR] [--kill-pid-file F --kill-at 40 --kill-when before]

It prints `listening PORT`, then appends one JSON line per final dot to the log: rcpt, message_id, sha256 of the bytes,
dot_at and answered_at (unix seconds; answered_at is null if the sender was killed before its 250). It can SIGKILL a
process at the n-th dot, just before or just after it gives the 250: the two sides of the doubtful window.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import uvloop

from tests.servers.process import ServerProcess
from tests.servers.run import claim_port

END = b"\r\n.\r\n"
MESSAGE_ID = re.compile(rb"^message-id:\s*(\S+)", re.IGNORECASE | re.MULTILINE)
READY = b"listening "


@dataclass
class Plan:
    """What the command line asked for, and the count of dots so far."""

    log: int
    store: Path | None = None
    pipelining: bool = True
    delay: float = 0.0
    kill_pid_file: Path | None = None
    kill_at: int = 0
    kill_when: Literal["before", "after"] = "before"
    dots: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    offered: Counter[str] = field(default_factory=Counter)

    def refuses(self, recipient: str) -> bool:
        """Whether this is the mail that such an address refuses: its first, or whichever."""
        self.offered[recipient] += 1
        return self.refused.get(recipient) == self.offered[recipient]

    def kills(self, dot: int, when: str) -> bool:
        return self.kill_pid_file is not None and dot == self.kill_at and when == self.kill_when

    def kill(self) -> None:
        assert self.kill_pid_file is not None
        for pid in self.kill_pid_file.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


class Connection(asyncio.Protocol):
    """One dialogue. Knows just enough SMTP to be told mail, and answers in one write per read."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._buffer = bytearray()
        self._recipients: list[str] = []
        self._in_data = False
        self._owes_answer = False
        self._answers: list[bytes] = []
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass
        self._transport.write(b"220 sink.example ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._go_on()

    def _go_on(self) -> None:
        # A delayed answer goes before those to the commands behind it (RFC 2920, section 3.2).
        while not self._owes_answer and self._step():
            pass
        self._say()

    def _say(self) -> None:
        """All answers to what was read in one write, as a real server gives them."""
        if self._answers:
            self._transport.write(b"".join(self._answers))
            self._answers.clear()

    def _step(self) -> bool:
        """Take one command or one message off the buffer; False when no whole one is there."""
        if self._in_data:
            # The dot may follow the DATA line at once: an empty message.
            end = -2 if self._buffer.startswith(END[2:]) else self._buffer.find(END)
            if end == -1:
                return False
            content = bytes(self._buffer[: end + 2])
            del self._buffer[: end + len(END)]
            self._in_data = False
            self._on_dot(content)
            return True
        end = self._buffer.find(b"\r\n")
        if end == -1:
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        self._answers.append(self._reply(line))
        return True

    def _reply(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"RCPT":
            recipient = line.partition(b"<")[2].partition(b">")[0].decode("utf-8", "replace")
            if self._plan.refuses(recipient):
                return b"550 5.1.1 no such mailbox\r\n"
            self._recipients.append(recipient)
        elif verb in (b"MAIL", b"RSET"):
            self._recipients = []
        elif verb == b"EHLO":
            return b"250-sink.example\r\n" + b"250-PIPELINING\r\n" * self._plan.pipelining + b"250 8BITMIME\r\n"
        elif verb == b"DATA" and not self._recipients:
            return b"554 5.5.1 no valid recipients\r\n"
        elif verb == b"DATA":
            self._in_data = True
            return b"354 go on\r\n"
        elif verb == b"QUIT":
            asyncio.get_running_loop().call_soon(self._transport.close)
            return b"221 2.0.0 bye\r\n"
        return b"250 2.0.0 Ok\r\n"

    def _on_dot(self, content: bytes) -> None:
        plan, recipients, dot_at = self._plan, self._recipients, time.time()
        plan.dots += 1
        self._recipients = []
        if plan.delay:
            self._owes_answer = True
            later = asyncio.get_running_loop().call_later
            later(plan.delay, self._answer_late, plan.dots, recipients, content, dot_at)
        else:
            self._answer(plan.dots, recipients, content, dot_at)

    def _answer_late(self, dot: int, recipients: list[str], content: bytes, dot_at: float) -> None:
        self._answer(dot, recipients, content, dot_at)
        self._owes_answer = False
        self._go_on()

    def _answer(self, dot: int, recipients: list[str], content: bytes, dot_at: float) -> None:
        plan = self._plan
        answered_at = None
        if plan.kills(dot, "before"):
            self._say()
            plan.kill()
        else:
            self._answers.append(b"250 2.0.0 Ok: queued as %010X\r\n" % dot)
            answered_at = time.time()
        if plan.kills(dot, "after"):
            self._say()
            plan.kill()
        self._record(dot, recipients, content, dot_at, answered_at)

    def _record(
        self, dot: int, recipients: list[str], content: bytes, dot_at: float, answered_at: float | None
    ) -> None:
        # Dot-stuffing undone, so that the hash is that of the message itself (RFC 5321 section 4.5.2).
        if content.startswith(b".") or b"\r\n." in content:
            content = (b"\r\n" + content).replace(b"\r\n..", b"\r\n.")[2:]
        found = MESSAGE_ID.search(content, max(content.find(b"\r\nMessage-ID:"), 0))
        line = {
            "rcpt": recipients,
            "message_id": found[1].decode("ascii", "replace") if found else None,
            "sha256": hashlib.sha256(content).hexdigest(),
            "dot_at": dot_at,
            "answered_at": answered_at,
        }
        if self._plan.store is not None:
            (self._plan.store / f"{dot:08}.eml").write_bytes(content)
        os.write(self._plan.log, json.dumps(line).encode() + b"\n")


async def serve(plan: Plan, port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(plan), "127.0.0.1", port, backlog=1024)
    print(f"listening {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="sink")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--no-pipelining", action="store_true")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds between the dot and its 250")
    parser.add_argument("--kill-pid-file", type=Path, help="read at the moment of the kill; several pids are fine")
    parser.add_argument("--kill-at", type=int, default=0)
    parser.add_argument("--kill-when", choices=("before", "after"), default="before")
    parser.add_argument(
        "--refuses", nargs=2, action="append", default=[], help="an address, and which of its mails finds no mailbox"
    )
    given = parser.parse_args(arguments)
    plan = Plan(
        log=os.open(given.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644),
        store=given.store,
        pipelining=not given.no_pipelining,
        delay=given.delay,
        kill_pid_file=given.kill_pid_file,
        kill_at=given.kill_at,
        kill_when=given.kill_when,
        refused={address: int(nth) for address, nth in given.refuses},
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(plan, given.port))


@dataclass(frozen=True)
class SunkMail:
    """One line of the log."""

    rcpt: tuple[str, ...]
    message_id: str | None
    sha256: str
    dot_at: float
    answered_at: float | None


class SinkProcess:
    """The sink as a child process; `options` are those of the command line. Keeps its port over a restart."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.port = claim_port()
        self.log = directory / f"sink-{self.port}.jsonl"
        self.url = f"smtp://127.0.0.1:{self.port}"
        command = [
            sys.executable,
            "-m",
            "tests.servers.sink",
            "--port",
            str(self.port),
            "--log",
            str(self.log),
            *options,
        ]
        root = Path(__file__).parents[2]
        self._process = ServerProcess(command, self.log.with_suffix(".out"), cwd=root)
        self._mails: list[SunkMail] = []
        self._read_to = 0

    def start(self) -> None:
        out = self._process.log
        already = out.read_bytes().count(READY) if out.exists() else 0
        self._process.start(lambda: out.read_bytes().count(READY) > already, within=20)

    def kill(self) -> None:
        self._process.kill()

    stop = kill

    @property
    def mails(self) -> list[SunkMail]:
        """All whole lines of the log so far."""
        if self.log.exists():
            with self.log.open("rb") as log:
                log.seek(self._read_to)
                fresh = log.read()
            whole = fresh[: fresh.rfind(b"\n") + 1]
            self._read_to += len(whole)
            self._mails += [_sunk(json.loads(line)) for line in whole.splitlines()]
        return list(self._mails)


def _sunk(told: dict[str, Any]) -> SunkMail:
    return SunkMail(**{**told, "rcpt": tuple(told["rcpt"])})


if __name__ == "__main__":
    main(sys.argv[1:])
