"""The pipe: `python -m distributor.bounces [--recipient ADDRESS] < mail`, for a mail server that runs a command.

Ends with 0 when the mail was taken in, or is none of ours; with 75 (EX_TEMPFAIL) when it should be offered again.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence

import structlog

from distributor.bounces.intake import MOST_OCTETS, Intake
from distributor.settings import DistributorSettings
from shared import logging
from shared.clock import SystemClock
from shared.database import Database
from shared.settings import load, refuse

log = structlog.get_logger()

EX_TEMPFAIL = 75


def main() -> int:
    """Read the mail from standard input and take it in."""
    parser = argparse.ArgumentParser(prog="python -m distributor.bounces")
    parser.add_argument("--recipient", action="append", default=[], help="the envelope's recipient")
    recipients = parser.parse_args().recipient
    settings = load(DistributorSettings)
    if not settings.bounce_address:
        refuse("BUDKAVLE_BOUNCE_ADDRESS: is missing")
    logging.configure(service="distributor", log_format=settings.log_format, level=settings.log_level)
    raw = sys.stdin.buffer.read(MOST_OCTETS)
    while sys.stdin.buffer.read(1 << 16):  # or the mail server would write into a closed pipe
        pass
    return asyncio.run(_take(settings, raw, recipients))


async def _take(settings: DistributorSettings, raw: bytes, recipients: Sequence[str]) -> int:
    clock = SystemClock()
    database = Database(settings.database_url, clock=clock)
    try:
        await Intake(settings, database, clock).take(raw, recipients)
    except Exception as error:  # noqa: BLE001 - whatever it is, the mail server keeps the mail
        log.warning("bounce_report_waits", error=type(error).__name__)
        return EX_TEMPFAIL
    finally:
        await database.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
