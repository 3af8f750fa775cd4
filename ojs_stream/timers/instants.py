"""When a cron entry fires: instants from its schedule and the machine's time zone database. No clock.

An expression that names every hour follows elapsed time: ``@hourly`` and ``*/15 * * * *`` fire through a change
of the clocks at their usual distance. Every other one names times of the day: a time that the clocks leave out
does not fire, one that they show twice fires once, the first time (ojs-cron 5.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim
from msgspec import Struct

from ojs_stream.core.cron import every_ms, fields_of
from ojs_stream.core.envelope import bad_field

MISSED_MAX = 1_000
"""So many missed instants are counted; more are "at least" so many."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class Schedule(Struct, frozen=True):
    """What an entry's instants follow from; ``@every`` counts from ``anchor`` (ms)."""

    expression: str
    timezone: str
    anchor: int


class Due(Struct, frozen=True):
    """What is to be done about an entry that is due. ``next_at`` 0: it never fires again."""

    tick: int
    next_at: int
    missed: int


def zone_of(name: str) -> ZoneInfo:
    """The zone, or a 400: this machine's database does not have it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise bad_field("timezone", f"{name!r} is not in the IANA time zone database") from None


def next_instant(schedule: Schedule, after: int) -> int | None:
    """The first instant after ``after`` (ms); ``None`` if there is none within 50 years."""
    length = every_ms(schedule.expression)
    if length is not None:
        return schedule.anchor + max((after - schedule.anchor) // length + 1, 1) * length
    fields, zone = fields_of(schedule.expression), zone_of(schedule.timezone)
    found = _elapsed(fields.text, zone, after) if fields.hourly else _by_clock(fields.text, zone, after)
    return next((at for at in found if at > after), None)


def _elapsed(text: str, zone: ZoneInfo, after: int) -> Iterator[int]:
    # With six fields cronsim goes second by second of real time, whatever the clocks show.
    for moment in CronSim(text, datetime.fromtimestamp(after // 1000, zone)):
        yield _ms_of(moment)


def _by_clock(text: str, zone: ZoneInfo, after: int) -> Iterator[int]:
    for moment in CronSim(text, datetime.fromtimestamp(after // 1000, zone).replace(tzinfo=None)):
        first = moment.replace(tzinfo=zone, fold=0)
        if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == moment:
            yield _ms_of(first)


def _ms_of(moment: datetime) -> int:
    return (moment.astimezone(UTC) - _EPOCH) // _MS


def due_of(schedule: Schedule, next_at: int, now: int) -> Due:
    """For an entry with ``next_at`` <= ``now``: its latest instant, the one after it, and how many it missed."""
    following = next_instant(schedule, now)
    tick = _latest(schedule, next_at, now)
    return Due(tick, following or 0, _count(schedule, next_at, tick))


def _latest(schedule: Schedule, known: int, now: int) -> int:
    """The last instant up to ``now``; ``known`` is one. By halves: nothing is computed backwards."""
    high = now
    while high > known:
        middle = (known + high) // 2
        at = next_instant(schedule, middle)
        if at is not None and at <= now:
            known = at
        else:
            high = middle
    return known


def _count(schedule: Schedule, first: int, last: int) -> int:
    count, at = 0, first
    while at < last and count < MISSED_MAX:
        count += 1
        at = next_instant(schedule, at) or last
    return count
