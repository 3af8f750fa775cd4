"""What the three ways to enqueue share: who decides, what is refused before the log, and the jobs as answered."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from ojs_stream.core.commands import Enqueue, NewJob
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import JobRecord, public_json
from ojs_stream.core.unique import deciding_home
from ojs_stream.errors import RefusedError, UnavailableError
from ojs_stream.web.middleware import Call
from ojs_stream.web.problems import depth_headers
from ojs_stream.web.replays import NO_REPLAY, Replay, told
from ojs_stream.web.responses import id_of

NO_JOB = b"null"


async def submit_jobs(call: Call, jobs: tuple[NewJob, ...], *, batch: bool, replay: Replay = NO_REPLAY) -> Outcome:
    """Store the jobs, all or none."""
    taken = await taken_ids(call, jobs, replay)
    for place, job in enumerate(jobs):
        if job.id in taken:
            if batch:
                taken[job.id].details["index"] = place
            raise taken[job.id]
    command = Enqueue(jobs=jobs, batch=batch, **replay, **call.base)
    begun = perf_counter()
    try:
        return await call.submit(decider_of(call, command), command)
    except RefusedError as refusal:
        await name_state(call, refusal.code, refusal.details)
        raise
    finally:
        call.ctx.meter.enqueued(jobs[0].queue, perf_counter() - begun)


def decider_of(call: Call, command: Enqueue) -> int:
    """The home that needs the fewest hops: of the key, else of the first chosen id, lock or queue."""
    if command.replay:
        return call.site.home_of(command.replay)
    return deciding_home(command.jobs, call.ctx.homes)


async def taken_ids(call: Call, jobs: Sequence[NewJob], replay: Replay) -> dict[str, RefusedError]:
    """By chosen id that a job has already its refusal: server-made ids are not in the id index of the fold.

    Nothing, if the request came before: then these may be its own jobs, and the fold knows the answer.
    """
    chosen = [job.id for job in jobs if job.client_id]
    try:
        found = await call.ctx.queries.jobs(chosen) if chosen else {}
    except UnavailableError:
        # An id is held for a job that is not there yet: perhaps by the first of these requests.
        if replay and await call.ctx.queries.replayed(replay["replay"]):
            return {}
        raise
    if found and replay and await call.ctx.queries.replayed(replay["replay"]):
        return {}
    return {job_id: _taken(job_id, record) for job_id, (_, record) in found.items()}


def _taken(job_id: str, record: JobRecord) -> RefusedError:
    return RefusedError(
        "duplicate",
        f"a job with the id {job_id} exists already",
        details={"existing_job_id": job_id, "existing_job_state": record.job.state},
    )


async def name_state(call: Call, code: str, details: dict[str, Any]) -> None:
    """The id index knows only that a job exists; clients are told its state as well."""
    if code == "duplicate" and "existing_job_id" in details and "existing_job_state" not in details:
        found = await call.ctx.queries.job(str(details["existing_job_id"]))
        if found:
            details["existing_job_state"] = found[1].job.state


async def jobs_of(call: Call, outcome: Outcome) -> list[bytes]:
    """The jobs of an enqueue in order, ``null`` for one that was refused.

    A unique job that was there before is read. So are all of a repeat: it is answered what they are by now, and
    of those that are gone since the little that the key remembers.
    """
    raws = [bytes(raw) for raw in outcome.jobs]
    existing: dict[str, str] = outcome.data.get("existing", {})
    replayed = bool(outcome.data.get("replayed"))
    if not (existing or replayed):
        return raws
    wanted = {place: id_of(raw) for place, raw in enumerate(raws) if raw != NO_JOB} if replayed else {}
    own = {id_of(raw): raw for raw in raws if raw != NO_JOB}
    wanted.update((int(place), job_id) for place, job_id in existing.items())
    unknown = [job_id for job_id in wanted.values() if replayed or job_id not in own]
    found = await call.ctx.queries.jobs(unknown) if unknown else {}
    for place, job_id in wanted.items():
        if job_id in found:
            raws[place] = public_json(found[job_id][1])
        elif job_id in own:
            raws[place] = own[job_id]
        elif replayed:
            raws[place] = b'{"id":"' + job_id.encode() + b'"}'
        else:
            raise UnavailableError(f"job {job_id} with the same unique key is coming or going, repeat")
    return raws


def headers_of(outcome: Outcome) -> dict[str, str]:
    """Whether it is the answer of a request before, and a warning of a queue that is nearly full."""
    about = outcome.data.get("pressure")
    return {**told(outcome), **(depth_headers(about) if about else {})}
