"""Puts the service together. Nothing is connected and nothing is read from the environment before `build`."""

from datetime import timedelta
from pathlib import Path

from shared.clock import Clock, SystemClock
from shared.database import Database
from shared.http import create_app
from shared.service import Service
from shared.tokens import TokenSigner
from shared.web.pages import Pages, install_error_pages
from shared.web.visits import Visits
from subscriptions import api, coverage, digest_api, register_api, suppression_api
from subscriptions.desks import api as desks
from subscriptions.desks.care import DeskCare
from subscriptions.digest_worker import DigestWorker
from subscriptions.erased_file import ErasedFile
from subscriptions.erasures import ErasureKeeper
from subscriptions.fanout import FanoutWorker
from subscriptions.groups import api as groups
from subscriptions.groups.weeding import GroupWeeder
from subscriptions.handlers import Handlers
from subscriptions.imports import api as imports
from subscriptions.imports.worker import ImportWorker
from subscriptions.links import Links
from subscriptions.office.indexing import Indexer
from subscriptions.retention import RetentionWorker
from subscriptions.rolls import api as rolls
from subscriptions.rolls.weeding import RollWeeder
from subscriptions.settings import SubscriptionsSettings
from subscriptions.tasks import api as tasks
from subscriptions.web import (
    desk,
    group,
    group_answers,
    moving,
    new_link,
    notice,
    own_data,
    preferences,
    signing_up,
    undoing,
    unsubscribing,
)
from subscriptions.web.office import covered as office_coverage
from subscriptions.web.office import data_protection, door, overview
from subscriptions.web.office import groups as office_groups
from subscriptions.web.office import importing as office_imports
from subscriptions.web.office import keeping as office_keeping
from subscriptions.web.office import organisations as office_organisations
from subscriptions.web.office import people as office_people
from subscriptions.web.office import sessions as office_sessions
from subscriptions.web.office import stops as office_stops
from subscriptions.web.office import tasks as office_tasks
from subscriptions.weeding import Weeder

HERE = Path(__file__).parent
MIGRATIONS = HERE / "migrations"
PATHS = ("/prenumeration", "/avregistrera", "/prenumerera", "/kansli", "/api/subscriptions")


def build(settings: SubscriptionsSettings, clock: Clock | None = None) -> Service:
    """The service, not running yet."""
    clock = clock or SystemClock()
    database = Database(settings.database_url, clock=clock)
    signer = TokenSigner([key.get_secret_value() for key in settings.secret_keys])
    links = Links(settings.public_url, signer)
    app = create_app("subscriptions", "Budkavle subscriptions", settings=settings, database=database, clock=clock)
    app.state.links = links
    app.state.visits = Visits(settings.public_url, signer)
    app.state.counting_key = settings.secret_keys[0].get_secret_value().encode()
    app.state.pages = Pages(settings, HERE / "web")
    install_error_pages(app, app.state.pages)
    door.install_door(app)
    office = (api, digest_api, register_api, suppression_api, imports, rolls, coverage, desks, tasks, groups)
    pages = (desk, group, group_answers, signing_up, notice, new_link, preferences, undoing, own_data, moving)
    places = (office_organisations, office_groups, office_coverage, office_sessions)
    rooms = (door, overview, data_protection, office_keeping, office_people, office_imports, office_tasks, office_stops)
    for part in (*office, *pages, unsubscribing, *rooms, *places):
        app.serve(part.router)
    return Service(
        name="subscriptions",
        settings=settings,
        database=database,
        clock=clock,
        app=app,
        migrations=MIGRATIONS,
        paths=PATHS,
        consumers=Handlers(clock).consumers(database),
        workers=[
            FanoutWorker(database, clock, links),
            DigestWorker(database, clock, links, settings.timetable),
            ImportWorker(database, clock),
            Indexer(database),
            ErasureKeeper(database, clock, ErasedFile(settings.erased_file) if settings.erased_file else None),
            Weeder(database, clock, settings.office_lasting),
            GroupWeeder(database, clock),
            DeskCare(database, clock, links, settings.desk_rhythm),
            RetentionWorker(database, clock, settings.kept),
            RollWeeder(database, clock, timedelta(days=settings.mandate_kept_days)),
        ],
    )
