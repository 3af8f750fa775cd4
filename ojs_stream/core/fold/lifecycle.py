"""Cancel, activate, promote, and what happens to dead letters."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Raw

from ojs_stream.core.commands import (
    Activate,
    Adopt,
    Cancel,
    Command,
    DeleteDead,
    Promote,
    Reprioritize,
    RetryDead,
    RetryJob,
)
from ojs_stream.core.fold.checkpoints import adopt_checkpoint
from ojs_stream.core.fold.jobs import (
    about,
    answer,
    change,
    ensure_queue,
    here,
    insert,
    is_expired,
    legal,
    make_available,
    not_found,
    remove,
    send_away,
    send_on,
    store,
    total_over,
)
from ojs_stream.core.fold.leases import promote
from ojs_stream.core.fold.watchers import is_watched, tell
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import JobRecord, Moved, public_json
from ojs_stream.core.states import TERMINAL
from ojs_stream.core.times import iso
from ojs_stream.core.world import World
from ojs_stream.errors import RefusedError


def cancel(world: World, command: Cancel) -> Outcome | None:
    """To ``cancelled`` from every state that is not final; the worker of an active job learns it later."""
    record = here(world, command.job_id, command)
    if record is None:
        return None
    legal(record, "cancel")
    before = record.job.state
    return answer(cancelled(world, record, command.actor, command.reason), previous_state=before)


def cancel_here(world: World, command: Cancel) -> None:
    """As ``cancel``, for a job of this home that may have come to its end, or gone, meanwhile."""
    record = world.job(command.job_id)
    if isinstance(record, Moved):
        world.message(record.moved, command)
    elif record is not None and record.job.state not in TERMINAL:
        cancelled(world, record, command.actor, command.reason)


def cancelled(world: World, record: JobRecord, actor: str, reason: str) -> JobRecord:
    """To ``cancelled``."""
    moved = change(
        record,
        {
            "state": "cancelled",
            "cancelled_at": iso(world.now),
            "worker_id": None,
            "next_attempt_at": None,
            "next_retry_at": None,
        },
        {"since": world.now, "due": 0, "lease": 0, "timeout_at": 0},
    )
    store(world, moved)
    job = moved.job
    world.tally(job.queue, "totals", "cancelled", 1)
    data = about(job, cancelled_by=actor, reason=reason or None)
    world.emit("job.cancelled", job.id, data, moved)
    return moved


def activate(world: World, command: Activate) -> Outcome | None:
    """From ``pending`` to ``available``."""
    record = here(world, command.job_id, command)
    if record is None:
        return None
    legal(record, "activate")
    moved = make_available(world, record, activated_at=iso(world.now))
    return answer(moved, previous_state="pending")


def promote_retry(world: World, command: Promote) -> Outcome:
    """From the retry agent. Silently nothing when the job is elsewhere by now, or not due by the log's clock.

    Nor while nothing may start: a tick of the scheduler finds the job after the maintenance.
    """
    record = world.job(command.job_id)
    if (
        isinstance(record, JobRecord)
        and record.job.state == "retryable"
        and record.job.attempt == command.attempt
        and record.ctl.due <= world.now
        and world.maintenance is None
    ):
        promote(world, record)
        return Outcome(data={"moved": 1})
    return Outcome(data={"moved": 0})


def _dead(world: World, job_id: str, command: Command) -> JobRecord | None:
    record = here(world, job_id, command)
    if record is not None and not (record.ctl.dead and record.job.state == "discarded"):
        raise not_found(job_id)
    return record


def retry_dead(world: World, command: RetryDead) -> Outcome | None:
    """A dead letter back to work: attempt 0, no errors, optionally another queue, args, meta, priority, retry."""
    record = _dead(world, command.job_id, command)
    if record is None:
        return None
    _in_time(world, record)
    revived = _revived(world, record, command)
    home = world.home_of(revived.job.queue)
    if home == world.home:
        ensure_queue(world, revived.job.queue)
        return answer(make_available(world, revived, reason="dead_letter_retry"))
    sent = send_away(world, revived, before="discarded")
    return Outcome(jobs=(Raw(public_json(sent)),))


def _in_time(world: World, record: JobRecord) -> None:
    """Refuse to put back what its own time limit would discard again at once."""
    if is_expired(record, world.now) or total_over(record, world.now):
        raise RefusedError(
            "conflict",
            f"Job '{record.job.id}' is over its expires_at or total_timeout: enqueue it anew.",
            details={"job_id": record.job.id, "current_state": record.job.state},
        )


def retry_job(world: World, command: RetryJob) -> Outcome | None:
    """An operator's retry, from ``discarded`` (dead or not), ``cancelled`` or ``retryable``."""
    record = here(world, command.job_id, command)
    if record is None:
        return None
    legal(record, "retry")
    before = record.job.state
    return answer(retried(world, record), previous_state=before)


def retried(world: World, record: JobRecord) -> JobRecord:
    """A job that ended begins anew; one that waits for its next attempt gets it now."""
    _in_time(world, record)
    if record.job.state == "retryable":
        return make_available(world, record, reason="retried")
    return make_available(world, anew(world, record), reason="retried")


def reprioritize(world: World, command: Reprioritize) -> Outcome | None:
    """Another priority, in the job's old place among its equals."""
    record = here(world, command.job_id, command)
    if record is None:
        return None
    legal(record, "reprioritize")
    before = record.job.priority
    if before == command.priority:
        return answer(record, previous_priority=before)
    moved = store(world, change(record, {"priority": command.priority}, {}))
    job = moved.job
    data = about(job, priority=job.priority, previous_priority=before, new_priority=job.priority)
    world.emit("priority.changed", job.id, data, moved)
    return answer(moved, previous_priority=before)


def anew(world: World, record: JobRecord) -> JobRecord:
    """The job as if it had never been tried."""
    moment = iso(world.now)
    job: dict[str, Any] = {
        "attempt": 0,
        "error": None,
        "errors": (),
        "completed_at": None,
        "cancelled_at": None,
        "discarded_at": None,
        "started_at": None,
        "retry_delay_ms": None,
        "re_enqueued_at": moment,
    }
    return change(record, job, {"dead": False, "replays": record.ctl.replays + 1})


def _revived(world: World, record: JobRecord, command: RetryDead) -> JobRecord:
    job: dict[str, Any] = {"state": "available", "enqueued_at": iso(world.now)}
    ctl: dict[str, Any] = {"since": world.now, "enqueued": world.now}
    if command.queue:
        job["queue"] = command.queue
    if command.args is not UNSET:
        job["args"] = command.args
    if command.meta is not UNSET:
        job["meta"] = command.meta
    if command.priority is not None:
        job["priority"] = command.priority
    if command.retry is not None:
        job["max_attempts"] = command.retry.max_attempts
        ctl["retry"] = command.retry
    return change(anew(world, record), job, ctl)


def adopt(world: World, command: Adopt) -> Outcome | None:
    """Message: a job that moved here, to the tail of its queue, or that only passes by."""
    if command.route:
        send_on(world, command.record, command.route, before=command.before, checkpoint=command.checkpoint)
        return None
    record = insert(world, command.record)
    adopt_checkpoint(world, record, command)
    if command.before is not None and is_watched(record):
        tell(world, record, command.before)
    return None


def delete_dead(world: World, command: DeleteDead) -> Outcome | None:
    """The dead letter and all that belongs to it go."""
    record = _dead(world, command.job_id, command)
    if record is None:
        return None
    remove(world, record)
    return Outcome()
