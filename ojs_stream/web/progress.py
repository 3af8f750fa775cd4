"""Views of what a worker says of a job while it runs: progress and checkpoints."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from ojs_stream.core.bodies import parse_object_or_nothing
from ojs_stream.core.commands import DropCheckpoint, Report, SaveCheckpoint
from ojs_stream.core.fold.checkpoints import shown
from ojs_stream.core.fold.progress import percent_of
from ojs_stream.core.records import JobRecord
from ojs_stream.core.said_bodies import ReportBody, parse_checkpoint, parse_report
from ojs_stream.core.times import iso
from ojs_stream.errors import RefusedError, UnavailableError
from ojs_stream.web.addressing import find_job, submit_to_job
from ojs_stream.web.answer import Answer
from ojs_stream.web.middleware import Call

# -- progress -------------------------------------------------------------------------------------------------


async def report(call: Call) -> Answer:
    """PUT /jobs/{id}/progress ``{progress: 0-1, message?, data?, checkpoint?}`` -> ``{progress, accepted}``."""
    return await _report(call, parse_report(await call.body(), job_id=call.path("id")))


async def report_of_worker(call: Call) -> Answer:
    """POST /workers/progress ``{job_id, percentage: 0-100, message?, data?}``: the same, as the SDKs send it."""
    return await _report(call, parse_report(await call.body()))


async def _report(call: Call, said: ReportBody) -> Answer:
    command = Report(
        job_id=said.job_id,
        worker_id=said.worker_id,
        fraction=said.fraction,
        message=said.message,
        data=said.data,
        **call.base,
    )
    told = (await submit_to_job(call, said.job_id, command)).data
    if said.checkpoint is not UNSET and told["accepted"]:
        kept = SaveCheckpoint(job_id=said.job_id, worker_id=said.worker_id, state=said.checkpoint, **call.base)
        told = {**told, "checkpoint": (await submit_to_job(call, said.job_id, kept)).data}
    return call.json({**told, "percentage": percent_of(told["progress"])})


async def get(call: Call) -> Answer:
    """GET /jobs/{id}/progress -> ``{job_id, state, attempt, progress, percentage, message, data, updated_at}``."""
    _, record = await find_job(call, call.path("id"))
    return call.json(progress_of(record))


def progress_of(record: JobRecord) -> dict[str, Any]:
    """How far a job is."""
    known = record.ctl.progress
    return {
        "job_id": record.job.id,
        "state": record.job.state,
        "attempt": record.job.attempt,
        "progress": known.fraction if known else None,
        "percentage": percent_of(known.fraction) if known else None,
        "message": known.message if known else None,
        "data": known.data if known and known.data is not UNSET else None,
        "updated_at": iso(known.at) if known else None,
    }


# -- checkpoints ----------------------------------------------------------------------------------------------


async def save(call: Call) -> Answer:
    """PUT, POST /jobs/{id}/checkpoint, POST /checkpoints/{id} ``{state, step_index?, metadata?}``.

    ``{checkpoint: {job_id, sequence, created_at}, job_id, sequence, created_at}``: the specification's shape,
    and that of the suite.
    """
    given = parse_checkpoint(await call.body())
    job_id = call.path("id")
    command = SaveCheckpoint(
        job_id=job_id,
        state=given.state,
        worker_id=given.worker_id,
        step_index=given.step_index,
        metadata=given.metadata,
        **call.base,
    )
    told = (await submit_to_job(call, job_id, command)).data
    return call.json({"checkpoint": told, **told, "state": given.state})


async def checkpoint(call: Call) -> Answer:
    """GET /jobs/{id}/checkpoint -> ``{checkpoint: {job_id, state, sequence, ...}, job_id, state, ...}``."""
    job_id = call.path("id")
    body = await _stored(call, job_id)
    if body is None:
        raise RefusedError(
            "not_found",
            f"job {job_id!r} has no checkpoint",
            details={"resource_type": "checkpoint", "resource_id": job_id},
        )
    return call.answer(b'{"checkpoint":' + body + b"," + body[1:])


async def resume(call: Call) -> Answer:
    """GET /checkpoints/{id}/resume -> ``{has_checkpoint, checkpoint?}``, as the SDKs' durable contexts read it."""
    job_id = call.path("id")
    body = await _stored(call, job_id)
    if body is None:
        return call.json({"has_checkpoint": False, "job_id": job_id})
    return call.answer(b'{"has_checkpoint":true,"job_id":"' + job_id.encode() + b'","checkpoint":' + body + b"}")


async def drop(call: Call) -> Answer:
    """DELETE /jobs/{id}/checkpoint, /checkpoints/{id} -> ``{deleted: true, job_id}``, also when there was none."""
    parse_object_or_nothing(await call.body())
    job_id = call.path("id")
    await submit_to_job(call, job_id, DropCheckpoint(job_id=job_id, **call.base))
    return call.json({"deleted": True, "job_id": job_id})


async def _stored(call: Call, job_id: str) -> bytes | None:
    """The job's checkpoint as clients see it, or ``None``; 404 for a job that does not exist."""
    home, record = await find_job(call, job_id)
    if not record.ctl.checkpoint:
        return None
    found = await call.ctx.queries.checkpoint(home, job_id)
    if found is None:
        raise UnavailableError(f"job {job_id} is just moving, or its checkpoint was deleted: repeat")
    return shown(found)
