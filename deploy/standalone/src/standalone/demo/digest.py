"""Sends the digest that some of the sample's readers have chosen, without waiting for half past eight.

One run on demand takes what waits for everybody who gets news daily or weekly. It happens once however often the demo
is started.
"""

import asyncio
import time
from typing import Any

from standalone.demo.accounting import ASK_EVERY_S, PATIENCE_S, Check
from standalone.demo.site import Site
from standalone.demo.state import DemoState

RUNS = "/api/subscriptions/v1/digest-runs"
SUBJECTS = ("Sammandrag:", "Digest:")


async def send(site: Site, state: DemoState) -> None:
    """Begin the run, unless an earlier start did."""
    if not state.digest_run:
        state.digest_run = (await site.post(RUNS, {"weekly": True}, once="digest"))["id"]
        state.save()


async def check(site: Site, state: DemoState) -> Check:
    """The run's mails beside those in the mailbox, once all have arrived or patience is at its end."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        run = await _run(site, state.digest_run)
        caught = sum([(await site.get("/mailbox.json", q=subject))["total"] for subject in SUBJECTS])
        found = Check("The digest", "digests made = digests in the mailbox", run["mails"], caught)
        if (run["state"] == "completed" and found.holds) or time.monotonic() > deadline:
            return found
        await asyncio.sleep(ASK_EVERY_S)


async def _run(site: Site, run_id: str) -> Any:
    runs = (await site.get(RUNS))["data"]
    return next(run for run in runs if run["id"] == run_id)
