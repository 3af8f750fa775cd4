"""The same change for many jobs of one home, in one bounded command (OJS.md 5.7)."""

from __future__ import annotations

from ojs_stream.core.commands import Bulk
from ojs_stream.core.fold.jobs import is_expired, remove, total_over
from ojs_stream.core.fold.lifecycle import cancelled, retried
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import JobRecord
from ojs_stream.core.states import is_legal
from ojs_stream.core.world import World

BULK_JOBS_MAX = 1_000
"""So many jobs one command changes."""


def bulk(world: World, command: Bulk) -> Outcome:
    """``data``: ids that are ``done``, ``skipped`` (id -> why), and ``missing`` (not at this home)."""
    job_ids = command.job_ids[:BULK_JOBS_MAX]
    world.require([("job", job_id) for job_id in job_ids])
    done: list[str] = []
    skipped: dict[str, str] = {}
    missing: list[str] = []
    for job_id in job_ids:
        record = world.job(job_id)
        if not isinstance(record, JobRecord):
            missing.append(job_id)
        elif reason := _obstacle(world, record, command):
            skipped[job_id] = reason
        else:
            _change(world, record, command)
            done.append(job_id)
    return Outcome(data={"done": done, "skipped": skipped, "missing": missing})


def _obstacle(world: World, record: JobRecord, command: Bulk) -> str:
    """Why the job stays as it is."""
    state = record.job.state
    if state not in command.states or not is_legal(command.action, state):
        return f"the job is {state}"
    if command.action == "retry" and (is_expired(record, world.now) or total_over(record, world.now)):
        return "the job is over its expires_at or total_timeout"
    return ""


def _change(world: World, record: JobRecord, command: Bulk) -> None:
    if command.action == "cancel":
        cancelled(world, record, command.actor, command.reason)
    elif command.action == "retry":
        retried(world, record)
    else:
        remove(world, record)
