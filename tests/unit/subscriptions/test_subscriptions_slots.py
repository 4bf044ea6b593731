"""When digests go out, by a calendar worked out by hand and by rules that hold for every day."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from subscriptions.slots import Timetable, Weekday, is_working_day, last_working_day

STOCKHOLM = ZoneInfo("Europe/Stockholm")
TIMETABLE = Timetable()


def changed_clock(year: int, month: int) -> date:
    """The last Sunday of March or October: summer time begins or ends."""
    last = date(year, month, 31)
    return last - timedelta(days=(last.weekday() + 1) % 7)


changes = st.builds(changed_clock, st.integers(2020, 2049), st.sampled_from((3, 10)))
days_near = st.builds(lambda day, apart: day + timedelta(days=apart), changes, st.integers(-4, 4))
days = st.dates(date(2020, 1, 1), date(2050, 1, 1)) | days_near
instants_near = st.builds(
    lambda day, minutes: datetime.combine(day, time(), UTC) + timedelta(minutes=minutes),
    days_near,
    st.integers(0, 1440),
)
instants = st.datetimes(datetime(2020, 1, 1), datetime(2050, 1, 1), timezones=st.just(UTC)) | instants_near
timetables = st.builds(Timetable, st.times(time(3, 0), time(23, 59)), st.sampled_from(Weekday))


@pytest.mark.parametrize(
    "day",
    [
        "2026-01-01",  # New Year
        "2026-01-06",  # Epiphany
        "2026-04-03",  # Good Friday
        "2026-04-06",  # Easter Monday
        "2027-03-26",  # Good Friday, in another month
        "2026-05-01",
        "2026-05-14",  # Ascension Day
        "2028-06-06",  # National Day
        "2026-06-19",  # Midsummer Eve, the Friday of 19-25 June
        "2027-06-25",
        "2026-12-24",
        "2026-12-25",
        "2025-12-26",
        "2026-12-31",
        "2026-11-21",  # a Saturday
        "2026-11-22",  # a Sunday
    ],
)
def test_nobody_is_at_work(day: str) -> None:
    assert not is_working_day(date.fromisoformat(day))


@pytest.mark.parametrize("day", ["2026-04-02", "2026-05-15", "2026-06-18", "2026-11-02", "2027-01-07"])
def test_people_are_at_work(day: str) -> None:
    assert is_working_day(date.fromisoformat(day))


@pytest.mark.parametrize(
    ("now", "slot", "weekly"),
    [
        ("2026-11-23T07:29:59+00:00", "2026-11-20T07:30:00+00:00", True),  # Monday, a second before
        ("2026-11-23T07:30:00+00:00", "2026-11-23T07:30:00+00:00", False),
        ("2026-03-27T12:00:00+00:00", "2026-03-27T07:30:00+00:00", True),  # the Friday before summer time
        ("2026-03-30T12:00:00+00:00", "2026-03-30T06:30:00+00:00", False),  # the Monday after: an hour earlier in UTC
        ("2026-10-26T07:29:00+00:00", "2026-10-23T06:30:00+00:00", True),  # back to winter time
        ("2026-04-02T12:00:00+00:00", "2026-04-02T06:30:00+00:00", True),  # Friday is Good Friday: Thursday
        ("2026-04-07T05:00:00+00:00", "2026-04-02T06:30:00+00:00", True),  # over Easter
        ("2026-12-23T12:00:00+00:00", "2026-12-23T07:30:00+00:00", True),  # Christmas Eve and Christmas Day
    ],
)
def test_the_last_slot(now: str, slot: str, weekly: bool) -> None:
    found = TIMETABLE.last(datetime.fromisoformat(now))
    assert (found.at.isoformat(), found.weekly) == (slot, weekly)


@trials(deadline=None)  # a year's calendar takes a while, once
@given(timetables, instants)
def test_a_slot_has_come_and_the_next_has_not(timetable: Timetable, now: datetime) -> None:
    last, following = timetable.last(now), timetable.next(now)
    assert last.at <= now < following.at
    assert timetable.last(following.at) == following
    assert timetable.next(last.at) == following


@trials(deadline=None)
@given(timetables, changes)
def test_no_window_is_lost_or_doubled_where_the_clock_is_changed(timetable: Timetable, day: date) -> None:
    """A fortnight's windows follow one another without a gap, each as long as the clock on the wall says."""
    begin = datetime.combine(day - timedelta(days=7), time(), STOCKHOLM).astimezone(UTC)
    slots = list(timetable.between(begin, begin + timedelta(days=14)))
    assert [timetable.next(slot.at) for slot in slots[:-1]] == slots[1:]
    on_the_wall = [slot.at.astimezone(STOCKHOLM) for slot in slots]
    assert {slot.timetz().replace(tzinfo=None) for slot in on_the_wall} == {timetable.at}
    assert {slot.utcoffset() for slot in on_the_wall} == {timedelta(hours=1), timedelta(hours=2)}


@trials(deadline=None)
@given(timetables, days)
def test_each_working_day_has_one_slot_at_the_time_on_the_clock(timetable: Timetable, day: date) -> None:
    midnight = datetime.combine(day, time(), STOCKHOLM).astimezone(UTC)
    next_midnight = datetime.combine(day + timedelta(days=1), time(), STOCKHOLM).astimezone(UTC)
    slots = list(timetable.between(midnight - timedelta(microseconds=1), next_midnight - timedelta(microseconds=1)))
    assert len(slots) == is_working_day(day)
    for slot in slots:
        assert slot.at.astimezone(STOCKHOLM).replace(tzinfo=None) == datetime.combine(day, timetable.at)


@trials(deadline=None)
@given(timetables, days)
def test_each_week_has_its_digest_on_its_day_or_the_working_day_before(timetable: Timetable, day: date) -> None:
    wanted = day + timedelta(days=(timetable.weekly_on - day.weekday()) % 7)
    end = datetime.combine(wanted, time(23, 59), STOCKHOLM).astimezone(UTC)
    weekly = [slot for slot in timetable.between(end - timedelta(days=14), end) if slot.weekly]
    assert weekly[-1].day == last_working_day(wanted)
    assert (wanted - weekly[-1].day).days < 7
