"""What came back, one row a report: the proof of a late bounce. No address is kept here."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from distributor.models import Base


class BounceReport(Base):
    """A report on one of our deliveries. `digest` makes taking it in twice the same as once."""

    __tablename__ = "bounce_reports"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    delivery_id: Mapped[UUID] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(64))
    diagnostic: Mapped[str] = mapped_column(Text, doc="the server's words, at most 4 kB, addresses blotted out")
    reporting_mta: Mapped[str] = mapped_column(String(255))
    received_at: Mapped[datetime]
