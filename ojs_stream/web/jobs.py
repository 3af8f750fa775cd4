"""Views of jobs: enqueue, batch, read, list, cancel, retry, priority, activate."""

from __future__ import annotations

from ojs_stream.core.bodies import parse_object_or_nothing, parse_priority, parse_reason
from ojs_stream.core.commands import Activate, Cancel, Reprioritize, RetryJob
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import public_json
from ojs_stream.core.validation import parse_batch, parse_job
from ojs_stream.store.queries import JobFilter
from ojs_stream.store.scans import Found, Page
from ojs_stream.web.addressing import find_job, submit_to_job
from ojs_stream.web.answer import Answer
from ojs_stream.web.enqueuing import headers_of, jobs_of, submit_jobs
from ojs_stream.web.limits import limit_header
from ojs_stream.web.middleware import Call
from ojs_stream.web.paging import pagination_of
from ojs_stream.web.replays import replay_of
from ojs_stream.web.requests import page_of, states_of
from ojs_stream.web.responses import API, id_of, job_body, jobs_body, page_body, with_fields


async def enqueue(call: Call) -> Answer:
    """POST /jobs -> 201 ``{job, id, type, state, queue}``, Location; 200 with ``deduplicated`` if it was there."""
    body = await call.body()
    job = parse_job(body, call.site.rules, call.site.new_job_id)
    outcome = await submit_jobs(call, (job,), batch=False, replay=replay_of(call, "jobs", body))
    (raw,) = await jobs_of(call, outcome)
    headers = {"location": f"{API}/jobs/{id_of(raw)}", **headers_of(outcome), **limit_header(job.limit)}
    if "existing" in outcome.data:
        return call.answer(with_fields(job_body(raw), deduplicated=True), 200, **headers)
    return call.answer(job_body(raw), 201, **headers)


async def enqueue_batch(call: Call) -> Answer:
    """POST /jobs/batch -> 201 ``{jobs, count}`` in the order of the request; all or none.

    In the place of a job that was not stored, since a unique one is there already, stands that one.
    """
    body = await call.body()
    jobs = parse_batch(body, call.site.rules, call.site.new_job_id)
    outcome = await submit_jobs(call, jobs, batch=True, replay=replay_of(call, "batch", body))
    return call.answer(jobs_body(await jobs_of(call, outcome), counted=True), 201, **headers_of(outcome))


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


async def retry(call: Call) -> Answer:
    """POST /jobs/{id}/retry, /admin/jobs/{id}/retry -> ``{job}``: a job that ended begins anew."""
    parse_object_or_nothing(await call.body())
    job_id = call.path("id")
    return _changed(call, await submit_to_job(call, job_id, RetryJob(job_id=job_id, **call.base)))


async def reprioritize(call: Call) -> Answer:
    """PATCH /jobs/{id}, /admin/jobs/{id} ``{priority}`` -> ``{job, priority, previous_priority}``."""
    priority = parse_priority(await call.body())
    job_id = call.path("id")
    outcome = await submit_to_job(call, job_id, Reprioritize(job_id=job_id, priority=priority, **call.base))
    before = outcome.data.get("previous_priority")
    body = with_fields(job_body(bytes(outcome.jobs[0])), priority=priority, previous_priority=before)
    return call.answer(body)


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
    return page_of_jobs(name, [public_json(record) for record in found.records], found, page)


def page_of_jobs(name: str, raws: list[bytes], found: Found, page: Page) -> bytes:
    """The same of jobs as they are to be shown."""
    pagination = pagination_of(found.total, page, found.next_cursor)
    return page_body(name, raws, {"total": found.total, "pagination": pagination})
