"""What `subscriptions` is told, beside what every service is told."""

from datetime import time, timedelta
from pathlib import Path

from pydantic import Field

from shared.settings import OrganisationSettings
from subscriptions.consent import PROMISED
from subscriptions.desks.desks import Rhythm
from subscriptions.limits import Counted, Limit
from subscriptions.office.sessions import Lasting
from subscriptions.retention import Kept
from subscriptions.slots import Timetable, Weekday


class SubscriptionsSettings(OrganisationSettings):
    """The organisation stands on the pages; the limits keep strangers from having us fill somebody's inbox."""

    asks_per_address: int = Field(default=5, ge=1, description="mails to one address that may be asked for in an hour")
    asks_per_network: int = Field(default=60, ge=1, description="such mails asked for from one network in an hour")
    changes_per_person: int = Field(default=20, ge=1, description="changes to one subscription by links in an hour")
    sign_ins_per_network: int = Field(default=30, ge=1, description="tries to sign in from one network in an hour")
    office_idle_minutes: int = Field(default=60, ge=1, description="minutes until an idle sign-in to /kansli ends")
    office_longest_hours: int = Field(default=12, ge=1, description="hours that a sign-in to /kansli lasts at most")
    mandate_kept_days: int = Field(default=90, ge=0, description="days that a former representative is remembered")
    consent_kept_days: int = Field(
        default=365, ge=0, le=PROMISED.days, description="days that a member of the public who left is kept"
    )
    press_register_kept_days: int = Field(default=730, ge=0, description="days that a dead desk address is kept")
    public_task_kept_days: int = Field(default=365, ge=0, description="days that an official's dead address is kept")
    erased_file: Path | None = Field(
        default=None, description="the list of the erased; without it, whoever was erased is back with a backup"
    )
    history_kept_days: int = Field(default=730, ge=0, description="days that the history of an erased person is kept")

    digest_at: time = Field(default=time(8, 30), description="when digests go out, on the clock in Stockholm")
    digest_weekly_on: str = Field(
        default="friday",
        pattern="^(monday|tuesday|wednesday|thursday|friday)$",
        description="the day of weekly digests; where it is a holiday, the last working day before it",
    )

    @property
    def timetable(self) -> Timetable:
        return Timetable(self.digest_at, Weekday[self.digest_weekly_on.upper()])

    desk_question_days: int = Field(default=182, ge=1, description="days between two questions to a newsroom's desk")
    desk_answer_days: int = Field(default=21, ge=1, description="days until it is reminded, and until a task is raised")

    @property
    def office_lasting(self) -> Lasting:
        return Lasting(timedelta(minutes=self.office_idle_minutes), timedelta(hours=self.office_longest_hours))

    @property
    def desk_rhythm(self) -> Rhythm:
        return Rhythm(timedelta(days=self.desk_question_days), timedelta(days=self.desk_answer_days))

    @property
    def kept(self) -> Kept:
        return Kept(
            consent=timedelta(days=self.consent_kept_days),
            press_register=timedelta(days=self.press_register_kept_days),
            public_task=timedelta(days=self.public_task_kept_days),
            history=timedelta(days=self.history_kept_days),
        )

    @property
    def address_limit(self) -> Limit:
        return Limit(Counted.ADDRESS, self.asks_per_address)

    @property
    def network_limit(self) -> Limit:
        return Limit(Counted.NETWORK, self.asks_per_network)

    @property
    def sign_in_limit(self) -> Limit:
        return Limit(Counted.SIGN_IN, self.sign_ins_per_network)

    @property
    def person_limit(self) -> Limit:
        return Limit(Counted.PERSON, self.changes_per_person)

    @property
    def undoing_limit(self) -> Limit:
        return Limit(Counted.UNDOING, self.changes_per_person)
