"""A relay that answers out of turn: an answer too many must never be taken for the one to the final dot."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from distributor.mail.relay_url import RelayUrl
from distributor.mail.replies import Phase
from distributor.mail.smtp import Composed, RelaySettings, SmtpRelay

MAIL = Composed("a@forbundet.example", "b@kommun.example", b"Subject: x\r\n\r\nText\r\n", "<1@forbundet.example>")


@asynccontextmanager
async def relay_that_says(answers: dict[bytes, bytes]) -> AsyncIterator[SmtpRelay]:
    """Answers by the first four octets of a command; a lone dot is `b"."`."""

    talks: list[asyncio.Event] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(over := asyncio.Event())
        writer.write(b"220 ready\r\n")
        body = False
        while line := await reader.readline():
            if body and line != b".\r\n":
                continue
            body = line.startswith(b"DATA")
            verb = line.strip()[:4].upper()
            writer.write(answers.get(verb, b"250 ok\r\n"))
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        over.set()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = RelayUrl.parse(f"smtp://127.0.0.1:{port}?starttls=never")
        relay = SmtpRelay(RelaySettings(url, connections=1, timeout_s=5, dot_timeout_s=5, ehlo_name="test.example"))
        yield relay
        await relay.close()
        for over in talks:
            await asyncio.wait_for(over.wait(), 5)


@pytest.mark.parametrize("verb", [b"RCPT", b"DATA"])
async def test_an_answer_too_many_is_not_the_answer_to_the_dot(verb: bytes) -> None:
    first = {b"RCPT": b"250 ok\r\n", b"DATA": b"354 go ahead\r\n"}
    answers = first | {verb: first[verb] + b"250 2.0.0 Ok: queued as X\r\n", b".": b"550 5.7.1 refused\r\n"}
    async with relay_that_says(answers) as relay:
        ending = await relay.transmit(MAIL)
    assert (ending.phase, ending.code) == (Phase(verb.decode().lower()), None)


async def test_a_goodbye_behind_the_answer_to_the_dot_ends_the_connection_alone() -> None:
    answers = {b"DATA": b"354 go ahead\r\n", b".": b"250 2.0.0 Ok: queued as X\r\n421 4.3.2 closing\r\n"}
    async with relay_that_says(answers) as relay:
        endings = [await relay.transmit(MAIL) for _ in range(2)]
    assert [(ending.phase, ending.code) for ending in endings] == [(Phase.DOT, 250)] * 2
