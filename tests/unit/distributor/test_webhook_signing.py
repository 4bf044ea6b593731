"""Signatures verify with the Standard Webhooks library; secrets are checked, sealed and told apart."""

import re
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from distributor.webhooks.models import Algorithm
from distributor.webhooks.signing import (
    SECRET_PATTERN,
    InvalidSecret,
    Seal,
    SecretUnreadable,
    digest,
    key_of,
    new_secret,
    public_key_of,
    signed_headers,
    signer,
)

BODY = '{"lead":"Åtta av tio går vidare"}'.encode()


def test_the_library_verifies_every_active_secret() -> None:
    newest, older, stranger = new_secret(), new_secret(), new_secret()
    headers = signed_headers("delivery-1", datetime.now(UTC), BODY, [signer(newest), signer(older)])
    for secret in (newest, older):
        assert Webhook(secret).verify(BODY, headers) == {"lead": "Åtta av tio går vidare"}
    with pytest.raises(WebhookVerificationError):
        Webhook(stranger).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(newest).verify(BODY + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(newest).verify(BODY, {**headers, "webhook-id": "delivery-2"})


def test_the_same_as_the_library_signs_whatever_the_time_zone() -> None:
    secret, at = new_secret(), datetime(2026, 11, 22, 12, 0, 0, 900_000, tzinfo=UTC)
    expected = Webhook(secret).sign("m", at, BODY.decode())
    for zone in (UTC, timezone(timedelta(hours=1))):
        headers = signed_headers("m", at.astimezone(zone), BODY, [signer(secret)])
        assert headers["webhook-signature"] == expected
        assert headers["webhook-timestamp"] == "1795348800"


def test_a_known_signature() -> None:
    """The example of the Standard Webhooks reference implementations."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    at = datetime.fromtimestamp(1614265330, UTC)
    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}', [signer(secret)])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("size", [24, 32, 64])
def test_secrets_of_the_right_size(size: int) -> None:
    assert len(key_of("whsec_" + b64encode(b"k" * size).decode())) == size


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "hemligt",
        b64encode(b"k" * 32).decode(),
        "whsec_" + b64encode(b"k" * 8).decode(),
        "whsec_" + b64encode(b"k" * 23).decode(),
        "whsec_" + b64encode(b"k" * 200).decode(),
        "whsec_" + b64encode(b"k" * 32).decode().rstrip("="),
        "whsec_not base64!" + "A" * 32,
        "whsec_" + "å" * 40,
    ],
)
def test_b34_what_is_no_secret(secret: str) -> None:
    with pytest.raises(InvalidSecret):
        key_of(secret)


@given(st.binary(min_size=20, max_size=70).map(lambda key: b64encode(key).decode()) | st.text(max_size=40))
def test_b34_the_schema_says_what_a_secret_looks_like(words: str) -> None:
    secret = f"whsec_{words}"
    try:
        key_of(secret)
    except InvalidSecret:
        taken = False
    else:
        taken = True
    assert bool(re.fullmatch(SECRET_PATTERN, secret)) == taken


def test_sealed_secrets_survive_a_key_rotation() -> None:
    old, new, secret = "o" * 32, "n" * 32, new_secret()
    sealed = Seal([old]).close(secret)
    assert secret not in sealed
    assert key_of(secret) not in sealed.encode()
    assert Seal([new, old]).open(sealed) == secret
    assert Seal([new]).open(Seal([new, old]).close(secret)) == secret
    with pytest.raises(SecretUnreadable):
        Seal([new]).open(sealed)


def test_digests_tell_secrets_apart() -> None:
    one, other = new_secret(), new_secret()
    assert digest(one) == digest(one) != digest(other)


def test_ed25519_signs_beside_hmac_and_verifies_with_the_public_key() -> None:
    """By the specification: `v1a,` and base64 of the signature over `id.timestamp.body`; keys as whsk_ and whpk_."""
    hmac_secret, private = new_secret(), new_secret(Algorithm.ED25519)
    public = public_key_of(private)
    assert public is not None
    assert (private[:5], public[:5], public_key_of(hmac_secret)) == ("whsk_", "whpk_", None)
    headers = signed_headers("delivery-1", datetime.now(UTC), BODY, [signer(private), signer(hmac_secret)])
    versions = dict(part.split(",", 1) for part in headers["webhook-signature"].split(" "))
    assert set(versions) == {"v1", "v1a"}
    verifier = Ed25519PublicKey.from_public_bytes(b64decode(public.removeprefix("whpk_"), validate=True))
    content = f"delivery-1.{headers['webhook-timestamp']}.".encode() + BODY
    verifier.verify(b64decode(versions["v1a"], validate=True), content)
    with pytest.raises(InvalidSignature):
        verifier.verify(b64decode(versions["v1a"]), content + b" ")
    # Whoever knows only v1 verifies all the same.
    assert Webhook(hmac_secret).verify(BODY, headers)


def test_a_private_key_is_seed_and_public_key() -> None:
    private = new_secret(Algorithm.ED25519)
    raw = b64decode(private.removeprefix("whsk_"), validate=True)
    assert len(raw) == 64
    assert Ed25519PrivateKey.from_private_bytes(raw[:32]).public_key().public_bytes_raw() == raw[32:]
    assert public_key_of(private) == "whpk_" + b64encode(raw[32:]).decode()
    sealed = Seal(["k" * 32]).close(private)
    assert Seal(["k" * 32]).signer(sealed)(BODY) == signer(private)(BODY)
