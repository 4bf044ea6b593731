"""Every notation and embedding of an address that must not be dialled, and those that may."""

import asyncio
import ipaddress
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from distributor.webhooks.addresses import AddressPolicy, Reach, WrongNetwork, parse_networks
from distributor.webhooks.dialling import AddressDenied, Dialler, LookUpFailed, Origin

STRICT = AddressPolicy()
WIDE = AddressPolicy(allow_loopback=True, allowed_networks=parse_networks("10.20.0.0/16, fd12::/16, 100.64.0.0/10"))

NEVER = {
    "0.0.0.0": Reach.UNSPECIFIED,
    "0.1.2.3": Reach.RESERVED,
    "169.254.169.254": Reach.METADATA,
    "169.254.170.2": Reach.METADATA,
    "169.254.1.1": Reach.LINK_LOCAL,
    "100.100.100.200": Reach.METADATA,
    "192.0.0.192": Reach.METADATA,
    "168.63.129.16": Reach.METADATA,
    "192.0.0.8": Reach.RESERVED,
    "192.0.2.1": Reach.RESERVED,
    "192.88.99.1": Reach.RESERVED,
    "198.18.0.1": Reach.RESERVED,
    "198.19.255.255": Reach.RESERVED,
    "198.51.100.1": Reach.RESERVED,
    "203.0.113.1": Reach.RESERVED,
    "224.0.0.1": Reach.MULTICAST,
    "239.255.255.250": Reach.MULTICAST,
    "240.0.0.1": Reach.RESERVED,
    "255.255.255.255": Reach.RESERVED,
    "::": Reach.UNSPECIFIED,
    "fd00:ec2::254": Reach.METADATA,
    "fd20:ce::254": Reach.METADATA,
    "fe80::1": Reach.LINK_LOCAL,
    "fe80::1%eth0": Reach.LINK_LOCAL,
    "2001:4860:4860::8888%eth0": Reach.LINK_LOCAL,
    "febf::1": Reach.LINK_LOCAL,
    "fec0::1": Reach.RESERVED,
    "ff02::1": Reach.MULTICAST,
    "ff0e::1": Reach.MULTICAST,
    "100::1": Reach.RESERVED,
    "5f00::1": Reach.RESERVED,
    "2001:db8::1": Reach.RESERVED,
    "3fff::1": Reach.RESERVED,
    "2001:2::1": Reach.RESERVED,
    "2001:20::1": Reach.RESERVED,
    "4000::1": Reach.RESERVED,
    "::2": Reach.RESERVED,
    # metadata inside everything that can carry it
    "::ffff:169.254.169.254": Reach.METADATA,
    "::ffff:a9fe:a9fe": Reach.METADATA,
    "::ffff:0:169.254.169.254": Reach.METADATA,
    "::169.254.169.254": Reach.METADATA,
    "64:ff9b::169.254.169.254": Reach.METADATA,
    "64:ff9b:1::169.254.169.254": Reach.METADATA,
    "64:ff9b:1:a9fe:a9:fe00::": Reach.METADATA,
    "64:ff9b:1:a9:fe:a9fe::": Reach.METADATA,
    "64:ff9b:1:0:a9:fea9:fe00::": Reach.METADATA,
    "2002:a9fe:a9fe::1": Reach.METADATA,
    "2001:0:a9fe:a9fe::f7f7:f7f7": Reach.METADATA,
    "2001:0:808:808::5601:5601": Reach.METADATA,
    "2a00:801::5efe:169.254.169.254": Reach.METADATA,
    "2a00:801::200:5efe:169.254.169.254": Reach.METADATA,
    "64:ff9b:1::": Reach.UNSPECIFIED,
    "64:ff9b::224.0.0.1": Reach.MULTICAST,
    "no address": Reach.RESERVED,
    "127.1": Reach.RESERVED,
    "0x7f000001": Reach.RESERVED,
    "2130706433": Reach.RESERVED,
    "0177.0.0.1": Reach.RESERVED,
}
LOOPBACK = (
    "127.0.0.1",
    "127.255.255.254",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "2002:7f00:1::",
    "2001:0:7f00:1::80ff:fffe",
)
PRIVATE = (
    "10.20.0.1",
    "100.64.0.1",
    "::ffff:10.20.0.1",
    "64:ff9b::10.20.0.1",
    "64:ff9b:1::10.20.0.1",
    "2002:0a14:0001::",
    "fd12::1",
)
PRIVATE_ELSEWHERE = (
    "10.21.0.1",
    "192.168.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "fc00::1",
    "fd13::1",
    "::ffff:192.168.0.1",
    "64:ff9b::192.168.0.1",
    "64:ff9b:1::192.168.0.1",
    "2001:0:808:808::3f57:fffe",
)
PUBLIC = (
    "93.184.215.14",
    "8.8.8.8",
    "172.32.0.1",
    "100.128.0.1",
    "2001:4860:4860::8888",
    "2a00:801::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::8.8.8.8",
    "2002:808:808::1",
)


