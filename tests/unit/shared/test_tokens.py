"""Tokens: one spelling, one purpose, alive for as long as their key is."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tokens import MAX_TOKEN_LENGTH, Claim, InvalidToken, TokenSigner

OLD, NEW = "o" * 32, "n" * 32
SIGNER = TokenSigner([OLD])
claims = st.builds(
    Claim,
    st.uuids(),
    st.integers(0, 2**32 - 1),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)


@given(claims)
def test_what_was_signed_is_read_again_and_always_the_same(claim: Claim) -> None:
    token = SIGNER.sign("preferences", claim)
    assert token == TokenSigner([OLD]).sign("preferences", claim)
    assert SIGNER.verify("preferences", token) == claim


@given(claims)
def test_b19_a_token_opens_nothing_but_what_it_was_made_for(claim: Claim) -> None:
    token = SIGNER.sign("one_click", claim)
    for purpose in ("preferences", "one_clic", "one_click\0", ""):
        with pytest.raises(InvalidToken):
            SIGNER.verify(purpose, token)


def test_a_purpose_cannot_lend_bytes_to_the_claim() -> None:
    assert (
        SIGNER.sign("a", Claim(UUID(int=0), 0, "b")).split(".")[2]
        != SIGNER.sign("ab", Claim(UUID(int=0), 0)).split(".")[2]
    )


def test_b19_every_flipped_bit_is_noticed() -> None:
    token = SIGNER.sign("preferences", Claim(UUID(int=7), 3, "x")).encode()
    for place in range(len(token)):
        for bit in range(8):
            flipped = bytearray(token)
            flipped[place] ^= 1 << bit
            with pytest.raises(InvalidToken):
                SIGNER.verify("preferences", flipped.decode("latin-1"))


@given(st.text(max_size=300))
def test_no_text_crashes_it(text: str) -> None:
    with pytest.raises(InvalidToken):
        SIGNER.verify("preferences", text)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 19, 20])
def test_a_payload_of_any_length_is_no_crash(length: int) -> None:
    good = SIGNER.sign("p", Claim(UUID(int=7), 3))
    cut = urlsafe_b64encode(urlsafe_b64decode(good.split(".")[1] + "==")[:length]).rstrip(b"=").decode()
    if length < 20:
        with pytest.raises(InvalidToken):
            SIGNER.verify("p", ".".join([good.split(".")[0], cut, good.split(".")[2]]))


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda t: t + "=",
        lambda t: t + "\n",
        lambda t: " " + t,
        lambda t: t + ".",
        lambda t: t.replace(".", ".."),
        lambda t: t + "A" * MAX_TOKEN_LENGTH,
    ],
)
def test_b19_another_spelling_is_another_token(change) -> None:
    with pytest.raises(InvalidToken):
        SIGNER.verify("p", change(SIGNER.sign("p", Claim(UUID(int=7), 3))))


def test_links_survive_a_new_key_and_end_with_their_own() -> None:
    before = SIGNER.sign("p", Claim(UUID(int=7), 3))
    rotated = TokenSigner([NEW, OLD])
    after = rotated.sign("p", Claim(UUID(int=7), 3))
    assert rotated.verify("p", before) == rotated.verify("p", after)
    assert TokenSigner([NEW]).verify("p", after).generation == 3
    for signer, token in ((TokenSigner([NEW]), before), (SIGNER, after)):
        with pytest.raises(InvalidToken):
            signer.verify("p", token)


def test_a_token_fits_in_a_link_and_carries_no_address() -> None:
    token = SIGNER.sign("preferences", Claim(UUID(int=2**128 - 1), 2**32 - 1))
    assert len(token) < 80
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
