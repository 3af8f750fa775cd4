"""Views of dead letters: jobs that failed for good and were kept for a person to look at."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from ojs_stream.core.bodies import parse_object_or_nothing, parse_revive
from ojs_stream.core.commands import DeleteDead, RetryDead
from ojs_stream.core.records import JobRecord, public_json
from ojs_stream.store.queries import JobFilter
from ojs_stream.store.scans import SCAN_MAX, Found, Page
from ojs_stream.web.addressing import find_job, submit_to_job
from ojs_stream.web.answer import Answer
from ojs_stream.web.jobs import page_of_jobs
from ojs_stream.web.middleware import Call
from ojs_stream.web.problems import not_found
from ojs_stream.web.requests import instant_of, page_of
from ojs_stream.web.responses import job_body, with_fields

LIMIT_MAX = 1_000


async def list_dead(call: Call) -> Answer:
    """GET /dead-letter?queue&type&error_type&since&until&limit&cursor -> ``{jobs, total, pagination}``."""
    return call.answer(await dead_listing(call, "jobs"))


async def dead_listing(call: Call, name: str) -> bytes:
    """A page of dead letters; ``total_attempts`` is what the JavaScript SDK calls their ``attempt``."""
    found, page = await find_dead(call)
    raws = [with_fields(public_json(record), total_attempts=record.job.attempt) for record in found.records]
    return page_of_jobs(name, raws, found, page)


async def find_dead(call: Call) -> tuple[Found, Page]:
    """The dead letters that the query asks for, newest first."""
    query = call.request.query
    wanted = JobFilter(
        queue=query.get("queue") or None,
        type=query.get("type") or None,
        error_type=query.get("error_type") or None,
        since=instant_of(call.request, "since"),
        until=instant_of(call.request, "until"),
    )
    page = page_of(call.request, limit_max=LIMIT_MAX)
    return await call.ctx.queries.dead_letters(wanted, page), page


async def get(call: Call) -> Answer:
    """GET /dead-letter/{id} -> ``{job}``; 404 for a job that is not dead."""
    job_id = call.path("id")
    _, record = await find_job(call, job_id)
    if not is_dead(record):
        raise not_found("dead letter", job_id)
    return call.answer(job_body(public_json(record)))


def is_dead(record: JobRecord) -> bool:
    """Whether a job is among the dead letters."""
    return record.ctl.dead and record.job.state == "discarded"


async def retry(call: Call) -> Answer:
    """POST /dead-letter/{id}/retry ``{override?}`` -> ``{job}``, available again with attempt 0."""
    job_id = call.path("id")
    override = parse_revive(await call.body())
    command = RetryDead(
        job_id=job_id,
        queue=override.queue,
        args=override.args,
        meta=override.meta,
        priority=override.priority,
        retry=override.retry,
        **call.base,
    )
    outcome = await submit_to_job(call, job_id, command)
    return call.answer(job_body(bytes(outcome.jobs[0])))


async def delete(call: Call) -> Answer:
    """DELETE /dead-letter/{id} -> ``{deleted: true, job_id}``."""
    parse_object_or_nothing(await call.body())
    job_id = call.path("id")
    await submit_to_job(call, job_id, DeleteDead(job_id=job_id, **call.base))
    return call.json({"deleted": True, "job_id": job_id})


async def stats(call: Call) -> Answer:
    """GET /dead-letter/stats -> totals by queue, type and error type, over the newest 10,000."""
    return call.json(await dead_stats(call))


async def dead_stats(call: Call) -> dict[str, Any]:
    """What the dead letters are; ``counted`` says how many of them the totals by kind cover."""
    found = await call.ctx.queries.dead_letters(JobFilter(), Page(limit=SCAN_MAX))
    jobs = [record.job for record in found.records]
    times = sorted(job.discarded_at for job in jobs if job.discarded_at)
    return {
        "total": found.total,
        "counted": len(jobs),
        "by_queue": Counter(job.queue for job in jobs),
        "by_type": Counter(job.type for job in jobs),
        "by_error_type": Counter(job.error.type for job in jobs if job.error),
        "oldest_at": times[0] if times else None,
        "newest_at": times[-1] if times else None,
        "retention": msgspec.structs.asdict(call.ctx.retention)["dead_ms"],
    }
