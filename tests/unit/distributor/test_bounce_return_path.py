"""Return paths: ours alone, short, and proof against what servers do to addresses."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from distributor.bounces.return_path import ReturnPaths
from distributor.settings import DistributorSettings

KEY, OLD_KEY = "k" * 40, "o" * 40
PATHS = ReturnPaths("studs@forbundet.example", [KEY])


@given(st.uuids())
def test_a_return_path_leads_back_to_its_delivery_in_any_case(delivery_id: UUID) -> None:
    address = PATHS.of(delivery_id)
    local = address.partition("@")[0]
    assert len(local) <= 64
    assert local == local.lower()
    assert PATHS.of(delivery_id) == address
    for written in (address, address.upper(), address.swapcase()):
        assert PATHS.delivery_in(written) == delivery_id
        assert PATHS.takes(written)


def test_it_survives_relays_that_rewrite_return_paths() -> None:
    delivery_id = uuid4()
    local = PATHS.of(delivery_id).partition("@")[0]
    for rewritten in (
        f"SRS0=AbCd=XY=forbundet.example={local}@relay.example",
        f"prvs=0123456789={local}@forbundet.example",
        f"Return-Path: <{local}@forbundet.example>\r\nReceived: from x",
        f"<rfc822;{local}@forbundet.example>",
    ):
        assert PATHS.delivery_in(rewritten) == delivery_id


@given(st.uuids(), st.data())
def test_b39_one_letter_changed_is_a_forgery(delivery_id: UUID, data: st.DataObject) -> None:
    address = PATHS.of(delivery_id)
    at = data.draw(st.integers(len("studs+"), len("studs+") + 47))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
    forged = address[:at] + letter + address[at + 1 :]
    if forged != address:
        assert PATHS.delivery_in(forged) is None
        assert not PATHS.takes(forged)


@given(st.text(max_size=300))
def test_any_text_can_be_searched(text: str) -> None:
    assert PATHS.delivery_in(text) is None


def test_keys_rotate_and_retire() -> None:
    delivery_id = uuid4()
    old = ReturnPaths("studs@forbundet.example", [OLD_KEY]).of(delivery_id)
    assert ReturnPaths("studs@forbundet.example", [KEY, OLD_KEY]).delivery_in(old) == delivery_id
    assert PATHS.delivery_in(old) is None


def test_only_the_bounce_address_is_taken() -> None:
    assert PATHS.takes("Studs@Forbundet.Example")
    for other in ("studs@other.example", "nyheter@forbundet.example", "studs+hej@forbundet.example", "studs", ""):
        assert not PATHS.takes(other)


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        ({"bounce_address": "en-mycket-lang-studsadress@x.example"}, "no room"),
        ({"bounce_listen": "127.0.0.1:24"}, "BUDKAVLE_BOUNCE_ADDRESS"),
        ({"bounce_mailbox_url": "imaps://u:p@h"}, "BUDKAVLE_BOUNCE_ADDRESS"),
        ({"canary_subscriber": "0198c9c6-7a0b-7d5e-9a53-6f1f4b8f7a10"}, "BUDKAVLE_BOUNCE_ADDRESS"),
        ({"canary_endpoint": "kanarie"}, "canary_endpoint"),
        ({"bounce_address": "s@x.example", "bounce_mailbox_url": "https://u:p@h"}, "imaps://"),
        ({"bounce_address": "s@x.example", "bounce_listen": "24"}, "bounce_listen"),
    ],
)
def test_wrong_settings_are_refused(told: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        DistributorSettings(database_url="sqlite:///x", broker_url="embedded:x", secret_keys=KEY, **told)
