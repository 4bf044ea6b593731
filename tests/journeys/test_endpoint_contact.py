"""An intranet breaks, mends itself and is taken away: its contact reads of each in the mail, while another one hangs."""

import re
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import httpx2
import pytest
from tests.deployments import Standalone
from tests.desk import Desk
from tests.eventually import eventually
from tests.servers.receiver import HANG, HttpReceiver
from tests.servers.smtp import SmtpServer

CONTACT = "webb@nybro.example"
FIELDS = {
    "kind": "news",
    "title": "Fler i arbete",
    "lead": "Det går bra.",
    "body": "Text.",
    "audiences": ["agency_official"],
}


@pytest.fixture
def relay() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


@pytest.fixture
def deployment(relay: SmtpServer, tmp_path: Path) -> Iterator[Standalone]:
    with Standalone(settings={"RETRY_SCALE": "0.0002", "WEBHOOK_TIMEOUT_S": "20"}).opened(relay.port) as made:
        yield made


async def test_the_contact_reads_of_it_by_mail(
    deployment: Standalone, relay: SmtpServer, http_receiver: HttpReceiver
) -> None:
    http_receiver.by_default(500)
    http_receiver.always("/tjarpol", HANG)
    async with deployment.client() as api:
        desk = Desk(api)
        await desk.add_endpoint({"name": "Insidan", "contact_email": CONTACT, "url": http_receiver.url("/hook")})
        await desk.add_endpoint({"name": "Tjärpölen", "url": http_receiver.url("/tjarpol")})
        await desk.publish_new(FIELDS)
        failing = await _mail(relay, 1)
        assert "Insidan" in failing["Subject"]
        words = _words(failing)
        assert "Servern svarade 500" in words
        assert http_receiver.url("/hook") in words
        async with httpx2.AsyncClient() as browser:
            (link,) = set(re.findall(r"https?://\S+/intranat/[\w.-]+", words))
            assert (await browser.get(link, follow_redirects=True)).status_code == 200
        http_receiver.by_default(200)
        assert "igen" in (await _mail(relay, 2))["Subject"]
        http_receiver.by_default(410)
        await desk.publish_new(FIELDS)
        assert "slutat skicka" in (await _mail(relay, 3))["Subject"]
    assert {mail.recipients for mail in relay.accepted} == {(CONTACT,)}
    assert all(_words(message) for message in _mails(relay))


async def _mail(relay: SmtpServer, number: int) -> EmailMessage:
    await eventually(lambda: len(relay.accepted) >= number, within=40)
    return _mails(relay)[number - 1]


def _mails(relay: SmtpServer) -> list[EmailMessage]:
    return [message_from_bytes(mail.content, policy=policy.default) for mail in relay.accepted]


def _words(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    assert body is not None
    return str(body.get_content())
