"""The composition root: content's parts put together, nothing connected yet."""

from pathlib import Path

from content import api
from content.attachments import api as attachments_api
from content.handlers import on_delivery_progress, on_fanout_completed
from content.schedule import ScheduleWorker
from content.settings import ContentSettings
from content.web import feeds, files, public
from shared.clock import Clock, SystemClock
from shared.contracts.delivery import DeliveryProgress
from shared.contracts.mail import FanoutCompleted
from shared.database import Database
from shared.http import create_app
from shared.messaging.consumer import Consumer
from shared.messaging.topology import CONTENT_FANOUTS, CONTENT_PROGRESS
from shared.service import Service
from shared.web.pages import Pages, install_error_pages
from shared.web.static import static_files

HERE = Path(__file__).parent
MIGRATIONS = HERE / "migrations"
PATHS = (
    *("/", "/nyheter", "/pressrum", "/rapporter", "/resultat"),
    *("/feed.atom", "/feed.json", "/static", "/redaktion", "/api/content"),
)
"""What content answers behind the one origin; `/` is the front page alone."""


def build(settings: ContentSettings, clock: Clock | None = None) -> Service:
    """The service, ready to be started."""
    clock = clock or SystemClock()
    database = Database(settings.database_url, clock=clock)
    app = create_app("content", "Budkavle content", settings=settings, database=database, clock=clock)
    app.state.pages = Pages(settings, HERE / "web")
    install_error_pages(app, app.state.pages)
    app.serve(api.router, attachments_api.router, public.router, files.router, feeds.router)
    static_files(app)
    consumers = [
        Consumer(CONTENT_PROGRESS, database, clock, {DeliveryProgress: on_delivery_progress}),
        Consumer(CONTENT_FANOUTS, database, clock, {FanoutCompleted: on_fanout_completed}),
    ]
    workers = [ScheduleWorker(database, clock, settings.public_url)]
    return Service("content", settings, database, clock, app, MIGRATIONS, PATHS, consumers, workers)
