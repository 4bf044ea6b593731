"""Signs beside the event loop: `cryptography` lets go of the interpreter while it computes.

A visit to a thread costs a tenth of a signature, and as much again in waiting for the interpreter. So what is to be
signed at the same moment goes there together, in equal shares for all threads.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import NamedTuple

from distributor.mail.dialogue import Composed
from distributor.mail.dkim import DkimSigner

THREADS = 2
MOST_TOGETHER = 8
"""Two milliseconds of RSA: the first mail does not wait longer for the last."""


class Unsigned(NamedTuple):
    """A mail that waits, and where its bytes will stand."""

    mail: Composed
    at: datetime
    signed: "asyncio.Future[bytes]"


class SigningThreads:
    """Signs for one event loop; `close` it at the end."""

    def __init__(self, signer: DkimSigner) -> None:
        self._signer = signer
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="dkim")
        self._idle = THREADS
        self._waiting: list[Unsigned] = []
        self._visits: set[asyncio.Task[None]] = set()

    async def sign(self, mail: Composed, at: datetime) -> Composed:
        """The mail with its signatures."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._hand_out)  # whoever else signs now comes along
        one = Unsigned(mail, at, loop.create_future())
        self._waiting.append(one)
        return mail._replace(data=await one.signed)

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    def _hand_out(self) -> None:
        while self._waiting and self._idle:
            share = min(-(-len(self._waiting) // self._idle), MOST_TOGETHER)
            taken, self._waiting = self._waiting[:share], self._waiting[share:]
            self._idle -= 1
            visit = asyncio.create_task(self._visit(taken))
            self._visits.add(visit)
            visit.add_done_callback(self._visits.discard)

    async def _visit(self, taken: Sequence[Unsigned]) -> None:
        try:
            signed = await asyncio.get_running_loop().run_in_executor(self._threads, self._sign, taken)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            for one in taken:
                if not one.signed.done():
                    one.signed.set_exception(error)
        else:
            for one, data in zip(taken, signed, strict=True):
                if not one.signed.done():  # its sender may have been cancelled meanwhile
                    one.signed.set_result(data)
        finally:
            self._idle += 1
            self._hand_out()

    def _sign(self, taken: Sequence[Unsigned]) -> list[bytes]:
        return [self._signer.sign(one.mail.data, one.at, one.mail.canonical) for one in taken]
