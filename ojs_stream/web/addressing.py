"""Where a command for a job goes: the home in its id; after a ``not_found``, the home that really has it."""

from __future__ import annotations

from ojs_stream.core.commands import Command
from ojs_stream.core.homes import home_in_id
from ojs_stream.core.names import is_job_id
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import JobRecord
from ojs_stream.web.middleware import Call
from ojs_stream.web.problems import not_found, raise_if_refused


async def submit_to_job(call: Call, job_id: str, command: Command) -> Outcome:
    """The outcome at the job's home. A client-supplied id has arbitrary home bits: they may be wrong."""
    if not is_job_id(job_id):
        raise not_found("job", job_id)
    home = home_in_id(job_id)
    if home >= call.ctx.homes:
        home, _ = await find_job(call, job_id)
        return await call.submit(home, command)
    outcome = await call.ctx.gateway.submit(home, command)
    if outcome.code == "not_found":
        found = await call.ctx.queries.job(job_id)
        if found and found[0] != home:
            return await call.submit(found[0], command)
    return raise_if_refused(outcome)


async def find_job(call: Call, job_id: str) -> tuple[int, JobRecord]:
    """(home, record) of a job, or 404."""
    found = await call.ctx.queries.job(job_id)
    if not found:
        raise not_found("job", job_id)
    return found


async def homes_of(call: Call, job_ids: tuple[str, ...]) -> dict[int, list[str]]:
    """Job ids by the home in their bits; if that is none, it is looked up. Unknown ids are left out."""
    homes: dict[int, list[str]] = {}
    strange: list[str] = []
    for job_id in job_ids:
        if not is_job_id(job_id):
            continue
        home = home_in_id(job_id)
        if home < call.ctx.homes:
            homes.setdefault(home, []).append(job_id)
        else:
            strange.append(job_id)
    if strange:
        for job_id, (home, _) in (await call.ctx.queries.jobs(strange)).items():
            homes.setdefault(home, []).append(job_id)
    return homes
