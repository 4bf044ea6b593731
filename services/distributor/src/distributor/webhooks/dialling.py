"""Opens connections, and none to an address that the policy denies.

A name is looked up once for each connection and refused if any of its addresses is denied. Then the very address that
`connect` will be given is judged once more, before there is a socket for it: nothing can come between, so that no name
that is rebound slips through. TLS is verified against the name, by the system's authorities and the operator's own.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple, Protocol, TypeVar

from aiohappyeyeballs import AddrInfoType, start_connection

from distributor.webhooks.addresses import ALLOWING, AddressPolicy, Reach

RECEIVE_BUFFER = 16 * 1024
"""Of the socket. What a server pours is taken in by so much at a time, so that others have a turn."""

NEXT_FAMILY_S = 0.25
"""A server whose first address is silent is tried at its next one beside it (RFC 8305)."""

LOOK_UP_THREADS = 16
"""Look-ups block a thread for as long as a name server is silent; these are nobody else's threads."""

ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)


class AddressDenied(OSError):
    """The policy refused an address. An `OSError`, since that is what connectors expect and hand on."""

    def __init__(self, reach: Reach) -> None:
        mend = f" and {ALLOWING} does not name its network" if reach is Reach.PRIVATE else ""
        super().__init__(f"url_not_allowed: the address is {reach}{mend}")


class LookUpFailed(Exception):
    """The name leads nowhere, as far as the name server tells."""


class Origin(NamedTuple):
    """Whom a connection is to: whatever goes to the same origin may share it."""

    host: str
    port: int
    encrypted: bool


class Resolver(Protocol):
    """Looks names up."""

    async def look_up(self, host: str, port: int) -> list[AddrInfoType]:
        """All addresses of `host`, as `socket.getaddrinfo` gives them; raises `OSError` where there are none."""

    def close(self) -> None:
        """Look up nothing more."""


class SystemResolver:
    """The machine's own resolver, on threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOK_UP_THREADS, thread_name_prefix="webhook-look-up")

    async def look_up(self, host: str, port: int) -> list[AddrInfoType]:
        asked = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        return list(await asyncio.get_running_loop().run_in_executor(self._threads, asked))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Dialler:
    """Opens connections within the policy. Without TLS the policy is narrower."""

    def __init__(self, policy: AddressPolicy, resolver: Resolver, ca_file: str) -> None:
        self._policy = policy
        self._resolver = resolver
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None

    async def addresses(self, origin: Origin) -> list[AddrInfoType]:
        """Where the origin's name leads, if it leads nowhere that is denied; raises `AddressDenied`, `LookUpFailed`."""
        found = literal(origin) or await self._look_up(origin)
        for info in found:
            self._refuse_denied(info, origin)
        return found

    async def dial(self, origin: Origin, addresses: list[AddrInfoType], protocol: Callable[[], ProtocolT]) -> ProtocolT:
        """A connection to one of `addresses`, with TLS where the origin has it; raises `OSError`, `ssl.SSLError`."""
        connected = await start_connection(
            addresses,
            happy_eyeballs_delay=NEXT_FAMILY_S,
            socket_factory=lambda info: self._checked_socket(info, origin),
        )
        tls, name = (self._context(), origin.host) if origin.encrypted else (None, None)
        try:
            loop = asyncio.get_running_loop()
            _, made = await loop.create_connection(protocol, sock=connected, ssl=tls, server_hostname=name)
        except BaseException:
            connected.close()
            raise
        return made

    async def _look_up(self, origin: Origin) -> list[AddrInfoType]:
        try:
            found = await self._resolver.look_up(origin.host, origin.port)
        except (OSError, UnicodeError) as error:
            raise LookUpFailed(str(error)) from error
        if not found:
            raise LookUpFailed("it has no address")
        return found

    def _checked_socket(self, info: AddrInfoType, origin: Origin) -> socket.socket:
        self._refuse_denied(info, origin)
        made = socket.socket(*info[:3])
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        return made

    def _refuse_denied(self, info: AddrInfoType, origin: Origin) -> None:
        denied = self._policy.denial(str(info[4][0]), encrypted=origin.encrypted)
        if denied is not None:
            raise AddressDenied(denied)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
            if self._ca_file:
                self._tls.load_verify_locations(self._ca_file)
        return self._tls


def literal(origin: Origin) -> list[AddrInfoType]:
    """The address that the origin's host is; none where it is a name."""
    try:
        address = ip_address(origin.host)
    except ValueError:
        return []
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (str(address), origin.port))]
