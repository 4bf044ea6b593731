"""Signs outside the event loop, in processes of their own.

RSA itself lets go of the interpreter, so threads would do; but each that comes back from a signature wants the
interpreter, and takes it from the loop at its next system call. A mail then cost half as much again as its signature
and its sending together. A process is asked for 32 octets and answers with 256, and nobody waits for anybody.

The same digest has the same signature, so whatever a process that dies leaves behind is asked of its successor.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextvars import Context
from itertools import accumulate
from typing import cast

import structlog
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from distributor.mail import signer
from distributor.mail.dkim import SigningKey

log = structlog.get_logger()

PATIENCE_S = 20.0
"""For the next signature. One takes a quarter of a millisecond; a process starts in 0.1 s on an idle machine."""
MOST = 4
"""Two keep one event loop busy. A container sees its host's cores, and has not the memory for a process on each."""
HELD_BACK = (signal.SIGINT, signal.SIGTERM)
"""Who is told to end with its whole group has mails to finish, and needs their signatures for that."""


class SigningFailed(RuntimeError):
    """No signature can be had at the moment."""


class SigningProcesses:
    """One process for each core, four at most, started with the first mail. For one event loop; `close` it at the
    end.
    """

    def __init__(self, keys: Sequence[SigningKey], *, patience_s: float = PATIENCE_S) -> None:
        self._keys = keys
        self._processes = [_Process(keys, patience_s) for _ in range(min(MOST, os.cpu_count() or 1))]

    async def sign(self, digests: Sequence[bytes]) -> list[bytes]:
        """The signatures of a mail's digests, one with each key; raises SigningFailed."""
        signatures = await min(self._processes, key=len).ask(b"".join(digests))
        ends = accumulate(key.octets for key in self._keys)
        return [signatures[end - key.octets : end] for key, end in zip(self._keys, ends, strict=True)]

    async def close(self) -> None:
        """End the processes; who still waits for one gets SigningFailed."""
        await asyncio.gather(*(process.close() for process in self._processes))


class _Process(asyncio.Protocol):
    """One process that signs, started when it is first asked. `len` tells how many wait for it."""

    def __init__(self, keys: Sequence[SigningKey], patience_s: float) -> None:
        self._patience_s = patience_s
        self._hello = b"".join(map(_told, keys)) + bytes(4)
        self._octets = sum(key.octets for key in keys)
        self._asked: deque[tuple[bytes, asyncio.Future[bytes]]] = deque()
        self._unsaid: list[bytes] = []
        self._rest = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._opening: asyncio.Task[object] | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._proven = False  # this process has signed something
        self._closed = False
        self._context = Context()  # what is logged here is about no mail

    def __len__(self) -> int:
        return len(self._asked)

    def ask(self, digests: bytes) -> "asyncio.Future[bytes]":
        """The signatures of one mail, in a row."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        if not self._unsaid:
            loop.call_soon(self._say, context=self._context)  # whoever else signs now comes along
        self._unsaid.append(digests)
        self._asked.append((digests, answer))
        if self._alarm is None:
            self._await()
        return answer

    def _say(self) -> None:
        unsaid, self._unsaid = self._unsaid, []
        if self._transport is not None:
            self._transport.write(b"".join(unsaid))
        elif self._closed:
            self._fail()
        elif self._process is None:
            self._start()

    async def close(self) -> None:
        self._closed = True
        if self._opening is not None:
            await asyncio.wait([self._opening])
        if self._transport is not None:
            self._transport.close()
        self._end_process()
        self._fail()

    # What the process and its socket tell

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._unsaid.clear()
        self._transport.write(b"".join((self._hello, *(digests for digests, _ in self._asked))))

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= self._octets and self._asked:
            _, answer = self._asked.popleft()
            if not answer.done():  # its sender may have been cancelled meanwhile
                answer.set_result(self._rest[: self._octets])
            self._rest = self._rest[self._octets :]
        self._proven = True
        self._rest_assured()
        if self._asked:
            self._await()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport, self._rest = None, b""
        if self._closed:
            self._fail()
            return
        log.warning("signing_process_ended", waiting=len(self._asked))
        self._end_process()
        if self._asked and self._proven:
            self._start()
        else:
            self._fail()

    def _start(self) -> None:
        self._proven = False
        self._rest_assured()
        try:
            ours = self._started()
        except OSError as error:
            log.error("signing_process_not_started", error=type(error).__name__)
            self._fail()
            return
        self._await()
        self._opening = asyncio.create_task(self._open(ours))

    def _started(self) -> socket.socket:
        """A new process, and our end of its line. It inherits that it hears none of `HELD_BACK`."""
        ours, theirs = socket.socketpair()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        try:
            # -P: what lies in the working directory is not to be given keys.
            command = [sys.executable, "-P", "-m", signer.__name__]
            self._process = subprocess.Popen(command, stdin=theirs.fileno())  # noqa: S603
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        return ours

    async def _open(self, ours: socket.socket) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)

    def _await(self) -> None:
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_later(self._patience_s, self._out_of_patience, context=self._context)

    def _out_of_patience(self) -> None:
        """What follows is as if the process had died by itself."""
        self._alarm = None
        if self._transport is not None:
            self._transport.abort()
        else:
            self.connection_lost(None)

    def _end_process(self) -> None:
        """It holds nothing that would have to be put in order."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _rest_assured(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _fail(self) -> None:
        self._rest_assured()
        asked, self._asked = self._asked, deque()
        for _, answer in asked:
            if not answer.done():
                answer.set_exception(SigningFailed("the process that signs has ended"))


def _told(key: SigningKey) -> bytes:
    """A key as the process reads it."""
    der = key.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return len(der).to_bytes(4) + der
