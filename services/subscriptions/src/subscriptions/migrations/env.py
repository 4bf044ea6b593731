"""Alembic's entry: the tables of this service and the plumbing that every service has."""

from shared import idempotency, keys  # noqa: F401
from shared.messaging import dead_letters, outbox  # noqa: F401 - their tables are part of the plumbing
from shared.migrations import run
from subscriptions.desks import models as desks  # noqa: F401
from subscriptions.groups import models as groups  # noqa: F401
from subscriptions.imports import models as imports  # noqa: F401
from subscriptions.models import Base
from subscriptions.office import models as office  # noqa: F401
from subscriptions.rolls import models as rolls  # noqa: F401
from subscriptions.tasks import models as tasks  # noqa: F401

run(Base.metadata)
