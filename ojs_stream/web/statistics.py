"""Views of statistics: as it is now, and as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import reduce
from typing import Any

import msgspec

from ojs_stream import stamp
from ojs_stream.core.envelope import bad_field
from ojs_stream.core.names import check_queue
from ojs_stream.core.records import Counts, Minute, QueueRecord, Totals
from ojs_stream.core.times import iso, parse_duration
from ojs_stream.core.world import added
from ojs_stream.web import queues, workers
from ojs_stream.web.answer import Answer
from ojs_stream.web.middleware import Call
from ojs_stream.web.requests import instant_of, whole_of

MINUTE_MS = 60_000
HOUR_MIN = 60
DAY_MIN = 1_440
PERIODS = {"1m": 1, "5m": 5, "1h": HOUR_MIN, "1d": DAY_MIN}
"""name -> minutes"""
SINCE_MIN = {"1m": HOUR_MIN, "5m": HOUR_MIN, "1h": DAY_MIN, "1d": 30 * DAY_MIN}
"""How far back an answer goes that is not told."""
MINUTES_KEPT_MIN = 60
"""So long there are minutes; before it there are hours."""
DAYS_KEPT_MIN = 31 * DAY_MIN
ROWS = 10
ROWS_MAX = 1_000


# -- now ------------------------------------------------------------------------------------------------------


async def stats(call: Call) -> Answer:
    """GET /admin/stats?queue -> ``{queues, workers, jobs: {8 states}, throughput, uptime_seconds}``.

    With ``detail=true`` ``queues`` is a list of the deepest ones, as ``ojs debug bottleneck`` reads it.
    """
    return call.json(await stats_of(call))


async def stats_of(call: Call) -> dict[str, Any]:
    """How things are now."""
    now_ms = stamp.now_ms()
    names = await _names(call)
    records, minutes, living = await asyncio.gather(
        call.ctx.queries.queues.records(names),
        call.ctx.queries.queues.minute(names, now_ms // MINUTE_MS - 1),
        _living(call, now_ms),
    )
    known = [record for record in records if record]
    return {
        "queues": await _detail(call, known) if call.request.query.get("detail") == "true" else len(names),
        "workers": living,
        "jobs": _sum([record.counts for record in known]),
        "throughput": throughput(minutes, now_ms),
        "uptime_seconds": _uptime_s(call, now_ms),
    }


async def _names(call: Call) -> list[str]:
    queue = call.request.query.get("queue")
    return [check_queue(queue)] if queue else await call.ctx.queries.queues.names()


async def _living(call: Call, now_ms: int) -> int:
    known = await call.ctx.queries.workers.all()
    return sum(workers.state_of(record, now_ms) != "stale" for record in known)


def _uptime_s(call: Call, now_ms: int) -> int:
    return max(0, now_ms - call.ctx.started_ms) // 1_000


async def _detail(call: Call, records: list[QueueRecord]) -> list[dict[str, Any]]:
    limit = whole_of(call.request, "limit", ROWS, low=1, high=ROWS_MAX)
    deepest = sorted(records, key=lambda record: -queues.depth_of(record.counts))[:limit]
    now_ms = stamp.now_ms()
    read = await asyncio.gather(*(call.ctx.queries.queues.with_minutes(record.name, now_ms) for record in deepest))
    return [_row(record, queues.last_hour(minutes)) for record, (_, minutes) in zip(deepest, read, strict=True)]


def _row(record: QueueRecord, hour: dict[str, Any]) -> dict[str, Any]:
    ended = hour["completed_last_hour"] + hour["failed_last_hour"]
    return {
        "name": record.name,
        "depth": queues.depth_of(record.counts),
        "avg_duration_ms": hour["avg_duration_ms"],
        "error_rate": hour["failed_last_hour"] / ended if ended else 0.0,
    }


def _sum(counts: Sequence[Counts]) -> dict[str, int]:
    total = msgspec.structs.asdict(Counts())
    for one in counts:
        for state, number in msgspec.structs.asdict(one).items():
            total[state] += number
    return total


def throughput(minutes: list[Minute], now_ms: int) -> dict[str, int]:
    """The last whole minute: the present one has only begun."""
    last = now_ms // MINUTE_MS - 1
    told = _together([minute for minute in minutes if minute.minute == last], last)
    return {
        "processed_per_minute": told.completed,
        "completed_per_min": told.completed,
        "failed_per_minute": told.failed,
        "failed_per_min": told.failed,
        "enqueued_per_min": told.enqueued,
        "avg_latency_ms": _mean_ms(told),
    }


def _together(spans: Sequence[Minute], name: int) -> Minute:
    return reduce(added, spans, Minute(minute=name))


def _mean_ms(span: Minute) -> int:
    """How long an attempt took: only completed ones are measured."""
    return span.duration_ms // span.completed if span.completed else 0


async def metrics(call: Call) -> Answer:
    """GET /ojs/v1/metrics -> lifetime totals and the last hour in JSON, for ``ojs metrics``."""
    if call.request.query.get("format", "json") != "json":
        raise bad_field("format", "must be json here: metrics for Prometheus are at /metrics")
    now_ms = stamp.now_ms()
    names = await call.ctx.queries.queues.names()
    records, spans, living = await asyncio.gather(
        call.ctx.queries.queues.records(names), call.ctx.queries.queues.history(names), _living(call, now_ms)
    )
    known = [record for record in records if record]
    totals = [msgspec.structs.asdict(record.totals) for record in known]
    hour = queues.last_hour([span for span in spans if span.minute > now_ms // MINUTE_MS - MINUTES_KEPT_MIN])
    jobs = {f"jobs_{name}_total": sum(one[name] for one in totals) for name in msgspec.structs.asdict(Totals())}
    return call.json(
        {
            **jobs,
            "uptime_seconds": _uptime_s(call, now_ms),
            "jobs_active": sum(record.counts.active for record in known),
            "queues_active": sum(not record.paused for record in known),
            "workers_active": living,
            "avg_latency_ms": hour["avg_duration_ms"],
            "throughput_per_second": hour["throughput_per_second"],
        }
    )


# -- before ---------------------------------------------------------------------------------------------------


async def history(call: Call) -> Answer:
    """GET /admin/stats/history?period=1m|5m|1h|1d&since&until&queue -> ``{period, data, data_points}``.

    There are minutes for an hour and hours for 31 days; latencies are means, no percentiles are kept.
    """
    period = call.request.query.get("period") or "5m"
    if period not in PERIODS:
        raise bad_field("period", f"must be one of {', '.join(PERIODS)}")
    now = stamp.now_ms() // MINUTE_MS
    first, last = _span_of(call, period, now)
    sums: dict[int, Minute] = {}
    step = PERIODS[period]
    for span in await call.ctx.queries.queues.history(await _names(call)):
        name = span.minute - span.minute % step
        if first <= name <= last:
            sums[name] = added(sums.get(name, Minute(minute=name)), span)
    points = [_point(sums.get(name, Minute(minute=name))) for name in range(first, last + 1, step)]
    return call.json({"period": period, "data": points, "data_points": points})


def _span_of(call: Call, period: str, now: int) -> tuple[int, int]:
    """The first and the last bucket, as minutes since the epoch, within what is kept."""
    step = PERIODS[period]
    kept = MINUTES_KEPT_MIN - 1 if step < HOUR_MIN else DAYS_KEPT_MIN
    since, until = _moment(call, "since", now), _moment(call, "until", now)
    last = min(now, now if until is None else until)
    first = max(now - kept, now - SINCE_MIN[period] + 1 if since is None else since)
    return first - first % step, last - last % step


def _moment(call: Call, name: str, now: int) -> int | None:
    """A timestamp, or how long ago (``2h``), in minutes since the epoch."""
    text = call.request.query.get(name)
    if not text:
        return None
    if text[:4].isdigit():
        instant = instant_of(call.request, name)
        return None if instant is None else instant // MINUTE_MS
    try:
        return now - parse_duration(text) // MINUTE_MS
    except ValueError as error:
        raise bad_field(name, str(error)) from None


def _point(span: Minute) -> dict[str, Any]:
    mean_ms = _mean_ms(span)
    return {
        "timestamp": iso(span.minute * MINUTE_MS),
        "enqueued": span.enqueued,
        "processed": span.completed,
        "completed": span.completed,
        "failed": span.failed,
        "avg_latency_ms": mean_ms,
        "latency_p50_ms": None,
    }
