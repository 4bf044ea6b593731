"""Signatures, verified by two verifiers of other hands: dkimpy, and Perl's Mail::DKIM."""

import shutil
import subprocess
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.finding import install

from distributor.mail.dkim import DkimSigner, InvalidKey, SigningKey, parse_keys, relaxed_body

AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ED = ed25519.Ed25519PrivateKey.generate()
SIGNER = DkimSigner("forbundet.example", [SigningKey("rsa1", RSA), SigningKey("ed1", ED)])

MAIL = (
    b"From: =?utf-8?q?F=C3=B6rbundet?= <nyheter@forbundet.example>\r\n"
    b"Subject: =?utf-8?q?Sex_av_tio_unga_g=C3=A5r_vidare?=\r\n =?utf-8?q?_till_jobb?=\r\n"
    b"To: desk@tidning.example\r\n"
    b"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\n"
    b"Message-ID: <a1@forbundet.example>\r\n"
    b"List-Unsubscribe: <https://forbundet.example/avregistrera/abc>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"\r\n"
    b"Hej  alla \t gl=C3=A4da\r\n.punkt\r\n rad med slut   \r\n\r\n\r\n"
)


def records() -> dict[bytes, bytes]:
    def public(key) -> bytes:
        return key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    raw = ED.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {
        b"rsa1._domainkey.forbundet.example.": b"v=DKIM1; k=rsa; p=" + b64encode(public(RSA)),
        b"ed1._domainkey.forbundet.example.": b"v=DKIM1; k=ed25519; p=" + b64encode(raw),
    }


def verdicts(mail: bytes) -> list[bool]:
    """What dkimpy says of each signature."""
    known = records()
    checker = dkim.DKIM(mail)
    count = mail.lower().count(b"dkim-signature:")

    def verdict(index: int) -> bool:
        try:
            return checker.verify(idx=index, dnsfunc=lambda name, timeout=5: known.get(name))
        except dkim.ValidationError:
            return False

    return [verdict(index) for index in range(count)]


def test_both_signatures_verify() -> None:
    assert verdicts(SIGNER.sign(MAIL, AT)) == [True, True]


def test_the_list_headers_are_covered_and_from_is_oversigned() -> None:
    field = SIGNER.sign(MAIL, AT).split(b"b=")[0].replace(b"\r\n", b"").replace(b" ", b"")
    listed = field.split(b"h=")[1].split(b";")[0].lower().split(b":")
    assert listed.count(b"from") == 2
    assert {b"list-unsubscribe", b"list-unsubscribe-post", b"subject", b"to", b"date", b"message-id"} <= set(listed)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Hej  alla", b"Hej inga"),
        (b"avregistrera/abc", b"avregistrera/abd"),
        (b"To: desk", b"To: chef"),
        (b"MIME-Version", b"From: other@x.example\r\nMIME-Version"),
        (b"MIME-Version", b"Reply-To: other@x.example\r\nMIME-Version"),
    ],
)
def test_a_changed_mail_does_not_verify(old: bytes, new: bytes) -> None:
    signed = SIGNER.sign(MAIL, AT)
    head, _, rest = signed.partition(b"From: =?utf-8")
    changed = head + (b"From: =?utf-8" + rest).replace(old, new, 1)
    assert not any(verdicts(changed))


def test_what_servers_on_the_way_may_change_does_no_harm() -> None:
    relayed = b"Received: from a by b; now\r\n" + SIGNER.sign(MAIL, AT).replace(b"Hej  alla \t", b"Hej alla ")
    assert verdicts(relayed) == [True, True]


def test_a_repeat_is_byte_identical() -> None:
    assert SIGNER.sign(MAIL, AT) == SIGNER.sign(MAIL, AT)


def test_perls_mail_dkim_agrees(tmp_path: Path) -> None:
    if subprocess.run(["perl", "-MMail::DKIM::Verifier", "-e1"], check=False, capture_output=True).returncode:
        install("libmail-dkim-perl")
    script = Path(__file__).parent / "verify_dkim.pl"
    known = [f"{name.decode().rstrip('.')}={value.decode()}" for name, value in records().items()]
    perl = shutil.which("perl") or "perl"
    told = subprocess.run(
        [perl, str(script), *known], input=SIGNER.sign(MAIL, AT), capture_output=True, check=True, timeout=30
    )
    # Debian 12's Mail::DKIM knows no Ed25519, and must not mind that there is one.
    assert told.stdout.decode().split() == ["rsa-sha256", "pass", "ed25519-sha256", "invalid"]


@given(st.binary(max_size=300).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b"\r\n")))
def test_bodies_are_canonical_as_dkimpy_has_it(body: bytes) -> None:
    assert relaxed_body(body + b"\r\n") == dkim.canonicalization.Relaxed.canonicalize_body(body + b"\r\n")


def write(path: Path, key) -> Path:
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def test_keys_come_from_files_and_the_first_of_a_kind_signs(tmp_path: Path) -> None:
    new, old = write(tmp_path / "new.pem", RSA), write(tmp_path / "old.pem", RSA)
    ed = write(tmp_path / "ed.pem", ED)
    keys = parse_keys(f"k2027={new}, k2026={old}, e1={ed}")
    assert [(key.selector, key.algorithm) for key in keys] == [("k2027", "rsa-sha256"), ("e1", "ed25519-sha256")]


def test_a_bad_key_is_named(tmp_path: Path) -> None:
    weak = write(tmp_path / "weak.pem", rsa.generate_private_key(public_exponent=65537, key_size=1024))
    (tmp_path / "none.pem").write_text("no key")
    for setting, words in [
        (f"s={weak}", "2048 bits"),
        (f"s={tmp_path}/absent.pem", "cannot be read"),
        (f"s={tmp_path}/none.pem", "no unencrypted PEM"),
        ("s", "selector="),
        ("-=x", "selector="),
    ]:
        with pytest.raises(InvalidKey, match=words):
            parse_keys(setting)
