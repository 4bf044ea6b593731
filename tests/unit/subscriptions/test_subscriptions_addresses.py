"""Addresses: accepted, normalised, or refused with a reason."""

import pytest

from subscriptions.addresses import InvalidAddress, parse


@pytest.mark.parametrize(
    ("typed", "text", "key"),
    [
        ("Anna.Ek@Kalmar.EXAMPLE", "Anna.Ek@kalmar.example", "anna.ek@kalmar.example"),
        (" a@kalmar.example ", "a@kalmar.example", "a@kalmar.example"),
        ("åäö@exempel.se", "åäö@exempel.se", "åäö@exempel.se"),
        ("a@ÅÄÖ.se", "a@xn--4cab6c.se", "a@xn--4cab6c.se"),
        ("a@xn--4cab6c.se", "a@xn--4cab6c.se", "a@xn--4cab6c.se"),
        ("a+b@kalmar.example", "a+b@kalmar.example", "a+b@kalmar.example"),
    ],
)
def test_accepted(typed: str, text: str, key: str) -> None:
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
def test_refused(typed: str, reason: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        parse(typed)
    assert reason in caught.value.message
    assert caught.value.message_sv
