"""When digests go out: at one time of day, Europe/Stockholm, on Swedish working days; once a week on one of them.

A slot is the instant of one digest run. It is computed from the calendar day, so a change to or from summer time moves
no slot and doubles none. The calendar is the library `holidays`: the days that the law calls public holidays
(1989:253), and Midsummer, Christmas and New Year's Eve, which count as such in working life (the Annual Leave Act,
1977:480, section 7). Where the weekly day is no working day, the last working day before it takes its place.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import IntEnum
from functools import lru_cache

from holidays import DE_FACTO, PUBLIC, country_holidays

from shared.web.dates import STOCKHOLM

DAY = timedelta(days=1)
WEEKEND = 5


class Weekday(IntEnum):
    """The days that a week's digest may go out on."""

    MONDAY = 0
    TUESDAY = 1
    WEDNESDAY = 2
    THURSDAY = 3
    FRIDAY = 4


@dataclass(frozen=True, slots=True)
class Slot:
    """The instant of one digest run. `weekly` says whether it carries the week's digests as well as the day's."""

    day: date
    at: datetime
    weekly: bool


@dataclass(frozen=True, slots=True)
class Timetable:
    """When the slots are."""

    at: time = time(8, 30)
    weekly_on: Weekday = Weekday.FRIDAY

    def last(self, now: datetime) -> Slot:
        """The latest slot that has come."""
        day = now.astimezone(STOCKHOLM).date()
        if not is_working_day(day) or self._instant(day) > now:
            day = last_working_day(day - DAY)
        return self._slot(day)

    def next(self, now: datetime) -> Slot:
        """The first slot that is still to come."""
        day = now.astimezone(STOCKHOLM).date()
        while not is_working_day(day) or self._instant(day) <= now:
            day += DAY
        return self._slot(day)

    def between(self, after: datetime, until: datetime) -> Iterator[Slot]:
        """The slots after one instant, up to and with another, in order."""
        slot = self.next(after)
        while slot.at <= until:
            yield slot
            slot = self.next(slot.at)

    def _slot(self, day: date) -> Slot:
        return Slot(day, self._instant(day), self._is_weekly(day))

    def _instant(self, day: date) -> datetime:
        return datetime.combine(day, self.at, STOCKHOLM).astimezone(UTC)

    def _is_weekly(self, day: date) -> bool:
        wanted = day + DAY * ((self.weekly_on - day.weekday()) % 7)
        return last_working_day(wanted) == day


def is_working_day(day: date) -> bool:
    """Whether offices in Sweden are open."""
    return day.weekday() < WEEKEND and day not in _holidays(day.year)


def last_working_day(day: date) -> date:
    """`day`, or the nearest working day before it."""
    while not is_working_day(day):
        day -= DAY
    return day


@lru_cache
def _holidays(year: int) -> frozenset[date]:
    return frozenset(country_holidays("SE", years=[year], categories=(PUBLIC, DE_FACTO), expand=False))