@pytest.mark.parametrize("address", NEVER)
def test_b32_never_dialled_whatever_the_settings(address: str) -> None:
    assert STRICT.denial(address) is NEVER[address]
    assert WIDE.denial(address) is NEVER[address]
    assert WIDE.denial(address, encrypted=False) is not None


class Answering:
    """A name server that answers with these."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    async def look_up(self, host: str, port: int) -> list[Any]:
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
            for one in self._addresses
        ]

    def close(self) -> None: ...


KNOWN = st.sampled_from([*NEVER, *PUBLIC, "127.0.0.1", "::1", "10.20.0.1", "fd12::1"])


@trials(max_examples=150, deadline=None)
@given(st.lists(KNOWN | st.ip_addresses().map(str), max_size=4))
def test_b31_whatever_a_name_server_answers_only_what_is_public_is_dialled(answer: list[str]) -> None:
    """Judged once more by the standard library, which knows what IANA calls globally reachable."""
    dialler = Dialler(STRICT, Answering(answer), "")
    try:
        found = asyncio.run(dialler.addresses(Origin("name.example", 443, encrypted=True)))
    except (AddressDenied, LookUpFailed):
        assert not answer or any(STRICT.denial(one) is not None for one in answer)
        return
    assert [info[4][0] for info in found] == answer
    assert all(ipaddress.ip_address(one).is_global for one in answer)
    assert not set(answer) & set(NEVER), "one that is denied denies them all"


@pytest.mark.parametrize("address", LOOPBACK)
def test_loopback_needs_its_setting(address: str) -> None:
    assert STRICT.denial(address) is Reach.LOOPBACK
    assert AddressPolicy(allowed_networks=WIDE.allowed_networks).denial(address) is Reach.LOOPBACK
    assert WIDE.denial(address) is None
    assert WIDE.denial(address, encrypted=False) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_private_needs_its_network(address: str) -> None:
    assert STRICT.denial(address) is Reach.PRIVATE
    assert WIDE.denial(address) is None
    assert WIDE.denial(address, encrypted=False) is None


@pytest.mark.parametrize("address", PRIVATE_ELSEWHERE)
def test_other_private_networks_stay_closed(address: str) -> None:
    assert WIDE.denial(address) is Reach.PRIVATE


@pytest.mark.parametrize("address", PUBLIC)
def test_public_needs_tls_alone(address: str) -> None:
    assert STRICT.denial(address) is None
    assert WIDE.denial(address) is None
    assert WIDE.denial(address, encrypted=False) is Reach.PUBLIC


@pytest.mark.parametrize(
    "address", ["2001:0:808:808::80ff:fffe", "2001:0:7f00:1::f7f7:f7f7", "2a00:801::5efe:127.0.0.1"]
)
def test_one_bad_end_is_enough(address: str) -> None:
    assert STRICT.denial(address) is Reach.LOOPBACK
    assert WIDE.denial(address) is None
    assert WIDE.denial(address, encrypted=False) is Reach.PUBLIC


def test_a_translation_of_unknown_length_is_judged_in_every_reading() -> None:
    """10.20.0.1 behind a prefix of 48 bits could as well be 0.1.0.0 behind one of 64."""
    assert WIDE.denial("64:ff9b:1:a14:0:100::") is Reach.RESERVED


def test_what_the_standard_library_calls_private_is_never_public() -> None:
    """Every special-purpose network that `ipaddress` knows is denied, from its first address to its last."""
    for version in (ipaddress._IPv4Constants, ipaddress._IPv6Constants):  # type: ignore[attr-defined]
        for network in version._private_networks:
            for address in (network[0], network[-1]):
                assert STRICT.denial(str(address)) is not None, address


@pytest.mark.parametrize(
    "setting",
    ["10.0.0.0", "10.0.0.0/40", "10.1.2.3/16", "8.8.8.0/24", "0.0.0.0/0", "127.0.0.0/8", "::/0", "x", "fe80::/10"],
)
def test_a_wrong_network_is_named(setting: str) -> None:
    if setting == "10.0.0.0":
        assert parse_networks(setting) == (ipaddress.ip_network("10.0.0.0/32"),)
        return
    with pytest.raises(WrongNetwork, match=setting.split("/", maxsplit=1)[0]):
        parse_networks(f"10.20.0.0/16, {setting}")
