"""The envelope of every event: CloudEvents 1.0 in JSON structured mode.

`type` carries the version (`se.budkavle.news.published.v1`), `subject` is the item (or another subject of deliveries),
`traceparent` and `correlationid` ride along from the editor's click to the last SMTP reply. Unknown attributes are
ignored, as the specification asks of receivers.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

CONTENT_TYPE = "application/cloudevents+json"
TYPE_PREFIX = "se.budkavle."


class Contract(BaseModel):
    """Base of all that is published: frozen, and blind to fields that a newer producer added."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Event(Contract):
    """The data of one event. `event_name` and `event_version` make up the CloudEvents `type`;
    the name is the routing key.
    """

    event_name: ClassVar[str]
    event_version: ClassVar[int] = 1
    stale_after: ClassVar[timedelta | None] = None
    """An event that is older than this when it comes is parked, for a person to decide; `None`: it always counts."""

    @classmethod
    def event_type(cls) -> str:
        """The CloudEvents `type`, for example `se.budkavle.news.published.v1`."""
        return f"{TYPE_PREFIX}{cls.event_name}.v{cls.event_version}"

    @property
    def routing_key(self) -> str:
        """Where the bus routes it; an event with lanes adds its lane."""
        return self.event_name


class Envelope(Contract):
    """One CloudEvent. `id` is the same on every redelivery and every publication of one outbox row."""

    specversion: Literal["1.0"] = "1.0"
    id: UUID
    source: str = Field(min_length=1, examples=["/budkavle/content"])
    type: str = Field(min_length=1, examples=["se.budkavle.news.published.v1"])
    subject: str = Field(min_length=1)
    time: AwareDatetime
    datacontenttype: Literal["application/json"] = "application/json"
    correlationid: str = Field(min_length=1, max_length=128)
    traceparent: str | None = None
    replayedtime: AwareDatetime | None = Field(
        default=None, description="when somebody put it back on its queue; its age counts from then"
    )
    data: dict[str, Any]

    @classmethod
    def wrap(
        cls,
        event: Event,
        *,
        event_id: UUID,
        source: str,
        subject: str,
        time: datetime,
        correlation_id: str,
        traceparent: str | None = None,
    ) -> Self:
        """Put `event` into an envelope."""
        return cls(
            id=event_id,
            source=source,
            type=event.event_type(),
            subject=subject,
            time=time,
            correlationid=correlation_id,
            traceparent=traceparent,
            data=event.model_dump(mode="json"),
        )
