"""Alembic's entry: the tables of this service and the plumbing that every service has."""

from content.attachments import models  # noqa: F401 - its tables too
from content.models import Base
from shared import idempotency, keys  # noqa: F401
from shared.messaging import dead_letters, outbox  # noqa: F401 - their tables are part of the plumbing
from shared.migrations import run

run(Base.metadata)
