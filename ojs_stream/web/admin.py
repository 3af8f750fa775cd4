"""Views for operators: lists in the admin shape, pausing, directives to workers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
from msgspec import UnsetType

from ojs_stream import stamp
from ojs_stream.core.bodies import parse_directive, parse_object_or_nothing
from ojs_stream.core.commands import Direct
from ojs_stream.core.names import check_worker
from ojs_stream.core.policy import policy_fields
from ojs_stream.core.records import ConfigRecord, JobRecord, Minute, QueueRecord, public_json
from ojs_stream.core.states import STATES, TERMINAL
from ojs_stream.errors import RefusedError
from ojs_stream.store.scans import SCAN_MAX
from ojs_stream.web import queues, workers
from ojs_stream.web.addressing import find_job
from ojs_stream.web.answer import Answer
from ojs_stream.web.dead_letter import dead_listing, dead_stats
from ojs_stream.web.jobs import filter_of, listing
from ojs_stream.web.middleware import Call
from ojs_stream.web.paging import part_of
from ojs_stream.web.problems import not_found
from ojs_stream.web.requests import page_of
from ojs_stream.web.responses import with_fields
from ojs_stream.web.statistics import throughput

PER_PAGE = 20
PER_PAGE_MAX = 100
EXPORT_MAX = SCAN_MAX
"""So many jobs a list with ``limit`` shows at most; what is longer than a page is named ``jobs``."""
UNFINISHED = tuple(state for state in STATES if state not in TERMINAL)


# ------------------------------------------------------------------ queues


async def list_queues(call: Call) -> Answer:
    """GET /admin/queues -> ``{items: [{name, state, counts, throughput, paused}], pagination}``."""
    page = page_of(call.request, default=PER_PAGE, limit_max=PER_PAGE_MAX)
    names, pagination = part_of(await call.ctx.queries.queues.names(), page)
    now_ms = stamp.now_ms()
    reads = call.ctx.queries.queues
    configs, answers = await asyncio.gather(
        reads.configs(names), asyncio.gather(*(reads.with_minutes(name, now_ms) for name in names))
    )
    items = [
        _queue(call, name, record, minutes, config)
        for name, (record, minutes), config in zip(names, answers, configs, strict=True)
    ]
    return call.json({"items": items, "pagination": pagination})


async def get_queue(call: Call) -> Answer:
    """GET /admin/queues/{name} -> one queue, with its configuration and its oldest available job."""
    return call.json(await queue_detail(call, queues.name_of(call)))


async def queue_detail(call: Call, name: str) -> dict[str, Any]:
    """Everything about one queue; 404 for one that was never seen."""
    reads = call.ctx.queries.queues
    (record, minutes), (config,) = await asyncio.gather(
        reads.with_minutes(name, stamp.now_ms()), reads.configs((name,))
    )
    if record is None:
        raise not_found("queue", name)
    head = await reads.oldest_available(name)
    oldest = await call.ctx.queries.job(head[1]) if head else None
    return {
        **_queue(call, name, record, minutes, config),
        "oldest_available_at": oldest[1].job.enqueued_at if oldest else None,
        "configuration": queues.in_force(call, config),
    }


def _queue(
    call: Call, name: str, record: QueueRecord | None, minutes: list[Minute], config: ConfigRecord | None
) -> dict[str, Any]:
    shown = queues.shape(name, record, config, call.ctx.started_ms)
    hour = queues.last_hour(minutes)
    return {
        **shown,
        "throughput": {**throughput(minutes, stamp.now_ms()), **hour},
        "latency_ms": {"avg": hour["avg_duration_ms"]},
    }


async def pause_queue(call: Call) -> Answer:
    """POST /admin/queues/{name}/pause -> the bare ``{name, paused, paused_at}``."""
    return call.json(await queues.set_paused(call, paused=True))


async def resume_queue(call: Call) -> Answer:
    """POST /admin/queues/{name}/resume -> the bare ``{name, paused, resumed_at}``."""
    return call.json(await queues.set_paused(call, paused=False))


# ------------------------------------------------------------------ jobs and dead letters


async def list_jobs(call: Call) -> Answer:
    """GET /admin/jobs?queue&state&type&page&per_page -> ``{items, total, pagination}``.

    ``ojs migrate export`` asks with ``limit=10000`` instead of ``per_page``, and reads ``jobs``.
    """
    query = call.request.query
    export = "limit" in query and "per_page" not in query
    page = page_of(call.request, default=PER_PAGE, limit_max=EXPORT_MAX if export else PER_PAGE_MAX)
    wanted = filter_of(call)
    if not wanted.states and query.get("exclude_terminal") in ("true", "1"):
        wanted = replace(wanted, states=UNFINISHED)
    found = await call.ctx.queries.list_jobs(wanted, page)
    return call.answer(listing("jobs" if page.limit > PER_PAGE_MAX else "items", found, page))


async def get_job(call: Call) -> Answer:
    """GET /admin/jobs/{id} -> the bare job with ``metadata`` (timeline), ``errors``, ``retry_policy``."""
    _, record = await find_job(call, call.path("id"))
    more: dict[str, Any] = {"retry_policy": policy_fields(record.ctl.retry)}
    if not record.job.errors:
        more["errors"] = []
    if isinstance(record.extra, UnsetType) or b'"metadata"' not in bytes(record.extra):
        more["metadata"] = _timeline(record)
    return call.answer(with_fields(public_json(record), **more))


def _timeline(record: JobRecord) -> dict[str, str]:
    fields = msgspec.structs.asdict(record.job)
    return {name: at for name, at in fields.items() if name.endswith("_at") and at}


async def list_dead(call: Call) -> Answer:
    """GET /admin/dead-letter -> ``{items, total, pagination}``."""
    return call.answer(await dead_listing(call, "items"))


async def stats_dead(call: Call) -> Answer:
    """GET /admin/dead-letter/stats."""
    return call.json(await dead_stats(call))


# ------------------------------------------------------------------ workers


async def list_workers(call: Call) -> Answer:
    """GET /admin/workers -> ``{items, summary, pagination}``."""
    return call.json(await workers.worker_list(call))


async def get_worker(call: Call) -> Answer:
    """GET /admin/workers/{id} -> the bare worker."""
    return call.json(workers.shape(await workers.known(call, call.path("id")), stamp.now_ms()))


async def quiet_worker(call: Call) -> Answer:
    """POST /admin/workers/{id}/quiet: no more jobs, told at the next heartbeat."""
    return await _direct(call, "quiet")


async def terminate_worker(call: Call) -> Answer:
    """POST /admin/workers/{id}/terminate: finish and stop, told at the next heartbeat."""
    return await _direct(call, "terminate")


async def resume_worker(call: Call) -> Answer:
    """POST /admin/workers/{id}/resume: take jobs again."""
    return await _direct(call, "running")


async def direct_workers(call: Call) -> Answer:
    """POST /admin/workers/directive ``{directive: quiet|resume|terminate, worker_ids?}`` -> who was told.

    Without ``worker_ids`` it is for every worker that beats.
    """
    directive, named = parse_directive(await call.body())
    now_ms = stamp.now_ms()
    ids = named or tuple(
        record.id for record in await call.ctx.queries.workers.all() if workers.state_of(record, now_ms) != "stale"
    )
    told = [worker_id for worker_id in ids if await _is_told(call, worker_id, directive)]
    missing = [worker_id for worker_id in ids if worker_id not in told]
    return call.json({"directive": directive, "matched": len(ids), "workers": told, "missing": missing})


async def _is_told(call: Call, worker_id: str, directive: str) -> bool:
    try:
        await _tell(call, worker_id, directive)
    except RefusedError as refusal:
        if refusal.code != "not_found":
            raise
        return False
    return True


async def _direct(call: Call, directive: str) -> Answer:
    worker_id = check_worker(call.path("id"))
    parse_object_or_nothing(await call.body())
    told = await _tell(call, worker_id, directive)
    return call.json({"id": worker_id, "worker_id": worker_id, "state": told, "directive": told})


async def _tell(call: Call, worker_id: str, directive: str) -> str:
    command = Direct(worker_id=worker_id, directive=directive, **call.base)
    outcome = await call.submit(call.site.home_of(worker_id), command)
    call.site.resting.pop(worker_id, None)
    return str(outcome.data.get("directive", directive))
