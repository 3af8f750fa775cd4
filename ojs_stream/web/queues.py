"""Views of queues: list, one, statistics, pause and resume."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from ojs_stream import stamp
from ojs_stream.core.bodies import parse_object_or_nothing
from ojs_stream.core.commands import Drain, Pause, Resume
from ojs_stream.core.config import layered
from ojs_stream.core.config_shown import shown as shown_config
from ojs_stream.core.config_shown import system_config
from ojs_stream.core.names import check_queue
from ojs_stream.core.records import ConfigRecord, Counts, Minute, QueueRecord, Totals
from ojs_stream.core.times import iso
from ojs_stream.core.validation import TIMEOUT_MS, VISIBILITY_MS
from ojs_stream.web.answer import Answer
from ojs_stream.web.middleware import Call
from ojs_stream.web.paging import part_of
from ojs_stream.web.problems import not_found
from ojs_stream.web.requests import page_of

HOUR_S = 3_600


async def list_queues(call: Call) -> Answer:
    """GET /queues -> ``{queues: [{name, status, paused, created_at, counts, depth}], pagination}``."""
    names, pagination = part_of(await call.ctx.queries.queues.names(), page_of(call.request))
    reads = call.ctx.queries.queues
    records, configs = await asyncio.gather(reads.records(names), reads.configs(names))
    shown = [
        shape(name, record, config, call.ctx.started_ms)
        for name, record, config in zip(names, records, configs, strict=True)
    ]
    return call.json({"queues": shown, "total": pagination["total"], "pagination": pagination})


async def get(call: Call) -> Answer:
    """GET /queues/{name} -> ``{queue: {name, ...}, ...}``; 404 for a queue that was never seen."""
    name = name_of(call)
    reads = call.ctx.queries.queues
    record, (config,) = await asyncio.gather(reads.record(name), reads.configs((name,)))
    if record is None:
        raise not_found("queue", name)
    shown = shape(name, record, config, call.ctx.started_ms)
    return call.json({"queue": shown, **shown, "config": in_force(call, config)})


async def stats(call: Call) -> Answer:
    """GET /queues/{name}/stats -> one body for every client (OJS.md 2.5); zeros for an unknown queue."""
    name = name_of(call)
    now_ms = stamp.now_ms()
    reads = call.ctx.queries.queues
    (record, minutes), (config,) = await asyncio.gather(reads.with_minutes(name, now_ms), reads.configs((name,)))
    counts = record.counts if record else Counts()
    flat = msgspec.structs.asdict(counts)
    depth = depth_of(counts)
    bound = config.max_size if config else None
    named = {"name": name, **flat, "paused": bool(record and record.paused), "depth": depth}
    return call.json(
        {
            **named,
            "queue": name if call.sdk else named,
            "status": status_of(record, config),
            "stats": {
                "queue": name,
                "depth": depth,
                "max_depth": bound or None,
                **flat,
                "dead": counts.discarded,
                **last_hour(minutes),
            },
            "totals": msgspec.structs.asdict(record.totals if record else Totals()),
            "computed_at": iso(now_ms),
        }
    )


async def priority_stats(call: Call) -> Answer:
    """GET /queues/{name}/priority-stats -> ``{queue, distribution: [{priority, count}], total}``."""
    name = name_of(call)
    counts = await call.ctx.queries.queues.priorities(name)
    return call.json(
        {
            "queue": name,
            "distribution": [{"priority": priority, "count": count} for priority, count in counts.items()],
            "counts_by_priority": {str(priority): count for priority, count in counts.items()},
            "total": sum(counts.values()),
        }
    )


async def pause(call: Call) -> Answer:
    """POST /queues/{name}/pause -> ``{queue: {name, paused, status, paused_at}}``."""
    return _told(call, await set_paused(call, paused=True))


async def resume(call: Call) -> Answer:
    """POST /queues/{name}/resume -> ``{queue: {name, paused, status, resumed_at}}``; it ends draining as well."""
    return _told(call, await set_paused(call, paused=False))


async def drain(call: Call) -> Answer:
    """POST /queues/{name}/drain -> ``{queue: {name, status: draining, ...}}``: no more jobs from clients."""
    name = name_of(call)
    parse_object_or_nothing(await call.body())
    outcome = await call.submit(call.site.home_of(name), Drain(queue=name, **call.base))
    shown = {"name": name, **outcome.data, "status": "draining"}
    return call.json({"queue": shown, **shown})


async def set_paused(call: Call, *, paused: bool) -> dict[str, Any]:
    """Pause or resume the queue of the path; what its home says of it."""
    name = name_of(call)
    parse_object_or_nothing(await call.body())
    command = Pause(queue=name, **call.base) if paused else Resume(queue=name, **call.base)
    outcome = await call.submit(call.site.home_of(name), command)
    return {"name": name, "paused": paused, **outcome.data}


def _told(call: Call, data: dict[str, Any]) -> Answer:
    shown = {**data, "status": "paused" if data["paused"] else "active"}
    return call.json({"queue": shown, **shown})


def name_of(call: Call) -> str:
    """The checked queue name of the path."""
    return check_queue(call.path("name"), "the queue's name")


def depth_of(counts: Counts) -> int:
    """Jobs that wait or run."""
    return counts.available + counts.active + counts.scheduled + counts.retryable + counts.pending


def status_of(record: QueueRecord | None, config: ConfigRecord | None) -> str:
    """``draining`` (also while it is being deleted), ``paused`` or ``active``."""
    if config is not None and config.draining:
        return "draining"
    return "paused" if record is not None and record.paused else "active"


def in_force(call: Call, config: ConfigRecord | None) -> dict[str, Any]:
    """The whole configuration in force: what no configuration says is the server's."""
    rules = call.site.rules
    system = system_config(rules.retention, rules.retry, timeout_ms=TIMEOUT_MS, visibility_ms=VISIBILITY_MS)
    return shown_config(layered(config, system))


def shape(name: str, record: QueueRecord | None, config: ConfigRecord | None, started_ms: int) -> dict[str, Any]:
    """A queue as clients see it; ``default`` is listed before its first job."""
    counts = record.counts if record else Counts()
    status = status_of(record, config)
    shown = {
        "name": name,
        "status": status,
        "state": status,
        "paused": bool(record and record.paused),
        "created_at": record.created_at if record else iso(started_ms),
        "depth": depth_of(counts),
        "running": counts.active,
        "counts": msgspec.structs.asdict(counts),
    }
    if record and record.paused_at:
        shown["paused_at"] = record.paused_at
    return shown


def last_hour(minutes: list[Minute]) -> dict[str, Any]:
    """What happened in the last hour, from its minutes."""
    completed = sum(minute.completed for minute in minutes)
    failed = sum(minute.failed for minute in minutes)
    started = sum(minute.started for minute in minutes)
    return {
        "completed_last_hour": completed,
        "failed_last_hour": failed,
        # Only completed attempts are measured.
        "avg_duration_ms": sum(minute.duration_ms for minute in minutes) // completed if completed else 0,
        "avg_wait_ms": sum(minute.wait_ms for minute in minutes) // started if started else 0,
        "throughput_per_second": round(completed / HOUR_S, 3),
    }
