"""Addresses on the wire, and where the relay is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.unit.distributor.mail_examples import settings

from distributor.mail.addresses import InvalidAddress, wire_address
from distributor.mail.relay_url import RelayUrl


@pytest.mark.parametrize(
    ("address", "text", "smtputf8"),
    [
        ("eva.ek@kommun.example", "eva.ek@kommun.example", False),
        ("Eva.Ek+nyheter@kommun.example", "Eva.Ek+nyheter@kommun.example", False),
        ("eva@mönsterås.example", "eva@xn--mnsters-jxa1m.example", False),
        ("åsa@kommun.example", "åsa@kommun.example", True),
        ("åsa@mönsterås.example", "åsa@xn--mnsters-jxa1m.example", True),
        ('"eva ek"@kommun.example', '"eva ek"@kommun.example', False),
    ],
)
def test_the_domain_goes_out_in_ascii(address, text, smtputf8):
    assert wire_address(address) == (text, smtputf8)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "eva",
        "@kommun.example",
        "eva@",
        "eva ek@kommun.example",
        "eva@kommun.example\r\nBcc: x@y.example",
        "eva@kommun.example\n",
        "eva\r\n@kommun.example",
        "eva@kommun.example> SIZE=1",
        "<eva@kommun.example>",
        "a@b.example,c@d.example",
        "eva@[127.0.0.1]",
        "eva\x00@kommun.example",
        "eva@kommun .example",
        "eva\u2028@kommun.example",
        "x" * 250 + "@kommun.example",
        "eva..ek@kommun.example",
    ],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InvalidAddress):
        wire_address(address)


@given(st.text() | st.from_regex(r"\A[^@]{1,9}@[^@]{1,9}\Z"))
def test_b37_no_address_can_end_a_command(address):
    try:
        text = wire_address(address).text
    except InvalidAddress:
        return
    assert text.isprintable()
    assert not set("\r\n<>") & set(text)
    assert text.rpartition("@")[2].isascii()


@pytest.mark.parametrize(
    ("url", "host", "port", "implicit", "starttls", "user", "password"),
    [
        ("smtp://relay.example", "relay.example", 25, False, True, "", ""),
        ("smtp://relay.example:587?starttls=required", "relay.example", 587, False, True, "", ""),
        ("smtp://relay.example:2525?starttls=never", "relay.example", 2525, False, False, "", ""),
        ("smtps://relay.example", "relay.example", 465, True, False, "", ""),
        ("smtps://a:p%40ss%2F@relay.example:1465", "relay.example", 1465, True, False, "a", "p@ss/"),
        ("smtp://a%40b.example:p@relay.example", "relay.example", 25, False, True, "a@b.example", "p"),
        ("smtp://127.0.0.1:1025", "127.0.0.1", 1025, False, False, "", ""),
        ("smtp://localhost:1025?starttls=required", "localhost", 1025, False, True, "", ""),
        ("smtp://[::1]:1025", "::1", 1025, False, False, "", ""),
        ("smtp://a:b@127.0.0.1:1025", "127.0.0.1", 1025, False, False, "a", "b"),
    ],
)
def test_the_relay_is_read_from_its_url(url, host, port, implicit, starttls, user, password):
    assert RelayUrl.parse(url) == RelayUrl(host, port, implicit, starttls, user, password)


@pytest.mark.parametrize(
    "url",
    [
        "relay.example:25",
        "http://relay.example",
        "smtp://",
        "smtp://:25",
        "smtp://relay.example:0",
        "smtp://relay.example:70000",
        "smtp://relay.example:x",
        "smtp://relay.example?starttls=maybe",
        "smtp://relay.example?starttls=required&starttls=never",
        "smtp://relay.example?tls=1",
        "smtp://relay.example/path",
        "smtp://a:p#ss@relay.example",
        "smtp://relay.example\r\n:25",
        "smtp://a:hemligt@relay.example?starttls=never",
    ],
)
def test_a_wrong_relay_stops_the_start_without_telling_the_password(url):
    with pytest.raises(ValidationError) as refused:
        settings(smtp_url=url)

    (detail,) = refused.value.errors(include_input=False)
    assert detail["loc"] == ("smtp_url",)
    assert "\n" not in detail["msg"] and "hemligt" not in str(detail)


@pytest.mark.parametrize("name", ["sender", "reply_to", "return_path"])
@pytest.mark.parametrize("value", ["nyheter", "a@b@c", "åsa@kalmar.example", "a@b.example\r\nBcc: c@d.example"])
def test_a_wrong_sender_stops_the_start(name, value):
    with pytest.raises(ValidationError):
        settings(**{name: value})


def test_a_wrong_authority_stops_the_start(tmp_path):
    (tmp_path / "empty.pem").write_text("")
    for path in (tmp_path / "empty.pem", tmp_path / "missing.pem"):
        with pytest.raises(ValidationError):
            settings(smtp_ca_file=str(path))
