"""Which IP addresses a webhook may be dialled at: the guard against requests forged through our server (SSRF).

A pure decision on one address. It is asked about literal addresses when an endpoint is registered, and about the very
address that is dialled each time one is. Whatever carries an IPv4 address inside an IPv6 one is judged by what it
carries. No API caller can widen what the operator's settings say; metadata services and link-local never pass.

Sources: IANA IPv4 and IPv6 Special-Purpose Address Registries; RFC 6890, 6052 (NAT64), 8215 (local-use NAT64), 3056
(6to4), 4380 (Teredo), 5214 (ISATAP), 7915 (IPv4-translated), 9602 (SRv6). The standard library's `is_global` is not
enough: on Python 3.11 it calls NAT64, multicast and 192.0.0.8 global.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


ALLOWING = "BUDKAVLE_WEBHOOK_ALLOWED_NETWORKS"
"""The operator's setting that opens private networks."""


class Reach(StrEnum):
    """Where an address leads. Only `PUBLIC` needs no setting."""

    PUBLIC = "public"
    PRIVATE = "private"
    LOOPBACK = "loopback"
    METADATA = "metadata"
    LINK_LOCAL = "link_local"
    MULTICAST = "multicast"
    UNSPECIFIED = "unspecified"
    RESERVED = "reserved"


PRIVATE_NETWORKS = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)

METADATA = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # most clouds
            "169.254.170.2",  # Amazon ECS
            "fd00:ec2::254",  # Amazon EC2
            "fd00:ec2::23",  # Amazon EKS
            "fd20:ce::254",  # Google
            "100.100.100.200",  # Alibaba, inside the carriers' shared space
            "192.0.0.192",  # Oracle
            "168.63.129.16",  # Azure's host agent, on a public address
        ),
    )
)

_V4_SPECIAL: tuple[tuple[str, Reach], ...] = (
    ("0.0.0.0/32", Reach.UNSPECIFIED),
    ("0.0.0.0/8", Reach.RESERVED),  # "this network": Linux dials itself at 0.0.0.0
    ("127.0.0.0/8", Reach.LOOPBACK),
    ("169.254.0.0/16", Reach.LINK_LOCAL),
    ("192.0.0.0/24", Reach.RESERVED),
    ("192.0.2.0/24", Reach.RESERVED),
    ("192.88.99.0/24", Reach.RESERVED),
    ("198.18.0.0/15", Reach.RESERVED),
    ("198.51.100.0/24", Reach.RESERVED),
    ("203.0.113.0/24", Reach.RESERVED),
    ("224.0.0.0/4", Reach.MULTICAST),
    ("240.0.0.0/4", Reach.RESERVED),  # broadcast is its last
)
_V6_SPECIAL: tuple[tuple[str, Reach], ...] = (
    ("::/128", Reach.UNSPECIFIED),
    ("::1/128", Reach.LOOPBACK),
    ("fe80::/10", Reach.LINK_LOCAL),
    ("ff00::/8", Reach.MULTICAST),
    ("2001::/23", Reach.RESERVED),  # protocol assignments; Teredo is unpacked before
    ("2001:db8::/32", Reach.RESERVED),
    ("3fff::/20", Reach.RESERVED),
)
SPECIAL: tuple[tuple[Network, Reach], ...] = tuple((ip_network(net), reach) for net, reach in _V4_SPECIAL + _V6_SPECIAL)

GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All of IPv6 that is routed between networks (RFC 4291). The rest, SRv6 (5f00::/16) included, is no place for us."""

TEREDO = IPv6Network("2001::/32")
SIX_TO_FOUR = IPv6Network("2002::/16")
NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
LAST_32_BITS = tuple(map(IPv6Network, ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "::/96")))
"""v4-mapped, IPv4-translated, NAT64 and the deprecated v4-compatible form."""
ISATAP = frozenset({0x00005EFE, 0x02005EFE})

NAT64_LAYOUTS: tuple[tuple[int, ...], ...] = ((6, 7, 9, 10), (7, 9, 10, 11), (9, 10, 11, 12), (12, 13, 14, 15))
"""The bytes that hold the IPv4 address under a prefix of 48, 56, 64 and 96 bits (RFC 6052, section 2.2)."""


def ends(address: Address) -> tuple[Address, ...]:
    """Where a packet to `address` may end: at the IPv4 addresses that it carries, or at itself."""
    return tuple(_carried(address)) or (address,) if isinstance(address, IPv6Address) else (address,)


def _carried(address: IPv6Address) -> Iterator[Address]:
    raw, last = address.packed, IPv4Address(address.packed[12:])
    if int(address) <= 1:  # :: and ::1 are themselves, not v4-compatible
        return
    if any(address in network for network in LAST_32_BITS):
        yield last
    elif address in SIX_TO_FOUR:
        yield IPv4Address(raw[2:6])
    elif address in TEREDO:
        yield IPv4Address(raw[4:8])
        yield IPv4Address(int(last) ^ 0xFFFFFFFF)
    elif address in NAT64_LOCAL:
        yield from _local_nat64(raw)
    elif int.from_bytes(raw[8:12], "big") in ISATAP:
        yield from (address, last)


def _local_nat64(raw: bytes) -> Iterator[IPv4Address]:
    """Every reading of an address whose prefix length only the translator knows; unused bytes must be zero."""
    found = False
    for layout in NAT64_LAYOUTS:
        unused = [*range(layout[-1] + 1, 16)] + ([8] if layout[-1] < 15 else [])
        carried = bytes(raw[index] for index in layout)
        if any(carried) and not any(raw[index] for index in unused):
            found = True
            yield IPv4Address(carried)
    if not found:
        yield IPv4Address(0)


def reach(address: Address) -> Reach:
    """Where `address` itself leads; what it carries is another question (`ends`)."""
    if address in METADATA:
        return Reach.METADATA
    if any(address in network for network in PRIVATE_NETWORKS):
        return Reach.PRIVATE
    special = next((found for network, found in SPECIAL if address in network), None)
    if special is not None:
        return special
    outside = isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST
    return Reach.RESERVED if outside else Reach.PUBLIC


class WrongNetwork(ValueError):
    """A setting names a network that is none, or that is not private."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """The private networks of a comma-separated setting; raises `WrongNetwork` with the part that is wrong."""
    return tuple(_private_network(part.strip()) for part in text.split(",") if part.strip())


def _private_network(part: str) -> Network:
    try:
        network = ip_network(part)
    except ValueError as error:
        raise WrongNetwork(f"{part!r} is not a network such as 10.20.0.0/16 ({error})") from error
    if not any(_within(network, private) for private in PRIVATE_NETWORKS):
        raise WrongNetwork(f"{part!r} is not inside 10/8, 172.16/12, 192.168/16, 100.64/10 or fc00::/7")
    return network


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What this installation's operator allows."""

    allow_loopback: bool = False
    allowed_networks: tuple[Network, ...] = ()

    @property
    def widened(self) -> bool:
        """Whether anything but public addresses may be dialled at all."""
        return self.allow_loopback or bool(self.allowed_networks)

    def denial(self, address: str, *, encrypted: bool = True) -> Reach | None:
        """Why `address` (a literal) may not be dialled, or `None`.

        Without TLS (`encrypted=False`) only what the operator allowed may be dialled, nothing public.
        """
        try:
            parsed = ip_address(address)
        except ValueError:
            return Reach.RESERVED
        if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
            return Reach.LINK_LOCAL  # a zone (`%eth0`) means something on this machine alone
        judged = (reach(end) for end in ends(parsed) if not self._allows(end, encrypted=encrypted))
        return next(judged, None)

    def _allows(self, address: Address, *, encrypted: bool) -> bool:
        found = reach(address)
        if found is Reach.PUBLIC:
            return encrypted
        if found is Reach.LOOPBACK:
            return self.allow_loopback
        return found is Reach.PRIVATE and any(address in network for network in self.allowed_networks)
