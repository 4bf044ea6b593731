"""Alembic's entry: the tables of this service and the plumbing that every service has."""

from distributor.bounces import models as bounces  # noqa: F401 - what came back
from distributor.models import Base
from distributor.webhooks import models  # noqa: F401 - the endpoints' tables
from shared.migrations import run

run(Base.metadata)
