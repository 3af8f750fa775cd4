"""Timestamps and durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ojs_stream.core.times import DURATION_MS_MAX, format_duration, iso, parse_duration, parse_timestamp

instants = st.integers(0, 253_402_300_799_999)


@given(instants)
def test_an_instant_survives_being_written_and_read(ms: int) -> None:
    assert parse_timestamp(iso(ms)) == ms


@given(instants)
def test_instants_sort_as_text(ms: int) -> None:
    assert len(iso(ms)) == len("2030-01-31T12:00:00.000Z")
    assert iso(ms) <= iso(min(ms + 1, 253_402_300_799_999))


@given(st.integers(0, DURATION_MS_MAX))
def test_a_duration_survives_being_written_and_read(ms: int) -> None:
    assert parse_duration(format_duration(ms)) == ms


@given(*[st.integers(0, 99)] * 4)
def test_the_parts_of_a_duration_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"P{days}DT{hours}H{minutes}M{seconds}S"
    assert parse_duration(text) == (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("PT1S", 1000),
        ("PT0.25S", 250),
        ("PT1.5S", 1500),
        ("P1D", 86_400_000),
        ("P2W", 14 * 86_400_000),
        ("P1M", 30 * 86_400_000),
        ("P1Y", 365 * 86_400_000),
        ("PT1H30M", 5_400_000),
        ("30s", 30_000),
        ("5m", 300_000),
        ("250ms", 250),
        ("1.5h", 5_400_000),
    ],
)
def test_durations(text: str, ms: int) -> None:
    assert parse_duration(text) == ms


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "1", "PT1", "-PT1S", "P1S", "PT1S ", "pt1s", "1 s", "P101Y", "PT1H1H"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01t00:00:00.123z", 123),
        ("1970-01-01 00:00:00.1Z", 100),
        ("1970-01-01T00:00:00.123456789Z", 123),
        ("2099-12-31T23:59:59Z", 4_102_444_799_000),
    ],
)
def test_timestamps(text: str, ms: int) -> None:
    assert parse_timestamp(text) == ms


@pytest.mark.parametrize(
    "text", ["", "2030-01-31", "2030-01-31T12:00:00", "2030-13-01T00:00:00Z", "2030-02-30T00:00:00Z", "now", "1e9"]
)
def test_what_is_no_timestamp(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the standard library's sentence is as good as ours
        parse_timestamp(text)
