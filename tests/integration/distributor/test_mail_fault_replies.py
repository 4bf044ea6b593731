"""F46: servers whose words have no end, no sense or no room for us."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from aiosmtplib.protocol import SMTPProtocol
from tests.integration.distributor.conftest import Measured
from tests.integration.distributor.test_mail_sending import raw_server, sending, to

from distributor.mail.pipelining import PipelinedLine
from shared.contracts.delivery import DeliveryState

MOST_KEPT = 65_536
MOST_GIVEN = 1_000_000
"""In the few reads, of what the system had at hand, until the line is hung up."""
ENDLESS = {"one line": b"2" * 4096, "many lines": b"250-and more\r\n" * 300, "noise": bytes(range(256)) * 16}


@dataclass
class Reading:
    """What the protocols were given in all, and the most that one of them kept to make sense of it."""

    given: int = 0
    kept: int = 0


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    seen = Reading()

    def watch(protocol: type[Any], kept: Callable[[Any], int]) -> None:
        receive = protocol.data_received

        def watched(self: Any, data: bytes) -> None:
            receive(self, data)
            seen.given += len(data)
            seen.kept = max(seen.kept, kept(self))

        monkeypatch.setattr(protocol, "data_received", watched)

    watch(SMTPProtocol, lambda self: len(self._buffer))
    watch(PipelinedLine, lambda self: 0 if self._gone else len(self._rest) + self._lines_octets)
    return seen


@pytest.mark.parametrize("words", ENDLESS)
@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "one at a time"])
@pytest.mark.parametrize("at", [b"greeting", b"EHLO", b"MAIL", b"RCPT", b"DATA", b"dot"])
async def test_f46_an_answer_without_end_is_cut_off(
    reading: Reading, measured: Measured, words: str, pipelining: bool, at: bytes
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ehlo = b"250-raw.example\r\n250 PIPELINING\r\n" if pipelining else b"250 raw.example\r\n"
        if at == b"greeting":
            await pour(writer)
        writer.write(b"220 raw.example\r\n")
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == at:
                await pour(writer)
            writer.write({b"EHLO": ehlo, b"DATA": b"354 go on\r\n"}.get(verb, b"250 Ok\r\n"))
            if verb == b"DATA":
                await reader.readuntil(b"\r\n.\r\n")
                await pour(writer)

    async def pour(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(ENDLESS[words])
            await writer.drain()

    async with raw_server(talk) as url, sending(url, smtp_connections=1, smtp_timeout_s=5) as sender:
        ended = await sender.send(to())
    assert ended.code is None
    assert ended.state is (DeliveryState.UNCERTAIN if at == b"dot" else DeliveryState.DEFERRED)
    assert len(ended.reply.encode()) <= 4096
    measured("F46: octets kept, given", (reading.kept, reading.given))
    assert reading.kept <= MOST_KEPT
    assert reading.given <= MOST_GIVEN


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "one at a time"])
@pytest.mark.parametrize("piece", [b"250-and more\r\n", b"2"], ids=["lines", "octets"])
async def test_f46_an_answer_that_drips_lasts_no_longer_than_silence(pipelining: bool, piece: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ehlo = b"250-raw.example\r\n250 PIPELINING\r\n" if pipelining else b"250 raw.example\r\n"
        writer.write(b"220 raw.example\r\n")
        while line := await reader.readline():
            while line.startswith(b"RCPT"):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.05)
            writer.write(ehlo if line.startswith(b"EHLO") else b"250 Ok\r\n")

    async with raw_server(talk) as url, sending(url, smtp_connections=1, smtp_timeout_s=0.5) as sender:
        began = time.monotonic()
        ended = await sender.send(to())
        took_s = time.monotonic() - began
    assert (ended.state, ended.code) == (DeliveryState.DEFERRED, None)
    assert took_s < 5
