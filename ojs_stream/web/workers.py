"""Views of workers: ack, nack, heartbeat, registry. Fetch has its own module."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from ojs_stream import stamp
from ojs_stream.core.bodies import AckRequest, BeatRequest, NackRequest, parse_ack, parse_beat, parse_nack
from ojs_stream.core.commands import Ack, Nack, RemoveWorker
from ojs_stream.core.names import check_worker
from ojs_stream.core.records import WorkerRecord
from ojs_stream.core.times import iso
from ojs_stream.errors import UnavailableError
from ojs_stream.web import beats
from ojs_stream.web.addressing import submit_to_job
from ojs_stream.web.answer import Answer
from ojs_stream.web.middleware import Call
from ojs_stream.web.paging import part_of
from ojs_stream.web.problems import not_found
from ojs_stream.web.requests import page_of

HEARTBEAT_INTERVAL_S = 5
HEARTBEAT_TIMEOUT_S = 30
VISIBILITY_S = 1_800
_DRAINING = frozenset(("drain", "draining", "shutting_down"))


class _Brief(msgspec.Struct):
    """The few fields of a job that stand at the top of an ack or nack answer."""

    id: str
    state: str
    attempt: int
    max_attempts: int
    completed_at: str | None = None
    discarded_at: str | None = None
    next_attempt_at: str | None = None
    retry_delay_ms: int | None = None


_brief = msgspec.json.Decoder(_Brief)


async def ack(call: Call) -> Answer:
    """POST /workers/ack -> ``{acknowledged, id, job_id, state, completed_at, job}``."""
    return await _ack(call, parse_ack(await call.body(), result_bytes_max=call.ctx.limits.result_bytes_max))


async def ack_job(call: Call) -> Answer:
    """POST /jobs/{id}/ack: the same, with the id in the path."""
    bound = call.ctx.limits.result_bytes_max
    return await _ack(call, parse_ack(await call.body(), result_bytes_max=bound, job_id=call.path("id")))


async def _ack(call: Call, given: AckRequest) -> Answer:
    command = Ack(job_id=given.job_id, worker_id=given.worker_id, result=given.result, **call.base)
    raw = bytes((await submit_to_job(call, given.job_id, command)).jobs[0])
    brief = _brief.decode(raw)
    top = {
        "acknowledged": True,
        "id": brief.id,
        "job_id": brief.id,
        "state": brief.state,
        "completed_at": brief.completed_at,
    }
    return call.answer(_with_job(top, raw))


async def nack(call: Call) -> Answer:
    """POST /workers/nack -> ``{id, job_id, state, attempt, max_attempts, next_attempt_at?, ..., job}``."""
    return await _nack(call, parse_nack(await call.body()))


async def nack_job(call: Call) -> Answer:
    """POST /jobs/{id}/nack: the same, with the id in the path."""
    return await _nack(call, parse_nack(await call.body(), job_id=call.path("id")))


async def _nack(call: Call, given: NackRequest) -> Answer:
    failure = given.failure
    command = Nack(
        job_id=given.job_id,
        worker_id=given.worker_id,
        requeue=given.requeue,
        code=failure.code,
        type=failure.type,
        message=failure.message,
        retryable=failure.retryable,
        details=failure.details,
        backtrace=failure.backtrace,
        error_class=failure.error_class,
        limit_until=failure.limit_until,
        dice=stamp.dice(),
        **call.base,
    )
    raw = bytes((await submit_to_job(call, given.job_id, command)).jobs[0])
    brief = msgspec.structs.asdict(_brief.decode(raw))
    top = {"job_id": brief["id"], **{name: value for name, value in brief.items() if value is not None}}
    return call.answer(_with_job(top, raw))


def _with_job(top: dict[str, Any], raw: bytes) -> bytes:
    return msgspec.json.encode(top)[:-1] + b',"job":' + raw + b"}"


# ------------------------------------------------------------------ heartbeat


async def heartbeat(call: Call) -> Answer:
    """POST /workers/heartbeat -> ``{state, directive, jobs_extended, jobs_cancelled, server_time}``."""
    return call.json(await _beaten(call, parse_beat(await call.body())))


async def beat(call: Call) -> Answer:
    """POST /workers/beat: a heartbeat that is acknowledged in so many words."""
    return call.json({"acknowledged": True, **await _beaten(call, parse_beat(await call.body()))})


async def _beaten(call: Call, given: BeatRequest) -> dict[str, Any]:
    known = beats.Extended()
    extending = call.site.spawn(beats.extend(call, given, known))
    keeping = call.site.spawn(_directive(call, given))
    await asyncio.wait((extending, keeping), timeout=beats.ANSWER_WITHIN_S)
    extended = _succeeded(extending)
    kept = _succeeded(keeping)
    if not (extended or known.answered) or not (kept or given.job_ids):
        raise UnavailableError("no home answered this heartbeat", unknown=True)
    state = keeping.result() if kept else "running"
    return {
        "state": state,
        "directive": state,
        "worker_id": given.worker_id,
        "jobs_extended": known.extended,
        "jobs_cancelled": known.cancelled,
        "server_time": iso(stamp.now_ms()),
    }


def _succeeded(task: asyncio.Task[Any]) -> bool:
    """Whether the work is done; silence and an unavailable home are a no, any other error is raised."""
    if not task.done():
        return False
    error = task.exception()
    if error and not isinstance(error, UnavailableError):
        raise error
    return error is None


async def _directive(call: Call, given: BeatRequest) -> str:
    directive = await beats.keep_record(call, given)
    if call.ctx.test_mode:
        directive = beats.stronger(directive, await beats.test_directive(call, given.worker_id))
    return directive


# ------------------------------------------------------------------ registry


async def register(call: Call) -> Answer:
    """POST /workers/register -> ``{ok, worker_id, state, server_time, heartbeat_interval, ...}``."""
    given = parse_beat(await call.body())
    directive = await beats.keep_record(call, given, always=True)
    return call.json(
        {
            "ok": True,
            "worker_id": given.worker_id,
            "state": directive,
            "server_time": iso(stamp.now_ms()),
            "heartbeat_interval": HEARTBEAT_INTERVAL_S,
            "heartbeat_timeout": HEARTBEAT_TIMEOUT_S,
            "visibility_timeout_default": VISIBILITY_S,
        }
    )


async def deregister(call: Call) -> Answer:
    """POST /workers/deregister ``{worker_id}``."""
    return await _removed(call, parse_beat(await call.body()).worker_id)


async def remove(call: Call) -> Answer:
    """DELETE /workers/{id}."""
    return await _removed(call, check_worker(call.path("id")))


async def _removed(call: Call, worker_id: str) -> Answer:
    await call.submit(call.site.home_of(worker_id), RemoveWorker(worker_id=worker_id, **call.base))
    call.site.resting.pop(worker_id, None)
    return call.json({"ok": True, "worker_id": worker_id, "server_time": iso(stamp.now_ms())})


async def list_workers(call: Call) -> Answer:
    """GET /workers -> ``{workers, items, summary, pagination}``."""
    return call.json(await worker_list(call))


async def get(call: Call) -> Answer:
    """GET /workers/{id} -> ``{worker, ...}``."""
    shown = shape(await known(call, call.path("id")), stamp.now_ms())
    return call.json({"worker": shown, **shown})


async def health(call: Call) -> Answer:
    """GET /workers/{id}/health -> 200, or 503 once it drains or is silent."""
    shown = shape(await known(call, call.path("id")), stamp.now_ms())
    healthy = shown["state"] in ("running", "quiet")
    return call.json(
        {"worker_id": shown["id"], "state": shown["state"], "last_heartbeat_at": shown["last_heartbeat_at"]},
        200 if healthy else 503,
    )


async def known(call: Call, worker_id: str) -> WorkerRecord:
    """The record of a worker, or 404."""
    record = await call.ctx.queries.workers.record(worker_id)
    if record is None:
        raise not_found("worker", worker_id)
    return record


async def worker_list(call: Call) -> dict[str, Any]:
    """Every worker with the summary that the admin UI shows."""
    now_ms = stamp.now_ms()
    shown = [shape(record, now_ms) for record in await call.ctx.queries.workers.all()]
    states = [worker["state"] for worker in shown]
    part, pagination = part_of(shown, page_of(call.request))
    summary = {"total": len(shown), **{name: states.count(name) for name in ("running", "quiet", "stale")}}
    return {"items": part, "workers": part, "summary": summary, "pagination": pagination}


def shape(record: WorkerRecord, now_ms: int) -> dict[str, Any]:
    """A worker as clients see it."""
    labels = record.labels
    return {
        "id": record.id,
        "worker_id": record.id,
        "state": state_of(record, now_ms),
        "reported_state": record.reported,
        "directive": record.directive,
        "hostname": record.hostname,
        "pid": record.pid,
        "queues": record.queues,
        "concurrency": record.concurrency,
        "active_jobs": record.active_jobs,
        "started_at": record.started_at,
        "last_heartbeat_at": record.last_heartbeat_at,
        "last_heartbeat": record.last_heartbeat_at,
        "version": record.version,
        "labels": labels if labels is not msgspec.UNSET else {},
        "metadata": {},
    }


def state_of(record: WorkerRecord, now_ms: int) -> str:
    """``stale`` when silent, ``drain`` when it says so, else what is asked of it."""
    if record.silent or now_ms - record.beat > record.dead_after_ms:
        return "stale"
    if record.reported in _DRAINING:
        return "drain"
    return beats.stronger(record.directive, record.reported)
