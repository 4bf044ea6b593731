"""A signed mail as its receiver gets it: over a real SMTP dialogue, verified by somebody else's verifier."""

from base64 import b64encode
from pathlib import Path
from uuid import uuid4

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.eventually import eventually
from tests.integration.distributor.conftest import CLOCK, snapshot
from tests.servers.smtp import SmtpServer

from distributor.channels import Content, Dispatch
from distributor.mail.sending import MailSender
from distributor.settings import DistributorSettings
from shared.contracts.delivery import Channel, DeliveryState
from shared.contracts.mail import Form, Lane, SubjectKind


def signing_settings(smtp_server: SmtpServer, key: Path) -> DistributorSettings:
    return DistributorSettings(
        database_url="sqlite://",
        broker_url="embedded:x",
        secret_keys="k" * 40,
        smtp_url=smtp_server.url,
        sender="nyheter@forbundet.example",
        dkim_keys=f"k1={key}",
    )


def press_dispatch() -> Dispatch:
    item = snapshot(uuid4(), body_text=".punkt först\n..två\nMellanslag   och\tflik \n", lead="Å ä ö  –  och mer")
    return Dispatch(
        delivery_id=uuid4(),
        channel=Channel.MAIL,
        recipient_id=uuid4(),
        form=Form.PRESS,
        lane=Lane.PRESS,
        content=Content(SubjectKind.ITEM, item.item_id, 1, item),
        planned_at=CLOCK.now(),
        attempt=1,
        address="desk@tidning.example",
        one_click_url="https://forbundet.example/avregistrera/t",
    )


async def test_what_arrives_is_signed(tmp_path: Path, smtp_server: SmtpServer) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = tmp_path / "dkim.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    sender, dispatch = MailSender(signing_settings(smtp_server, pem)), press_dispatch()
    outcomes = [await sender.send(dispatch) for _ in range(2)]
    await sender.close()
    assert [one.state for one in outcomes] == [DeliveryState.SENT] * 2
    await eventually(lambda: len(smtp_server.accepted) == 2)
    first, second = [mail.content for mail in smtp_server.accepted]
    assert first == second
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    record = b"v=DKIM1; p=" + b64encode(public)
    assert dkim.verify(first, dnsfunc=lambda name, timeout=5: record)
