"""``replace_except_schedule``: a unique job that waits takes the contents of a new one (OJS.md 5.3)."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from ojs_stream.core.commands import Enqueue, NewJob, Revise
from ojs_stream.core.fold.jobs import store
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import JobRecord, Moved, own
from ojs_stream.core.states import State
from ojs_stream.core.world import World, system_command

REVISABLE: frozenset[State] = frozenset(("scheduled", "available", "retryable", "pending"))


def revise(world: World, command: Revise) -> Outcome | None:
    """Message from the home that has decided. A job that has begun to run meanwhile is replaced after all."""
    record = world.job(command.job_id)
    if isinstance(record, Moved):
        world.message(record.moved, command)
    elif isinstance(record, JobRecord) and record.job.state in REVISABLE:
        store(world, _revised(record, command.job))
    else:
        _replace_instead(world, command.job)
    return None


def _revised(record: JobRecord, new: NewJob) -> JobRecord:
    """What the job does is new; who it is and when it runs stays."""
    job: dict[str, Any] = {
        "args": new.args.copy(),
        "meta": new.meta.copy(),
        "priority": new.priority,
        "max_attempts": new.retry.max_attempts,
        "timeout_ms": new.timeout_ms,
        "visibility_timeout_ms": new.visibility_timeout_ms,
    }
    control = structs.replace(record.ctl, retry=new.retry, retention=new.retention)
    return JobRecord(structs.replace(record.job, **job), control, own(new.extra))


def _replace_instead(world: World, new: NewJob) -> None:
    """Nothing that was accepted is lost: the job is enqueued, in place of the one that it came too late for."""
    assert new.unique is not None
    anew = structs.replace(new, unique=structs.replace(new.unique, on_conflict="replace"))
    world.message(new.unique.home, system_command(Enqueue, jobs=(anew,)))
