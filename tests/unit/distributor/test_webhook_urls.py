"""Which URLs an endpoint may have, and how they are kept."""

import pytest

from distributor.webhooks.addresses import AddressPolicy, parse_networks
from distributor.webhooks.urls import UrlNotAllowed, checked_url

STRICT = AddressPolicy()
LOOPBACK = AddressPolicy(allow_loopback=True)
INTRANET = AddressPolicy(allowed_networks=parse_networks("10.20.0.0/16"))
OWN = "https://nyheter.forbundet.example"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("https://intranat.kalmar.example/budkavle", "https://intranat.kalmar.example/budkavle"),
        ("HTTPS://Intranat.Kalmar.Example", "https://intranat.kalmar.example"),
        ("https://intranät.kalmar.example/å?q=ö", "https://xn--intrant-bxa.kalmar.example/%C3%A5?q=%C3%B6"),
        ("https://intrana\u0308t.kalmar.example", "https://xn--intrant-bxa.kalmar.example"),
        ("https://kalmar.example:8443/x?token=a%2Bb%26", "https://kalmar.example:8443/x?token=a%2Bb%26"),
        ("https://kalmar.example:443/", "https://kalmar.example/"),
        ("https://93.184.215.14/", "https://93.184.215.14/"),
        ("https://[2a00:801::1]/", "https://[2a00:801::1]/"),
    ],
)
def test_what_may_be_and_how_it_is_kept(written: str, kept: str) -> None:
    assert checked_url(written, STRICT, own_url=OWN) == kept
    assert checked_url(kept, STRICT, own_url=OWN) == kept


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "gopher://kalmar.example/", "ftp://kalmar.example/", "//kalmar.example", "kalmar.example", "",
        "javascript:alert(1)", "https://", "https:///x", "http://kalmar.example/", "ws://kalmar.example/",
        "https://user@kalmar.example/", "https://user:pass@kalmar.example/", "https://@kalmar.example/",
        "https://kalmar.example/#part", "https://kalmar.example/#",
        "https://kalmar.example:25/", "https://kalmar.example:22/", "https://kalmar.example:6379/", "https://kalmar.example:5432/",
        "https://kalmar.example:0/", "https://kalmar.example:99999/", "https://kalmar.example:/", "https://kalmar.example:x/",
        "http://127.1", "https://127.1", "https://127.0.1", "https://0x7f000001", "https://0x7f.0.0.1", "https://2130706433",
        "https://0177.0.0.1", "https://127.0.0.1", "https://127.0.0.1.", "https://127.0.0.01", "https://0", "https://0.0.0.0",
        "https://[::1]", "https://[::]", "https://[::ffff:7f00:1]", "https://[::ffff:127.0.0.1]", "https://[64:ff9b::7f00:1]",
        "https://[2002:7f00:1::]", "https://[fe80::1]", "https://[fe80::1%25eth0]", "https://[fd00:ec2::254]", "https://[v1.a]",
        "https://[::1", "https://169.254.169.254/latest/meta-data/", "https://168.63.129.16/", "https://10.20.0.1/", "https://192.168.0.1",
        "https://localhost", "https://localhost.", "https://LOCALHOST", "https://a.localhost", "https://intranat", "https://kalmar.example.",
        "https://１２７.0.0.1", "https://kalmar。example", "https://kalmar．example", "https://kalmar｡example", "https://ⓚalmar.example",
        "https://kal\tmar.example", "https://kalmar.example/\r\nX: y", "https://kalmar.example/ x", " https://kalmar.example",
        "https://kalmar.example\\@evil.example", "https://k%61lmar.example", "https://-kalmar.example", "https://kal_mar.example",
        "https://kalmar..example", "https://" + "a" * 64 + ".example", "https://" + "a." * 130 + "example",
        "https://kalmar.example/" + "x" * 2000, "https://kalmar.example/\u202e", "https://kalmar.example/\x7f",
        "https://nyheter.forbundet.example/x", "https://NYHETER.forbundet.example:8443/",
        "https://nyheter.forbundet.example/api/distributor/v1/canary?x", "https://nyheter.forbundet.example/api/distributor/v1/canary/",
    ],
)  # fmt: skip
def test_b31_what_may_not_be(url: str) -> None:
    with pytest.raises(UrlNotAllowed) as refused:
        checked_url(url, STRICT, own_url=OWN)
    assert str(refused.value)
    assert refused.value.swedish


def test_of_our_own_addresses_the_canary_s_alone() -> None:
    url = f"{OWN}/api/distributor/v1/canary"
    assert checked_url(url, STRICT, own_url=OWN) == url


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:40001/hook", "http://localhost:40001/hook", "https://[::1]:8443/", "http://a.localhost:8081/"],
)
def test_loopback_where_the_operator_allows_it(url: str) -> None:
    assert checked_url(url, LOOPBACK, own_url="http://localhost:8080") == url


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8080/x",
        "http://93.184.215.14/",
        "http://10.20.0.1/",
        "http://169.254.169.254/",
        "http://[::ffff:169.254.169.254]/",
    ],
)
def test_b32_loopback_opens_nothing_else(url: str) -> None:
    with pytest.raises(UrlNotAllowed):
        checked_url(url, LOOPBACK, own_url="http://localhost:8080")


def test_b32_an_intranet_where_the_operator_allows_it() -> None:
    for url in (
        "http://10.20.0.1/x",
        "https://10.20.255.255:8443/",
        "http://intranat/x",
        "http://intranat.kalmar.example/",
    ):
        assert checked_url(url, INTRANET, own_url=OWN) == url
    for url in ("http://10.21.0.1/x", "https://127.0.0.1/", "https://localhost/", "http://8.8.8.8/"):
        with pytest.raises(UrlNotAllowed):
            checked_url(url, INTRANET, own_url=OWN)


@pytest.mark.parametrize("url", ["https://10.1.2.3/hook", "http://10.1.2.3/hook", "https://[fd12::1]/hook"])
def test_b32_a_refused_private_address_names_the_setting_that_allows_it(url: str) -> None:
    with pytest.raises(UrlNotAllowed) as refused:
        checked_url(url, STRICT, own_url="https://forbundet.example")
    assert "BUDKAVLE_WEBHOOK_ALLOWED_NETWORKS" in str(refused.value)
    assert "BUDKAVLE_WEBHOOK_ALLOWED_NETWORKS" in refused.value.swedish
