"""Views of what became of a job: its result, its failed attempts, its history."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct

from ojs_stream.core.policy import policy_fields
from ojs_stream.core.records import ErrorEntry, JobRecord
from ojs_stream.core.states import TERMINAL
from ojs_stream.core.times import parse_timestamp
from ojs_stream.errors import RefusedError
from ojs_stream.web.addressing import find_job
from ojs_stream.web.answer import Answer
from ojs_stream.web.middleware import Call
from ojs_stream.web.requests import whole_of

WAIT_S = 30
WAIT_S_MAX = 60
PAUSE_S = 0.02
PAUSE_S_MAX = 0.5
_FIRST = frozenset(("job.enqueued", "job.scheduled", "job.pending"))
_YES = frozenset(("true", "1"))


# -- result ---------------------------------------------------------------------------------------------------


async def result(call: Call) -> Answer:
    """GET /jobs/{id}/result?wait&timeout -> ``{job_id, state, result, error, completed_at}``.

    With ``wait=true`` once the job is over, or 408 after ``timeout`` seconds.
    """
    job_id = call.path("id")
    _, record = await find_job(call, job_id)
    if call.request.query.get("wait") in _YES:
        record = await _ended(call, record, whole_of(call.request, "timeout", WAIT_S, low=0, high=WAIT_S_MAX))
    job = record.job
    return call.json(
        {
            "job_id": job.id,
            "id": job.id,
            "state": job.state,
            "attempt": job.attempt,
            "result": job.result if job.result is not UNSET else None,
            "error": job.error if job.state != "completed" else None,
            "completed_at": job.completed_at or job.cancelled_at or job.discarded_at,
        }
    )


async def _ended(call: Call, record: JobRecord, within_s: int) -> JobRecord:
    deadline, pause_s = monotonic() + within_s, PAUSE_S
    while record.job.state not in TERMINAL:
        left_s = deadline - monotonic()
        if left_s <= 0 or call.gone():
            raise RefusedError(
                "timeout",
                f"job {record.job.id} is still {record.job.state} after {within_s} s",
                details={"job_id": record.job.id, "current_state": record.job.state},
            )
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, PAUSE_S_MAX)
        _, record = await find_job(call, record.job.id)
    return record


# -- attempts -------------------------------------------------------------------------------------------------


async def retries(call: Call) -> Answer:
    """GET /jobs/{id}/retries -> ``{job_id, attempt, max_attempts, retries: [{attempt, error, ...}], policy}``.

    ``error`` is a text, as the CLI reads it; ``failure`` is the whole of it. ``started_at`` is null when the event
    of the start is not among the kept ones any more.
    """
    home, record = await find_job(call, call.path("id"))
    job = record.job
    starts = await _starts(call, home, record) if job.errors else {}
    shown: list[dict[str, Any]] = [_attempt(one, starts.get(one.attempt)) for one in job.errors]
    if shown and job.next_attempt_at:
        shown[-1]["next_retry_at"] = job.next_attempt_at
    return call.json(
        {
            "job_id": job.id,
            "state": job.state,
            "attempt": job.attempt,
            "max_attempts": job.max_attempts,
            "retries": shown,
            "total": len(shown),
            "policy": policy_fields(record.ctl.retry),
        }
    )


async def _starts(call: Call, home: int, record: JobRecord) -> dict[int, str]:
    """When attempts began, as far as events of the job are kept."""
    raws = await _told_at(call, home, record)
    return {one.data.attempt: one.time for one in map(_event.decode, raws) if one.type == "job.started"}


def _attempt(failure: ErrorEntry, started_at: str | None) -> dict[str, Any]:
    return {
        "attempt": failure.attempt,
        "state": "failed",
        "error": f"{failure.code}: {failure.message}",
        "failure": failure,
        "started_at": started_at,
        "failed_at": failure.occurred_at,
    }


# -- history --------------------------------------------------------------------------------------------------


class _Failed(Struct):
    code: str = ""
    message: str = ""


class _Data(Struct):
    state: str = ""
    attempt: int = 0
    error: _Failed | None = None
    last_error: _Failed | None = None


class _Event(Struct):
    id: str
    type: str
    time: str
    data: _Data


_event = msgspec.json.Decoder(_Event)


async def history(call: Call) -> Answer:
    """GET /jobs/{id}/history, /events/{id}/history -> ``{events: [{type, state, timestamp, event}], complete}``.

    From the last 10,000 events of the job's homes: ``complete`` says whether its first one is among them.
    """
    job_id, raws = await _events_of(call)
    told = [_event.decode(raw) for raw in raws]
    shown = [
        {"id": one.id, "type": one.type, "state": one.data.state, "timestamp": one.time, "event": raw}
        for one, raw in zip(told, raws, strict=True)
    ]
    complete = bool(told) and told[0].type in _FIRST
    return call.json({"job_id": job_id, "events": shown, "total": len(shown), "complete": complete})


async def trace(call: Call) -> Answer:
    """GET /admin/jobs/{id}/trace -> ``{snapshots: [{phase, state, timestamp, duration, duration_ms, error}]}``.

    ``duration`` is the time since the snapshot before.
    """
    job_id, raws = await _events_of(call)
    shown: list[dict[str, Any]] = []
    before = 0
    for one in map(_event.decode, raws):
        at = parse_timestamp(one.time)
        took_ms = max(0, at - before) if before else 0
        before = at
        failed = one.data.error or one.data.last_error
        shown.append(
            {
                "phase": one.type,
                "state": one.data.state,
                "timestamp": one.time,
                "duration": f"{took_ms}ms",
                "duration_ms": took_ms,
                "error": f"{failed.code}: {failed.message}" if failed else "",
            }
        )
    return call.json({"job_id": job_id, "snapshots": shown})


async def _events_of(call: Call) -> tuple[str, list[Raw]]:
    job_id = call.path("id")
    home, record = await find_job(call, job_id)
    return job_id, await _told_at(call, home, record)


async def _told_at(call: Call, home: int, record: JobRecord) -> list[Raw]:
    return await call.ctx.queries.events.of_subject({home, *record.ctl.origins}, record.job.id)
