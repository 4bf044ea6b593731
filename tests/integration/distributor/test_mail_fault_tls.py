"""F45: a relay that cannot be trusted gets nothing to read, somebody is told, and nothing is lost by it."""

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.eventually import eventually
from tests.integration.distributor.conftest import Measured
from tests.integration.distributor.mail_room import (
    MailRoom,
    addresses,
    capture_logs,
    check_balance,
    copies,
    opened,
    said,
    spread,
)
from tests.servers.certificates import CertificateAuthority
from tests.servers.proxy import TcpProxy
from tests.servers.smtp import Security, SmtpServer

from distributor import delivery

ALARM_WITHIN_S = 60
LOGIN = ("budkavle", "hemligt")
IN_CLEAR = (b"MAIL FROM", b"AUTH", b"DATA", b"Subject:", b"@kommun.example")


@pytest.fixture
async def mail(database_url: str) -> AsyncIterator[MailRoom]:
    async with opened(database_url) as room:
        yield room


def server_with(flaw: str, security: Security, authority: CertificateAuthority) -> SmtpServer:
    """`stripped`: no STARTTLS is offered, as when somebody on the way takes it out of the answer."""
    if flaw == "stripped":
        return SmtpServer(pipelining=True)
    signer = CertificateAuthority() if flaw == "self-signed" else authority
    names = ("annan.example",) if flaw == "wrong name" else ()
    context = signer.server_context(*names, expired=flaw == "expired")
    return SmtpServer(security=security, login=LOGIN, tls_context=context, pipelining=True)


@pytest.mark.parametrize(
    ("database_url", "flaw", "security"),
    spread(
        ("stripped", "starttls"),
        ("expired", "starttls"),
        ("self-signed", "tls"),
        ("wrong name", "starttls"),
        rare=[("expired", "tls"), ("self-signed", "starttls"), ("wrong name", "tls")],
    ),
    indirect=["database_url"],
)
async def test_f45_nothing_goes_out_in_clear_and_all_of_it_when_it_is_mended(
    mail: MailRoom,
    certificate_authority: CertificateAuthority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    measured: Measured,
    flaw: str,
    security: Security,
) -> None:
    monkeypatch.setattr(delivery, "PAUSE_LONGEST_S", 0.2)
    everybody = addresses(30)
    authority = str(certificate_authority.write(tmp_path / "authority.pem"))
    good = SmtpServer(security=security, login=LOGIN, authority=certificate_authority, pipelining=True)
    with server_with(flaw, security, certificate_authority) as bad, good, TcpProxy(bad.port) as link:
        seen = [link.when(words, lambda: None) for words in IN_CLEAR]
        scheme, query = ("smtps", "") if security == "tls" else ("smtp", "?starttls=required")
        url = f"{scheme}://{':'.join(LOGIN)}@localhost:{link.port}{query}"
        began = time.monotonic()
        with capture_logs() as logs:
            async with mail.sending(url, smtp_ca_file=authority):
                await mail.publish(everybody)
                await eventually(lambda: said(logs, "mail_relay_unreachable"), within=ALARM_WITHIN_S)
                alarm_s = time.monotonic() - began
                await eventually(lambda: len(said(logs, "channel_paused")) > 2, within=20)
                assert {row.attempts for row in await mail.room.rows()} == {0}
                assert set((await mail.states()).values()) <= {"planned", "leased", "deferred"}
                link.lead_to(good.port)
                await mail.until("sent", everybody, passing=timedelta(minutes=1), within=40)
    assert said(logs, "mail_relay_unreachable")[0]["log_level"] == "error"
    measured(f"F45 {flaw}: seconds to the alarm", round(alarm_s, 2))
    assert alarm_s <= ALARM_WITHIN_S
    assert bad.mails == []
    assert not any(words.is_set() for words in seen), "read on the way"
    assert {(one.tls, one.user) for one in good.mails} == {(True, LOGIN[0])}
    check_balance(copies(good), everybody)
