"""`budkavle demo`: starts standalone, loads the sample data, publishes, and accounts for every receiver.

It has a directory of its own, and never uses a database, a broker or a mail server that the environment names: nothing
of a demo can reach anybody. Started again on the same directory it publishes nothing again.
"""

import asyncio
import os
from contextlib import suppress
from dataclasses import replace

import uvloop
from rich.console import Console

from shared import logging
from shared.database import Database
from shared.routes import Router
from shared.settings import load
from shared.web.pages import Pages
from standalone import up
from standalone.data_directory import DEMO
from standalone.demo import accounting, digest, loading, telling
from standalone.demo.failure import Failed
from standalone.demo.intranet import IntranetLog, intranet_router
from standalone.demo.site import Site
from standalone.demo.state import DemoState
from standalone.failures import PortInUse
from standalone.settings import SERVICES, StandaloneSettings

FIRST_PORT, PORTS = 8080, 20
ENVIRONMENT = {
    "BUDKAVLE_SENDER": "nyheter@samordningsforbundet.example",
    "BUDKAVLE_SENDER_NAME": "Samordningsförbundet i Kalmar län",
    "BUDKAVLE_REPLY_TO": "info@samordningsforbundet.example",
    "BUDKAVLE_POSTAL_ADDRESS": "Exempelgatan 1, 390 00 Kalmar",
    "BUDKAVLE_CONTACT_EMAIL": "info@samordningsforbundet.example",
    "BUDKAVLE_CONTACT_PHONE": "070-174 06 12",
    "BUDKAVLE_FACEBOOK_URL": "https://facebook.example/samordningsforbundet",
    "BUDKAVLE_LOG_LEVEL": "warning",
}
"""What a demo says of the organisation, unless the environment says it."""
IGNORED = (
    *(f"BUDKAVLE_{service.upper()}_DATABASE_URL" for service in SERVICES),
    *("BUDKAVLE_DATABASE_URL", "BUDKAVLE_BROKER_URL", "BUDKAVLE_SMTP_URL", "BUDKAVLE_SECRETS_DIR"),
)


def run(*, once: bool) -> None:
    """Run until Ctrl-C; with `once`, until everything is accounted for. Raises `Failed`."""
    settings = _settings()
    logging.configure(service="demo", log_format=settings.log_format, level=settings.log_level)
    out = telling.console()
    out.print(f"Budkavle starts, with its data in {settings.data_dir.absolute()}")
    with up.prepared(settings) as plain:
        state = DemoState.opened(plain.directory.path / "demo.json")
        whole = replace(plain, routers={"/demo": _router(plain, state)})
        uvloop.run(up.serve(whole, lambda stopped: _present(whole, state, out, stopped if once else None)))


def _settings() -> StandaloneSettings:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["BUDKAVLE_WEBHOOK_ALLOW_LOOPBACK"] = "true"  # the intranets are this very process
    for name in IGNORED:
        os.environ.pop(name, None)
    told = load(StandaloneSettings)
    port = told.port if "BUDKAVLE_PORT" in os.environ else _free_port(told.host)
    return load(StandaloneSettings, port=port, data_dir=told.data_dir / DEMO)


def _free_port(host: str) -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        with suppress(PortInUse):
            up.check_port(host, port)
            return port
    raise Failed(f"ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are all in use; choose one with BUDKAVLE_PORT")


def _router(whole: up.Standalone, state: DemoState) -> up.Part:
    def router(pages: Pages, database: Database) -> Router:
        return intranet_router(IntranetLog(database, whole.clock), state.secrets.get, pages)

    return router


async def _present(whole: up.Standalone, state: DemoState, out: Console, stopped: asyncio.Event | None) -> None:
    origin = whole.settings.origin()
    here = f"http://127.0.0.1:{whole.settings.port}"
    async with Site(here, whole.admin_key) as site:
        all_is_well = await _load_and_account(site, state, whole, out)
        preferences = await telling.preference_link(site, next(iter(state.items.values())))
    look = telling.where_to_look(origin, list(state.items.values()), preferences, whole.admin_key)
    out.print(look, soft_wrap=True, markup=False)
    if stopped is None:
        out.print("\nCtrl-C ends it.")
        return
    if not all_is_well:
        raise Failed("not everybody is accounted for")
    stopped.set()


async def _load_and_account(site: Site, state: DemoState, whole: up.Standalone, out: Console) -> bool:
    def tell(line: str) -> None:
        out.print(f"  {line}")

    here = f"http://127.0.0.1:{whole.settings.port}"
    await loading.load_people(site, state, whole.clock, tell)
    await loading.connect_intranets(site, state, f"{here}/demo/intranet", tell)
    fresh = await loading.publish_items(site, state, tell)
    items = list(state.items.values())
    with telling.watching(out) as watch:
        reaches = await accounting.settled(site, items, watch)
    for item in items:
        out.print(telling.who_got_what(item, reaches[item.id]))
    settled = all(reach.is_settled for reach in reaches.values())
    if len(fresh) < len(items):
        out.print("  Published by an earlier start; nothing was sent again.\n")
        await digest.send(site, state)
        return settled
    checks = await accounting.checks(site, items, reaches)
    await digest.send(site, state)
    checks.append(await digest.check(site, state))
    out.print(telling.verdict(checks))
    return settled and all(check.holds for check in checks)
