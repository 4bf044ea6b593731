"""What an editor's time means, over every change of the clock: read by pydantic too, and held against the hours of Sweden."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import settings as trials
from hypothesis import strategies as st
from pydantic import AwareDatetime, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from content.swedish_time import instant_written, instants, swedish_time

STOCKHOLM = ZoneInfo("Europe/Stockholm")
WINTER, SUMMER = timezone(timedelta(hours=1)), timezone(timedelta(hours=2))
aware = TypeAdapter(AwareDatetime)


def changed_clock(year: int, month: int) -> date:
    """The last Sunday of March or October: summer time begins or ends, at 01:00 UTC."""
    last = date(year, month, 31)
    return last - timedelta(days=(last.weekday() + 1) % 7)


nights = st.builds(changed_clock, st.integers(2000, 2099), st.sampled_from((3, 10)))
near = st.builds(
    lambda night, minutes: datetime.combine(night, time()) + timedelta(minutes=minutes), nights, st.integers(-120, 360)
)
walls = near | st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1))
DIGITS = st.lists(st.sampled_from([*"0123456789-:T+Z. tz", "2027-03-28", "T02:30", ":00", "+01:00", "-00:00", "２"]))


def refused(written: object) -> dict[str, str]:
    with pytest.raises(PydanticCustomError) as caught:
        instant_written(written)
    assert caught.value.context
    return {"code": caught.value.type, **caught.value.context}


def meant(wall: datetime) -> set[datetime]:
    """The instants at which a clock in Sweden shows `wall`, by trying both of its offsets."""
    tried = {wall.replace(tzinfo=offset).astimezone(UTC) for offset in (WINTER, SUMMER)}
    return {instant for instant in tried if instant.astimezone(STOCKHOLM).replace(tzinfo=None) == wall}


@trials(max_examples=300, deadline=None)
@given(walls.map(lambda wall: wall.replace(tzinfo=UTC)))
def test_an_instant_is_read_as_the_clock_in_sweden_writes_it(instant: datetime) -> None:
    written = swedish_time(instant)
    assert instant_written(written) == instant
    assert aware.validate_python(written) == instant
    assert instant_written(instant.isoformat().replace("+00:00", "Z")) == instant


@trials(max_examples=300, deadline=None)
@given(walls)
@example(datetime(2027, 3, 28, 2, 30))
@example(datetime(2027, 10, 31, 2, 30))
def test_b10_what_is_offered_instead_is_what_the_clock_shows(wall: datetime) -> None:
    """Once, twice or never; what is offered can be sent as it stands, and means just that."""
    shown, offered = meant(wall), instants(wall)
    told = refused(wall.isoformat())
    for instant in offered:
        assert swedish_time(instant) in told["message"]
        assert swedish_time(instant) in told["message_sv"]
        assert instant_written(swedish_time(instant)) == instant
    assert told["code"] == ("timezone_aware" if shown else "no_such_time")
    assert len(offered) == max(len(shown), 1) or not shown
    assert set(offered) == shown or not shown
    if not shown:  # the two beside it: as far from it as the clock was put forward
        before, after = (instant.astimezone(STOCKHOLM).replace(tzinfo=None) for instant in offered)
        assert (wall - before, after - wall) == (timedelta(hours=1), timedelta(hours=1))


@pytest.mark.parametrize(
    ("written", "code", "words"),
    [
        ("2026-12-01T08:30", "timezone_aware", "2026-12-01T08:30:00+01:00"),
        ("2027-07-01T08:30:00", "timezone_aware", "2027-07-01T08:30:00+02:00"),
        ("2027-10-31T02:30", "timezone_aware", "2027-10-31T02:30:00+02:00 or 2027-10-31T02:30:00+01:00"),
        ("2027-03-28T02:30", "no_such_time", "2027-03-28T01:30:00+01:00 or 2027-03-28T03:30:00+02:00"),
        ("2027-03-28T02:30:00+01:00", "no_such_time", "2027-03-28T03:30:00+02:00"),
        ("2027-03-28T02:30:00+02:00", "no_such_time", "2027-03-28T01:30:00+01:00"),
        ("2026-02-30T08:30:00+01:00", "datetime_parsing", "2026-12-01T08:30:00+01:00"),
        ("0001-01-01T00:00", "timezone_aware", "2026-12-01T08:30:00+01:00"),
    ],
)
def test_the_mend_is_named(written: str, code: str, words: str) -> None:
    told = refused(written)
    assert told["code"] == code
    assert words in told["message"]
    assert words.replace(" or ", " eller ") in told["message_sv"]


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        ("2027-10-31T02:30:00+02:00", "2027-10-31T00:30:00Z"),
        ("2027-10-31T02:30:00+01:00", "2027-10-31T01:30:00Z"),
        ("2027-03-28T02:30:00Z", "2027-03-28T02:30:00Z"),
        ("2027-03-28T02:30:00-05:00", "2027-03-28T07:30:00Z"),
        ("2026-12-01t08:30:00.5z", "2026-12-01T08:30:00.500000Z"),
        ("2026-12-01T08:30+01:00", "2026-12-01T07:30:00Z"),
        ("9999-12-31T23:59:59+01:00", "9999-12-31T22:59:59Z"),
    ],
)
def test_an_offset_makes_it_one_instant(written: str, instant: str) -> None:
    assert instant_written(written) == datetime.fromisoformat(instant)


@trials(max_examples=500, deadline=None)
@given(DIGITS.map("".join) | st.text(max_size=40) | st.none() | st.integers() | st.booleans() | st.floats())
@example("20261201T083000+0100")
@example("2026-W49-2")
@example("2026-12-01T24:00:00Z")
@example("2026-12-01T23:59:60Z")
@example("2026-12-01T08:30:00+24:00")
@example("0001-01-01T00:30:00+01:00")
@example("1796112000")
@example(1796112000)
def test_b10_whatever_is_written_is_an_instant_or_is_refused(written: object) -> None:
    """Nothing else is raised; and what is read, another reader reads the same."""
    try:
        read = instant_written(written)
    except PydanticCustomError as error:
        assert error.context
        assert error.context["message_sv"]
        return
    assert read.utcoffset() is not None
    try:
        assert aware.validate_python(written.upper()) == read
    except ValidationError:
        assert not 1 < read.year < 9999, written
