"""How often mail may be asked for, counted per hour in the database, so that replicas and restarts count together.

Counted is whoever is asked about (an address, a person) and the network that asks. Neither is kept: the key is a keyed
hash that holds for one hour, and the weeding removes it when the hour is over. Leaving is never counted.
Whoever undoes by their own hand is counted apart from the changes: what an attack used up holds nobody back.

A count that passes its limit raises, and is undone with the transaction: whoever asks on is not locked out longer.
"""

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address, ip_network

from sqlalchemy.ext.asyncio import AsyncSession

from shared.database import upsert
from subscriptions.models import Tally

HOUR = timedelta(hours=1)
PREFIX_BITS = {4: 32, 6: 56}
"""What one connection to the internet commonly has: one IPv4 address, or an IPv6 network that it may choose from."""


class Counted(StrEnum):
    """What a limit is about."""

    ADDRESS = "address"
    NETWORK = "network"
    PERSON = "person"
    SIGN_IN = "sign_in"
    UNDOING = "undoing"


@dataclass(frozen=True, slots=True)
class Limit:
    """So many times an hour."""

    counted: Counted
    most: int


class TooOften(Exception):
    """A limit is reached; it is free again at `until`."""

    def __init__(self, limit: Limit, until: datetime) -> None:
        super().__init__(f"{limit.counted}: more than {limit.most} in an hour")
        self.limit = limit
        self.until = until


async def count(session: AsyncSession, key: bytes, limit: Limit, whom: str, at: datetime) -> None:
    """Count one more; raises `TooOften` beyond the limit. `key` is secret."""
    hour = at.replace(minute=0, second=0, microsecond=0)
    told_apart = hmac.digest(key, f"{limit.counted}\0{hour.isoformat()}\0{whom}".encode(), "sha256").hex()[:32]
    row = {"counted": str(limit.counted), "whom": told_apart, "hour": hour, "count": 1}
    insert = upsert(session, Tally.__table__).values(row)  # type: ignore[arg-type]
    one_more = insert.on_conflict_do_update(
        index_elements=["counted", "whom", "hour"], set_={"count": Tally.__table__.c.count + 1}
    )
    counted = await session.scalar(one_more.returning(Tally.__table__.c.count))
    if counted > limit.most:
        raise TooOften(limit, hour + HOUR)


def network_of(host: str | None) -> str:
    """The network that a request came from. `host` is the client's address as the trusted proxies tell it (setting
    `BUDKAVLE_TRUSTED_PROXIES`); what is no address counts as one network.
    """
    try:
        address = ip_address((host or "").partition("%")[0])
    except ValueError:
        return "unknown"
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return str(ip_network((address, PREFIX_BITS[address.version]), strict=False))
