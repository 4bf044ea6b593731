"""The careful lane: one command at a time, for servers without PIPELINING and for those that cannot keep their promise.

The dialogue is driven by hand over aiosmtplib's connection, because `sendmail` cannot tell a connection that broke at
DATA (surely not delivered) from one that broke after the final dot (perhaps delivered). The dot of a long mail is
written only when the system has taken all that goes before it. Nothing is raised for what the relay does.
"""

import asyncio

import aiosmtplib
from aiosmtplib.protocol import SMTPProtocol

from distributor.mail.dialogue import GO_AHEAD, ONE_WRITE, Announced, Composed, Ending, Pool, Transaction, told
from distributor.mail.replies import SERVICE_CLOSING, Phase, printable


class UnpipelinedLine:
    """One connection; see `dialogue.Line`. `client` is open; times in seconds, each for one answer."""

    def __init__(
        self, pool: Pool, announced: Announced, client: aiosmtplib.SMTP, *, timeout_s: float, dot_timeout_s: float
    ) -> None:
        assert client.protocol is not None
        self._pool = pool
        self._announced = announced
        self._client = client
        self._protocol: SMTPProtocol = client.protocol
        self._timeout_s = timeout_s
        self._dot_timeout_s = dot_timeout_s
        self._fit = True
        self._mid_transaction = False
        self._carried = 0
        self._carrying: asyncio.Task[None] | None = None
        self.opened_at = asyncio.get_running_loop().time()

    @property
    def _usable(self) -> bool:
        """Whether another mail may follow: nothing unintelligible was said and the line stands."""
        return self._fit and self._protocol.is_connected

    def begin(self, transaction: Transaction) -> None:
        transaction.kept = self._carried > 0
        self._carried += 1
        self._carrying = asyncio.create_task(self._carry(transaction))

    def close(self) -> None:
        if self._usable:
            self._protocol.write(b"QUIT\r\n")
        self._end()

    def abort(self) -> None:
        self._fit = False
        if self._carrying is not None:
            self._carrying.cancel()
        self._end()

    async def _carry(self, transaction: Transaction) -> None:
        try:
            transaction.end(await self._transmit(transaction.mail))
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            self._fit = False
            transaction.ended.set_exception(error)
        if self._usable:
            self._pool.rests(self)
        else:
            self._end()

    def _end(self) -> None:
        self._client.close()
        self._pool.over(self, strikes=0)

    async def _transmit(self, mail: Composed) -> Ending:
        """One transaction (RFC 5321, section 3.3)."""
        if (refusal := self._announced.refusal(mail)) is not None:
            return refusal
        if self._mid_transaction:
            self._mid_transaction = False
            if (reset := await self._ask(Phase.MAIL, b"RSET")).code != 250:
                return self._spoilt(reset)
        for phase, command in self._envelope(mail):
            ending = await self._ask(phase, command)
            if ending.code is None or not _goes_on(phase, ending.code):
                return ending
            self._mid_transaction = True
        ending = await self._hand_over(mail.wire)
        self._mid_transaction = ending.phase is not Phase.DOT
        return ending

    def _envelope(self, mail: Composed) -> tuple[tuple[Phase, bytes], ...]:
        sender, recipient = self._announced.envelope(mail)
        return (Phase.MAIL, sender), (Phase.RCPT, recipient), (Phase.DATA, b"DATA")

    async def _ask(self, phase: Phase, command: bytes) -> Ending:
        try:
            response = await self._protocol.execute_command(command, timeout=self._timeout_s)
        except (aiosmtplib.SMTPException, OSError) as error:
            return self._spoilt(Ending(phase, None, told(error)))
        return self._heard(phase, response.code, response.message)

    async def _hand_over(self, wire: bytes) -> Ending:
        """Send the mail and its dot. As long as the dot is unwritten, nothing was delivered."""
        try:
            if len(wire) > ONE_WRITE:
                if (early := await self._ahead_of_dot(wire)) is not None:
                    return early
                wire = b""
            self._protocol.write(wire + b".\r\n")
        except (aiosmtplib.SMTPException, OSError) as error:
            return self._spoilt(Ending(Phase.DATA, None, told(error)))
        try:
            response = await self._protocol.read_response(timeout=self._dot_timeout_s)
        except (aiosmtplib.SMTPException, OSError) as error:
            return self._spoilt(Ending(Phase.DOT, None, told(error)))
        return self._heard(Phase.DOT, response.code, response.message)

    async def _ahead_of_dot(self, wire: bytes) -> Ending | None:
        """Write all but the dot, and wait until the system has taken it; an answer that comes too early ends it here.

        aiosmtplib's own DATA marks an answer as expected and drains in the same way.
        """
        protocol = self._protocol
        protocol._response_pending = True  # noqa: SLF001
        protocol.write(wire)
        await asyncio.wait_for(protocol._drain_helper(), self._timeout_s)  # noqa: SLF001
        waiter = protocol._response_waiter  # noqa: SLF001
        if waiter is None or not waiter.done():
            return None
        response = await protocol.read_response()
        return self._spoilt(self._heard(Phase.DATA, response.code, response.message))

    def _heard(self, phase: Phase, code: int, text: str) -> Ending:
        if self._protocol._buffer:  # noqa: SLF001 - it would be taken for the answer to the next command
            self._fit = False
            if phase is not Phase.DOT:
                return Ending(phase, None, printable(f"unintelligible: more than one answer, first {code} {text}"))
        if not 200 <= code < 600:  # aiosmtplib takes any number for a code
            return self._spoilt(Ending(phase, None, printable(f"unintelligible: {code} {text}")))
        ending = Ending(phase, code, text)
        return self._spoilt(ending) if code == SERVICE_CLOSING else ending

    def _spoilt(self, ending: Ending) -> Ending:
        self._fit = False
        return ending


def _goes_on(phase: Phase, code: int) -> bool:
    return code == GO_AHEAD if phase is Phase.DATA else 200 <= code < 300
