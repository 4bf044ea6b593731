"""The composition root: every part of the distributor, built from settings and connected to nothing yet."""

from pathlib import Path

from distributor import api
from distributor.bounces.intake import Intake
from distributor.bounces.listener import BounceListener
from distributor.bounces.mailbox import POLL_EVERY_S, MailboxWorker
from distributor.canary import CanaryWorker
from distributor.delivery import DeliveryWorker
from distributor.follow_ups import FollowUpWorker
from distributor.handlers import Handlers
from distributor.mail.sending import MailSender
from distributor.progress import ProgressWorker
from distributor.readers import page as own_mails
from distributor.recovery import RecoveryWorker
from distributor.retention import RetentionWorker
from distributor.settings import DistributorSettings
from distributor.webhooks import api as webhooks_api
from distributor.webhooks import canary as canary_hook
from distributor.webhooks import page as endpoint_page
from distributor.webhooks.care import EndpointCareWorker
from distributor.webhooks.contact_mail import ContactMail
from distributor.webhooks.links import EndpointLinks
from distributor.webhooks.sending import WebhookSender
from shared import extracts
from shared.clock import Clock, SystemClock
from shared.database import Database
from shared.http import create_app
from shared.service import Service, Worker
from shared.tokens import TokenSigner
from shared.web.pages import Pages, install_error_pages
from shared.web.visits import Visits

HERE = Path(__file__).parent
MIGRATIONS = HERE / "migrations"
PATHS = ("/intranat", extracts.PATH, "/api/distributor")


def build(settings: DistributorSettings, clock: Clock | None = None) -> Service:
    """The distributor, ready to be started."""
    clock = clock or SystemClock()
    database = Database(settings.database_url, clock=clock)
    signer = TokenSigner([key.get_secret_value() for key in settings.secret_keys])
    links = EndpointLinks(settings.public_url, signer)
    app = create_app("distributor", "Budkavle distributor", settings=settings, database=database, clock=clock)
    app.serve(api.router, webhooks_api.router, endpoint_page.router, own_mails.router, canary_hook.router)
    app.state.endpoint_links = links
    app.state.visits = Visits(settings.public_url, signer)
    app.state.pages = Pages(settings, HERE / "webhooks")
    app.state.own_pages = Pages(settings, HERE / "readers")
    install_error_pages(app, app.state.pages)
    senders = (MailSender(settings), WebhookSender(settings, database, clock))
    return Service(
        name="distributor",
        settings=settings,
        database=database,
        clock=clock,
        app=app,
        migrations=MIGRATIONS,
        paths=PATHS,
        consumers=Handlers(clock).consumers(database),
        workers=[
            *(DeliveryWorker(sender, database, clock, settings) for sender in senders),
            FollowUpWorker(database, clock),
            ProgressWorker(database, clock),
            RecoveryWorker(database, clock, settings),
            RetentionWorker(database, clock, settings),
            EndpointCareWorker(database, clock, ContactMail(links, settings.office_address)),
            *([CanaryWorker(database, clock, settings)] if settings.canaries else ()),
            *_bounce_workers(settings, database, clock),
        ],
    )


def _bounce_workers(settings: DistributorSettings, database: Database, clock: Clock) -> list[Worker]:
    """The ways in for bounces that the settings name; the pipe needs none (`python -m distributor.bounces`)."""
    if not settings.bounce_address:
        return []
    intake = Intake(settings, database, clock)
    workers: list[Worker] = []
    if settings.bounce_listen:
        workers.append(BounceListener(settings.bounce_listen, intake))
    if settings.bounce_mailbox_url.get_secret_value():
        every = POLL_EVERY_S * settings.retry_scale
        workers.append(MailboxWorker(settings.bounce_mailbox_url.get_secret_value(), intake, every))
    return workers
