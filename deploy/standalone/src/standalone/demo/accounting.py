"""Accounts for every receiver of the published items: asks for the reach until nobody is left waiting, then compares
what the ledger says with what the receivers really have.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from standalone.demo.site import Site
from standalone.demo.state import PublishedItem

PATIENCE_S = 60.0
ASK_EVERY_S = 0.2
UNSETTLED = ("waiting", "deferred", "uncertain")

Watch = Callable[[PublishedItem, "Reach"], None]


@dataclass(frozen=True, slots=True)
class Reach:
    """What the site says of one item's receivers."""

    answer: Any

    @property
    def rows(self) -> list[Any]:
        rows: list[Any] = self.answer["audiences"]
        return rows

    @property
    def planned(self) -> int:
        return int(self.answer["total"]["planned"])

    @property
    def done(self) -> int:
        """Receivers of whom it is known what became of them."""
        return self.planned - sum(int(self.answer["total"][name]) for name in UNSETTLED)

    @property
    def is_settled(self) -> bool:
        """Everybody was found, planned, and is done; the intranets too."""
        webhooks = any(row["channel"] == "webhook" and row["planned"] for row in self.rows)
        return bool(self.answer["adds_up"]) and webhooks and self.done == self.planned

    def sent(self, channel: str) -> int:
        return sum(row["sent"] for row in self.rows if row["channel"] == channel)


@dataclass(frozen=True, slots=True)
class Check:
    """Two numbers that must be the same. `about` is the item's title, or what else they are about."""

    about: str
    what: str
    said: int
    found: int

    @property
    def holds(self) -> bool:
        return self.said == self.found


async def settled(site: Site, items: list[PublishedItem], watch: Watch) -> dict[str, Reach]:
    """The reach of each item by id, once all are settled or patience is at its end; `watch` sees each on its way."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        reaches = {item.id: Reach(await site.get(f"/api/content/v1/items/{item.id}/reach")) for item in items}
        for item in items:
            watch(item, reaches[item.id])
        if all(reach.is_settled for reach in reaches.values()) or time.monotonic() > deadline:
            return reaches
        await asyncio.sleep(ASK_EVERY_S)


async def checks(site: Site, items: list[PublishedItem], reaches: dict[str, Reach]) -> list[Check]:
    """What the ledger says of each item, beside what the mailbox and the intranets hold."""
    found: list[Check] = []
    webhooks = (await site.get("/demo/intranet.json"))["data"]
    for item in items:
        reach = reaches[item.id]
        totals = reach.answer["fanout"]["totals"]
        people = sum(total["planned"] + total["excluded"] for total in totals)
        mailed = sum(row["planned"] + row["excluded"] for row in reach.rows if row["channel"] == "mail")
        caught = (await site.get("/mailbox.json", q=item.title))["total"]
        verified = sum(1 for call in webhooks if call["title"] == item.title and call["verified"])
        found += [
            Check(item.title, "people found = planned + left out", people, mailed),
            Check(item.title, "mails sent = mails in the mailbox", reach.sent("mail"), caught),
            Check(item.title, "webhooks sent = signatures verified", reach.sent("webhook"), verified),
        ]
    return found
