"""One mail in: find whose it is, read it, apply it, commit. All ways in end here (listener, pipe, mailbox).

What carries no genuine return path of ours changes nothing and is only counted. Reading takes some milliseconds of a
processor, so it is done beside the event loop.
"""

import asyncio
from collections.abc import Iterator, Sequence
from uuid import UUID

from prometheus_client import Counter

from distributor.bounces.applying import Result, apply, digest_of
from distributor.bounces.classifying import classify
from distributor.bounces.mime import MOST_BYTES, parts_of
from distributor.bounces.return_path import ReturnPaths
from distributor.settings import DistributorSettings
from shared.clock import Clock
from shared.database import Database

MOST_OCTETS = 16_777_216
"""A longer mail is cut here by whoever takes it in; only its beginning is read anyway."""

reports_total = Counter("budkavle_bounce_reports_total", "Mails that came back, by what they were", ["kind", "result"])


class Intake:
    """Takes mails in, one transaction each."""

    def __init__(self, settings: DistributorSettings, database: Database, clock: Clock) -> None:
        paths = settings.return_paths
        if paths is None:
            raise ValueError("needs a bounce address")
        self.paths: ReturnPaths = paths
        self._canary = settings.canary_subscriber
        self._database = database
        self._clock = clock

    async def take(self, raw: bytes, envelope: Sequence[str] = ()) -> Result:
        """Take one mail in. `envelope` has its addresses, where they are known: a bounce comes to a return path of
        ours, the canary's mail from one.

        Raises NotYet when it came too early, and whatever the database raises: it is to be offered again.
        """
        raw = raw[:MOST_OCTETS]
        report, delivery_id = await asyncio.to_thread(lambda: (classify(raw), self._whose(raw, envelope)))
        result = Result.NOT_OURS
        if delivery_id is not None:
            digest = digest_of(delivery_id, report, raw)
            async with self._database.transaction() as session:
                result = await apply(session, self._clock, delivery_id, report, digest, self._canary)
        reports_total.labels(kind=report.kind, result=result).inc()
        return result

    def _whose(self, raw: bytes, envelope: Sequence[str]) -> UUID | None:
        found = map(self.paths.delivery_in, _texts(raw, envelope))
        return next((delivery_id for delivery_id in found if delivery_id is not None), None)


def _texts(raw: bytes, envelope: Sequence[str]) -> Iterator[str]:
    """The envelope knows best; else it stands in a header, or in the mail that came back, be that encoded."""
    yield " ".join(envelope)
    yield raw[:MOST_BYTES].decode("latin-1")
    yield from (part.text for part in parts_of(raw)[1])
