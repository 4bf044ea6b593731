"""The command line of one service: `python -m content serve|work|run|migrate`, the same for all three."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import uvloop

from shared import logging, migrations
from shared.messaging.embedded import FileInUse
from shared.openapi import Application
from shared.service import Service, run
from shared.settings import Settings, load, refuse

S = TypeVar("S", bound=Settings)


def main(name: str, kind: type[S], build: Callable[[S], Service], folder: Path) -> None:
    """Parse the command and do it. `folder` holds the service's migrations."""
    command = _parse(name)
    settings = load(kind)
    logging.configure(service=name, log_format=settings.log_format, level=settings.log_level)
    if command == "migrate":
        migrations.upgrade(folder, settings.database_url)
        return
    try:
        uvloop.run(_run(build, settings, command))
    except FileInUse as error:
        refuse(f"{error}; several processes need a BUDKAVLE_BROKER_URL=amqp://…; one is `python -m {name} run`")


async def _run(build: Callable[[S], Service], settings: S, command: str) -> None:
    service = build(settings)
    service.install_health()
    app = service.app if command != "work" else _health_alone(service)
    await run([service], app, settings, serve=command != "work", work=command != "serve")


def _health_alone(service: Service) -> Application:
    """A worker answers for its health and nothing else."""
    service.app = Application(openapi_url=None)
    service.install_health()
    return service.app


def _parse(name: str) -> str:
    parser = argparse.ArgumentParser(prog=f"python -m {name}")
    commands = {
        "serve": "answer HTTP",
        "work": "consume events and do the service's own work",
        "run": "serve and work in one process",
        "migrate": "bring the database to the newest version",
    }
    subparsers = parser.add_subparsers(dest="command", required=True)
    for command, help_text in commands.items():
        subparsers.add_parser(command, help=help_text)
    chosen: str = parser.parse_args().command
    return chosen
