"""The words of the API about rolls: what an import of a roll would do, by council and by person."""

from datetime import date
from uuid import UUID

from pydantic import BaseModel, Field

from subscriptions.schemas import LineError


class RollPerson(BaseModel):
    """Somebody on a roll. `line` is theirs in the file; `subscriber_id` is missing where nobody has the address yet."""

    line: int | None
    subscriber_id: UUID | None
    address: str
    name: str


class RollField(BaseModel):
    """What changes about somebody who stays; empty means none."""

    field: str = Field(examples=["mandate_until"])
    before: str
    after: str


class RollChange(RollPerson):
    fields: list[RollField]


class RollDiff(BaseModel):
    """One council or board: who is new, who has left, who has changed."""

    organisation: str
    organisation_id: UUID | None = Field(description="missing where the file names it for the first time")
    municipalities: list[str]
    mandate_from: date = Field(description="the term's first day")
    mandate_until: date = Field(description="the term's last day")
    joining: list[RollPerson]
    leaving: list[RollPerson]
    changing: list[RollChange]
    staying: int = Field(description="unchanged")


class RollReport(BaseModel):
    """What an import of rolls did, or, on a dry run, what it would do. With errors it did nothing."""

    dry_run: bool
    version: str = Field(description="of this comparison; also the ETag, and what applying it is asked with")
    rows: int
    rolls: list[RollDiff] = []
    errors: list[LineError] = []
    errors_left_out: int = Field(default=0, description="errors beyond those listed")
