"""When entries fire, over a year in six zones, against a computation that walks through real time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from ojs_stream.errors import RefusedError
from ojs_stream.timers.instants import MISSED_MAX, Due, Schedule, due_of, next_instant

ZONES = {
    "Europe/Berlin": "clocks change at 02:00",
    "America/New_York": "at 02:00, other days",
    "Australia/Lord_Howe": "by half an hour",
    "Africa/Cairo": "at midnight",
    "America/Santiago": "at midnight, southern summer",
    "Asia/Kolkata": "never, and half an hour off",
}
YEAR = 2025
BEGIN = int(datetime(YEAR, 1, 1, tzinfo=UTC).timestamp()) * 1000
END = int(datetime(YEAR + 1, 1, 1, tzinfo=UTC).timestamp()) * 1000
MINUTE = 60_000
HOUR = 60 * MINUTE
STEP = 5 * MINUTE


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def fires(expression: str, timezone: str, begin: int = BEGIN, end: int = END) -> list[int]:
    schedule = Schedule(expression, timezone, BEGIN)
    found = []
    at = next_instant(schedule, begin - 1)
    while at is not None and at < end:
        found.append(at)
        at = next_instant(schedule, at)
    return found


@lru_cache(maxsize=1)
def wall_clock(timezone: str) -> list[tuple[int, datetime]]:
    """Every fifth minute of the year as it really passes, and what the clocks of the zone show then."""
    zone = ZoneInfo(timezone)
    return [(at, datetime.fromtimestamp(at // 1000, zone)) for at in range(BEGIN, END, STEP)]


def shown_first(timezone: str, hours: set[int], minutes: set[int]) -> list[int]:
    """The instants at which the clocks show these times for the first time on their day."""
    seen: set[datetime] = set()
    found = []
    for at, clock in wall_clock(timezone):
        plain = clock.replace(tzinfo=None, fold=0)
        if clock.hour in hours and clock.minute in minutes and plain not in seen:
            seen.add(plain)
            found.append(at)
    return found


@pytest.mark.parametrize("timezone", ZONES)
def test_a_time_of_the_day_is_skipped_in_a_gap_and_fires_once_in_a_fold(timezone: str) -> None:
    for expression, hours, minutes in (
        ("30 2 * * *", {2}, {30}),
        ("15,45 0,1,2,23 * * *", {0, 1, 2, 23}, {15, 45}),
        ("0 */2 * * *", set(range(0, 24, 2)), {0}),
        ("@daily", {0}, {0}),
    ):
        assert fires(expression, timezone) == shown_first(timezone, hours, minutes), expression


@pytest.mark.parametrize("timezone", ZONES)
def test_what_names_every_hour_fires_whenever_the_clocks_show_its_minute(timezone: str) -> None:
    for expression, minutes in (("@hourly", {0}), ("10 0-23 * * *", {10})):
        shown = [at for at, clock in wall_clock(timezone) if clock.minute in minutes]
        assert fires(expression, timezone) == shown, expression


@pytest.mark.parametrize("timezone", ["Europe/Berlin", "America/New_York", "Africa/Cairo", "America/Santiago"])
def test_hourly_and_quarters_keep_their_distance_through_every_change_of_the_clocks(timezone: str) -> None:
    clocks = wall_clock(timezone)
    changes = [at for (at, clock), (_, after) in pairwise(clocks) if clock.utcoffset() != after.utcoffset()]
    assert len(changes) == 2
    for change in changes:
        around = (change - 2 * 24 * HOUR, change + 2 * 24 * HOUR)
        assert {b - a for a, b in pairwise(fires("@hourly", timezone, *around))} == {HOUR}
        assert {b - a for a, b in pairwise(fires("*/15 * * * *", timezone, *around))} == {15 * MINUTE}


def test_the_days_of_the_specification() -> None:
    assert ms("2025-03-09T02:30:00-05:00") not in fires("30 2 * * *", "America/New_York")
    assert len(fires("30 2 * * *", "America/New_York")) == 364
    fall_back = fires("30 1 * * *", "America/New_York", ms("2025-11-02T00:00-04:00"), ms("2025-11-03T00:00-05:00"))
    assert fall_back == [ms("2025-11-02T01:30:00-04:00")]
    tokyo = Schedule("0 9 * * *", "Asia/Tokyo", 0)
    assert next_instant(tokyo, ms("2025-06-01T00:00:00+00:00")) == ms("2025-06-02T00:00:00+00:00")


def test_from_within_the_second_pass_of_a_repeated_hour_the_next_day_comes_next() -> None:
    schedule = Schedule("45 1 * * *", "America/New_York", 0)
    assert next_instant(schedule, ms("2025-11-02T01:10:00-05:00")) == ms("2025-11-03T01:45:00-05:00")


def test_seconds_lead_six_fields_and_follow_the_same_rule() -> None:
    begin = ms("2025-10-26T00:59:59+00:00")
    schedule = Schedule("*/30 30 2 * * *", "Europe/Berlin", 0)
    assert next_instant(schedule, begin) == ms("2025-10-27T02:30:00+01:00"), "02:30 was shown an hour ago"
    assert next_instant(Schedule("15 * * * * *", "UTC", 0), begin) == ms("2025-10-26T01:00:15+00:00")


def test_last_days_and_nth_weekdays() -> None:
    assert next_instant(Schedule("0 23 L * ?", "UTC", 0), ms("2024-02-01T00:00+00:00")) == ms(
        "2024-02-29T23:00+00:00"
    )
    assert next_instant(Schedule("0 0 ? * FRI#3", "UTC", 0), ms("2025-08-01T00:00+00:00")) == ms(
        "2025-08-15T00:00+00:00"
    )


def test_every_counts_from_its_anchor() -> None:
    schedule = Schedule("@every 1h30m", "UTC", 1_000)
    assert next_instant(schedule, 0) == 1_000 + 90 * MINUTE
    assert next_instant(schedule, 1_000 + 90 * MINUTE) == 1_000 + 180 * MINUTE
    assert next_instant(schedule, 1_000 + 91 * MINUTE) == 1_000 + 180 * MINUTE


def test_what_never_fires_has_no_instant() -> None:
    assert next_instant(Schedule("0 0 */28 2 MON#2", "UTC", 0), BEGIN) is None


@pytest.mark.parametrize("expression", ["* * * * *", "@every 7s", "0 3 * * *", "*/5 * * * * *", "0 0 1 1 *"])
def test_the_tick_is_the_latest_instant_and_what_lies_before_it_was_missed(expression: str) -> None:
    """Against a walk from instant to instant."""
    for down in (0, 1, 59_999, 10 * MINUTE, 26 * HOUR, 800 * 24 * HOUR):
        schedule = Schedule(expression, "Europe/Berlin", BEGIN)
        first = next_instant(schedule, BEGIN)
        assert first is not None
        now = first + down
        passed = fires(expression, "Europe/Berlin", first, now + 1) if down < HOUR else None
        due = due_of(schedule, first, now)
        following = next_instant(schedule, now)
        assert due.next_at == following
        assert due.tick <= now
        assert next_instant(schedule, due.tick) == following, "nothing lies between the tick and the next"
        if passed is not None:
            assert due == Due(passed[-1], following or 0, min(len(passed) - 1, MISSED_MAX))
        assert due.missed <= MISSED_MAX


def test_an_unknown_zone_is_a_refusal_that_names_it() -> None:
    for name in ("Europe/Atlantis", "Europe", "US", "Europe/../Berlin"):
        with pytest.raises(RefusedError, match="timezone"):
            next_instant(Schedule("0 0 * * *", name, 0), BEGIN)


def test_the_year_is_walked_as_it_is() -> None:
    """The independent computation is itself sound: Berlin has two odd days, and one hour of the year after."""
    days: dict[object, int] = {}
    for _, clock in wall_clock("Europe/Berlin"):
        days[clock.date()] = days.get(clock.date(), 0) + 1
    assert sum(days.values()) == timedelta(days=365) // timedelta(minutes=5)
    assert sorted(set(days.values())) == [12, 23 * 12, 24 * 12, 25 * 12]
