"""Views of cron entries (OJS.md 5.2), with the names of both families of clients (CLIENTS.md trap 3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Raw, Struct, structs

from ojs_stream import stamp
from ojs_stream.core.bodies import parse_object_or_nothing
from ojs_stream.core.commands import Command, DeleteCron, PutCron, SwitchCron, TriggerCron
from ojs_stream.core.cron import CronRequest, check_name, is_switch, parse_change, parse_cron
from ojs_stream.core.envelope import bad_field, raw_object
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import EMPTY_OBJECT, CronRecord, CronRun, Job, decode_record
from ojs_stream.core.times import iso
from ojs_stream.errors import RefusedError
from ojs_stream.timers.instants import Schedule, next_instant, zone_of
from ojs_stream.web.answer import Answer
from ojs_stream.web.middleware import Call
from ojs_stream.web.paging import part_of
from ojs_stream.web.problems import not_found
from ojs_stream.web.replays import replay_of, told
from ojs_stream.web.requests import page_of, whole_of
from ojs_stream.web.responses import API, id_of

TRIES_MAX = 5
"""So often a change is tried that others get ahead of."""
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class _Job(Struct):
    type: str
    queue: str
    args: Raw


_job = msgspec.json.Decoder(_Job)


async def register(call: Call) -> Answer:
    """POST /cron -> 201 for a new entry, 200 for one of that name that was there: ``{cron, cron_job, ...}``."""
    body = await call.body()
    request = parse_cron(body, call.site.rules)
    command = structs.replace(_put(call, request, 0), **replay_of(call, "cron", body))
    outcome = await call.submit(call.site.home_of(request.name), command)
    status = 201 if outcome.data["created"] else 200
    headers = {"location": f"{API}/cron/{request.name}", **told(outcome)}
    return call.json(_twins(_entry_of(outcome)), status, **headers)


def _put(call: Call, request: CronRequest, changes: int) -> PutCron:
    now = stamp.now_ms()
    return PutCron(
        name=request.name,
        expression=request.expression,
        timezone=request.timezone,
        overlap=request.overlap,
        job=request.job,
        template=request.template,
        anchor=now,
        next_at=_first(Schedule(request.expression, request.timezone, now), now),
        enabled=request.enabled,
        description=request.description,
        changes=changes,
        **call.base,
    )


def _first(schedule: Schedule, now: int) -> int:
    zone_of(schedule.timezone)
    first = next_instant(schedule, now)
    if first is None:
        raise bad_field("expression", f"{schedule.expression!r} does not fire within the next 50 years")
    return first


async def list_all(call: Call) -> Answer:
    """GET /cron?enabled&limit&offset&page&per_page -> ``{crons, cron_jobs, items, count, total, pagination}``."""
    reads = call.ctx.queries.crons
    names = await reads.names()
    wanted = _flag_of(call)
    if wanted is not None:
        names = [entry.name for entry in await reads.records(names) if entry.enabled == wanted]
    part, pagination = part_of(names, page_of(call.request))
    shown = [shape(entry) for entry in await reads.records(part)]
    return call.json(
        {
            "crons": shown,
            "cron_jobs": shown,
            "items": shown,
            "count": len(shown),
            "total": pagination["total"],
            "pagination": pagination,
        }
    )


def _flag_of(call: Call) -> bool | None:
    text = call.request.query.get("enabled", "")
    if text and text not in _FLAGS:
        raise bad_field("enabled", "must be true or false")
    return _FLAGS.get(text)


async def get(call: Call) -> Answer:
    """GET /cron/{name} -> ``{cron, cron_job, ...}``."""
    return call.json(_twins(await _read(call)))


async def change(call: Call) -> Answer:
    """PATCH /cron/{name} with any fields of a registration -> ``{cron, cron_job, ...}``."""
    body = await call.body()
    enabled = is_switch(body)
    if enabled is not None:
        return await _switch(call, enabled=enabled)

    async def ask(entry: CronRecord) -> Command:
        return _put(call, parse_change(body, entry, call.site.rules), entry.version)

    return call.json(_twins(_entry_of(await _change(call, ask))))


async def pause(call: Call) -> Answer:
    """POST /cron/{name}/pause: it does not fire until it is resumed; its jobs go on."""
    parse_object_or_nothing(await call.body())
    return await _switch(call, enabled=False)


async def resume(call: Call) -> Answer:
    """POST /cron/{name}/resume: it fires again from its next instant on."""
    parse_object_or_nothing(await call.body())
    return await _switch(call, enabled=True)


async def _switch(call: Call, *, enabled: bool) -> Answer:
    async def ask(entry: CronRecord) -> Command:
        now = stamp.now_ms()
        schedule = Schedule(entry.expression, entry.timezone, entry.anchor)
        next_at = _first(schedule, now) if enabled else 0
        return SwitchCron(name=entry.name, enabled=enabled, next_at=next_at, version=entry.version, **call.base)

    return call.json(_twins(_entry_of(await _change(call, ask))))


async def _change(call: Call, ask: Callable[[CronRecord], Awaitable[Command]]) -> Outcome:
    """Submit what follows from the entry as it is; read again when somebody was faster."""
    for _ in range(TRIES_MAX - 1):
        command = await ask(await _read(call))
        try:
            return await call.submit(call.site.home_of(_name(call)), command)
        except RefusedError as refusal:
            if refusal.code != "conflict":
                raise
    return await call.submit(call.site.home_of(_name(call)), await ask(await _read(call)))


async def delete(call: Call) -> Answer:
    """DELETE /cron/{name} -> ``{cron: {name}, cron_job: {name}, deleted: true, name}``; its jobs stay."""
    parse_object_or_nothing(await call.body())
    name = _name(call)
    await call.submit(call.site.home_of(name), DeleteCron(name=name, **call.base))
    return call.json({"cron": {"name": name}, "cron_job": {"name": name}, "deleted": True, "name": name})


async def trigger(call: Call) -> Answer:
    """POST /cron/{name}/trigger -> ``{job_id, triggered, cron, ...}``: a run now, beside those of the schedule.

    ``triggered`` is false when a unique job was there already: then it is that one's id.
    """
    body = await call.body()
    parse_object_or_nothing(body)
    name = _name(call)
    command = TriggerCron(name=name, **replay_of(call, f"cron/{name}/trigger", body), **call.base)
    outcome = await call.submit(call.site.home_of(name), command)
    existing = outcome.data.get("existing", {}).get("0")
    job_id = existing or id_of(bytes(outcome.jobs[0]))
    shown = {**_twins(await _read(call)), "job_id": job_id, "triggered": existing is None}
    return call.json(shown, 200, **told(outcome))


async def history(call: Call) -> Answer:
    """GET /cron/{name}/history?limit -> ``{executions, count, name}``, newest first; the last 100 are kept."""
    entry = await _read(call)
    limit = whole_of(call.request, "limit", 50, low=1, high=200)
    runs = entry.history[:limit]
    jobs = await call.ctx.queries.jobs(run.job for run in runs if run.job)
    shown = [_execution(run, jobs[run.job][1].job if run.job in jobs else None) for run in runs]
    return call.json({"name": entry.name, "executions": shown, "count": len(shown), "total": len(entry.history)})


def _execution(run: CronRun, job: Job | None) -> dict[str, Any]:
    """An occurrence, and its job as it is by now."""
    return {
        "state": job.state if job else run.state or run.outcome,
        "started_at": job.started_at if job else None,
        "completed_at": (job.completed_at or job.cancelled_at or job.discarded_at) if job else None,
        "job_id": run.job or None,
        "scheduled_for": iso(run.due),
        "scheduled_at": iso(run.due),
        "fired_at": iso(run.at),
        "triggered_at": iso(run.at),
        "outcome": run.outcome,
        "status": run.outcome,
        "reason": run.reason or None,
        "job_state": run.state or None,
        "missed": run.missed,
    }


def _name(call: Call) -> str:
    return check_name(call.path("name"))


async def _read(call: Call) -> CronRecord:
    name = _name(call)
    entry = await call.ctx.queries.crons.record(name)
    if entry is None:
        raise not_found("cron", name)
    return entry


def _entry_of(outcome: Outcome) -> CronRecord:
    entry = decode_record(("cron", ""), bytes(outcome.jobs[0]))
    assert isinstance(entry, CronRecord)
    return entry


def _twins(entry: CronRecord) -> dict[str, Any]:
    shown = shape(entry)
    return {**shown, "cron": shown, "cron_job": shown}


def shape(entry: CronRecord) -> dict[str, Any]:
    """As clients see it: ``expression``, ``cron`` and ``schedule`` are one; so are template and fields."""
    job = _job.decode(entry.job)
    given = raw_object(entry.template)
    meta, options = (given.get(name, EMPTY_OBJECT) for name in ("meta", "options"))
    last = next((run for run in entry.history if run.job), None)
    return {
        "id": entry.name,
        "name": entry.name,
        "expression": entry.expression,
        "cron": entry.expression,
        "schedule": entry.expression,
        "timezone": entry.timezone,
        "overlap_policy": entry.overlap,
        "enabled": entry.enabled,
        "status": "active" if entry.enabled else "paused",
        "description": entry.description,
        "next_run_at": _moment(entry.next_at if entry.enabled else 0),
        "last_run_at": _moment(entry.last_run),
        "run_count": entry.runs,
        "created_at": iso(entry.created),
        "updated_at": iso(entry.updated),
        "job_template": {"type": job.type, "args": job.args, "meta": meta, "options": options},
        "type": job.type,
        "args": job.args,
        "meta": meta,
        "options": options,
        "queue": job.queue,
        "last_job_id": last.job if last else None,
        "running_job_ids": [each.id for each in entry.running],
    }


def _moment(ms: int) -> str | None:
    return iso(ms) if ms else None
