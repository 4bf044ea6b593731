"""Addresses: accepted, normalised, or refused with a reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subscriptions.addresses import InvalidAddress, _validated, parse


@pytest.mark.parametrize(
    ("typed", "text", "key"),
    [
        ("Anna.Ek@Kalmar.EXAMPLE", "Anna.Ek@kalmar.example", "anna.ek@kalmar.example"),
        (" a@kalmar.example ", "a@kalmar.example", "a@kalmar.example"),
        ("åäö@exempel.se", "åäö@exempel.se", "åäö@exempel.se"),
        ("a@ÅÄÖ.se", "a@xn--4cab6c.se", "a@xn--4cab6c.se"),
        ("a@xn--4cab6c.se", "a@xn--4cab6c.se", "a@xn--4cab6c.se"),
        ("\u0130da@kalmar.example", "\u0130da@kalmar.example", "i\u0307da@kalmar.example"),
        ("a@\u0130da.se", "a@xn--ida-8dc.se", "a@xn--ida-8dc.se"),
        ("a+b@kalmar.example", "a+b@kalmar.example", "a+b@kalmar.example"),
        ("a" * 64 + "@b.se", "a" * 64 + "@b.se", "a" * 64 + "@b.se"),
    ],
)
def test_b23_what_is_an_address_is_normalised(typed: str, text: str, key: str) -> None:
    address = parse(typed)
    assert (address.text, address.key) == (text, key)


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("", "empty"),
        ("a@b", "no dot"),
        ("a", "no @"),
        ("a@@b.se", "more than one @"),
        ('"a b"@b.se', "space"),
        ('"ab"@b.se', "quoted"),
        ("a@[1.2.3.4]", "IP address"),
        ("a" * 250 + "@b.se", "longer"),
        ("a" * 65 + "@b.se", "before @ is longer than 64"),
        ("å" * 33 + "@b.se", "before @ is longer than 64"),
        ("a@b.se.", "ends with a dot"),
        ("a b@c.se", "space"),
        ("a@b.se\r\nBcc:x@y.se", "control"),
        ("<a@b.se>", "<>"),
        ("Anna <a@b.se>", "<>"),
        ("a@b.se,c@d.se", "one address only"),
        ("a@b.se;c@d.se", "one address only"),
        ("a..b@c.se", "period"),
        ("a@-b.se", ""),
    ],
)
def test_b23_what_is_no_address_is_refused_with_the_reason(typed: str, reason: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        parse(typed)
    assert reason in caught.value.message
    assert caught.value.message_sv


@given(st.from_regex(r"[A-Za-z0-9.+_'-]{0,70}@[A-Za-z0-9-]{0,66}(\.[a-z0-9-]{0,10}){0,3}", fullmatch=True))
def test_the_short_way_says_what_the_long_one_says(typed: str) -> None:
    def said(read: object) -> object:
        try:
            return read(typed)  # type: ignore[operator]
        except InvalidAddress:
            return None

    assert said(parse) == said(_validated)
