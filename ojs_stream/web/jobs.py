"""Views of jobs: enqueue, batch, read, list, cancel, activate."""

from __future__ import annotations

from ojs_stream.core.bodies import parse_object_or_nothing, parse_reason
from ojs_stream.core.commands import Activate, Cancel, Enqueue, NewJob
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import public_json
from ojs_stream.core.unique import deciding_home
from ojs_stream.core.validation import parse_batch, parse_job
from ojs_stream.errors import RefusedError, UnavailableError
from ojs_stream.store.queries import JobFilter
from ojs_stream.store.scans import Found, Page
from ojs_stream.web.addressing import find_job, submit_to_job
from ojs_stream.web.answer import Answer
from ojs_stream.web.middleware import Call
from ojs_stream.web.paging import pagination_of
from ojs_stream.web.requests import page_of, states_of
from ojs_stream.web.responses import API, id_of, job_body, jobs_body, page_body, with_fields


async def enqueue(call: Call) -> Answer:
    """POST /jobs -> 201 ``{job, id, type, state, queue}``, Location; 200 with ``deduplicated`` if it was there."""
    job = parse_job(await call.body(), call.site.rules, call.site.new_job_id)
    outcome = await _submit(call, (job,), batch=False)
    (raw,) = await _jobs_of(call, outcome)
    location = f"{API}/jobs/{id_of(raw)}"
    if "existing" in outcome.data:
        return call.answer(with_fields(job_body(raw), deduplicated=True), 200, location=location)
    return call.answer(job_body(raw), 201, location=location)


async def enqueue_batch(call: Call) -> Answer:
    """POST /jobs/batch -> 201 ``{jobs, count}`` in the order of the request; all or none.

    In the place of a job that was not stored, since a unique one is there already, stands that one.
    """
    jobs = parse_batch(await call.body(), call.site.rules, call.site.new_job_id)
    outcome = await _submit(call, jobs, batch=True)
    return call.answer(jobs_body(await _jobs_of(call, outcome), counted=True), 201)


async def _jobs_of(call: Call, outcome: Outcome) -> list[bytes]:
    """The jobs of an enqueue, in order; those that were there before are read."""
    raws = [bytes(raw) for raw in outcome.jobs]
    existing: dict[str, str] = outcome.data.get("existing", {})
    if not existing:
        return raws
    known = {id_of(raw): raw for place, raw in enumerate(raws) if str(place) not in existing}
    found = await call.ctx.queries.jobs(job_id for job_id in existing.values() if job_id not in known)
    known.update((job_id, public_json(record)) for job_id, (_, record) in found.items())
    for place, job_id in existing.items():
        if job_id not in known:
            # Removed since it was named, or not yet at its home.
            raise UnavailableError(f"job {job_id} with the same unique key is coming or going, repeat")
        raws[int(place)] = known[job_id]
    return raws


async def _submit(call: Call, jobs: tuple[NewJob, ...], *, batch: bool) -> Outcome:
    chosen = [job.id for job in jobs if job.client_id]
    if chosen:
        await _refuse_existing(call, chosen)
    home = deciding_home(jobs, call.ctx.homes)
    try:
        return await call.submit(home, Enqueue(jobs=jobs, batch=batch, **call.base))
    except RefusedError as refusal:
        await _name_state(call, refusal)
        raise


async def _name_state(call: Call, refusal: RefusedError) -> None:
    """The id index knows only that a job exists; clients are told its state as well."""
    details = refusal.details
    if refusal.code == "duplicate" and "existing_job_id" in details and "existing_job_state" not in details:
        found = await call.ctx.queries.job(str(refusal.details["existing_job_id"]))
        if found:
            refusal.details["existing_job_state"] = found[1].job.state


async def _refuse_existing(call: Call, chosen: list[str]) -> None:
    """Server-made ids are not in the id index that the fold checks, so a read looks for them first."""
    for job_id, (_, record) in (await call.ctx.queries.jobs(chosen)).items():
        raise RefusedError(
            "duplicate",
            f"a job with the id {job_id} exists already",
            details={"existing_job_id": job_id, "existing_job_state": record.job.state},
        )


async def get(call: Call) -> Answer:
    """GET /jobs/{id} -> ``{job, ...}``."""
    _, record = await find_job(call, call.path("id"))
    return call.answer(job_body(public_json(record)))


async def list_jobs(call: Call) -> Answer:
    """GET /jobs?queue&state&type&limit&cursor -> ``{jobs, total, pagination}``."""
    page = page_of(call.request)
    found = await call.ctx.queries.list_jobs(filter_of(call), page)
    return call.answer(listing("jobs", found, page))


async def cancel(call: Call) -> Answer:
    """DELETE /jobs/{id}?reason, POST /jobs/{id}/cancel -> ``{job: {..., previous_state}}``."""
    reason = call.request.query.get("reason") or parse_reason(await call.body())
    job_id = call.path("id")
    outcome = await submit_to_job(call, job_id, Cancel(job_id=job_id, reason=reason[:1_000], **call.base))
    return _changed(call, outcome)


async def activate(call: Call) -> Answer:
    """POST /jobs/{id}/activate -> ``{job: {..., previous_state}}``."""
    parse_object_or_nothing(await call.body())
    job_id = call.path("id")
    return _changed(call, await submit_to_job(call, job_id, Activate(job_id=job_id, **call.base)))


def _changed(call: Call, outcome: Outcome) -> Answer:
    return call.answer(job_body(bytes(outcome.jobs[0]), previous_state=outcome.data.get("previous_state")))


def filter_of(call: Call) -> JobFilter:
    """The filters of a job list, from the query."""
    query = call.request.query
    return JobFilter(
        queue=query.get("queue") or None, states=states_of(call.request), type=query.get("type") or None
    )


def listing(name: str, found: Found, page: Page) -> bytes:
    """A page of jobs with its pagination."""
    raws = [public_json(record) for record in found.records]
    return page_body(
        name, raws, {"total": found.total, "pagination": pagination_of(found.total, page, found.next_cursor)}
    )
