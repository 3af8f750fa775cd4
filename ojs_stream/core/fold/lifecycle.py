"""Cancel, activate, promote, and what happens to dead letters."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Raw, structs

from ojs_stream.core.commands import Activate, Adopt, Cancel, Command, DeleteDead, Promote, RetryDead
from ojs_stream.core.fold.jobs import (
    about,
    answer,
    change,
    ensure_queue,
    insert,
    legal,
    make_available,
    not_found,
    remove,
    store,
)
from ojs_stream.core.fold.leases import here, promote
from ojs_stream.core.fold.watchers import is_watched, tell, watching_homes
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import JobRecord, Moved, public_json
from ojs_stream.core.states import TERMINAL
from ojs_stream.core.times import iso
from ojs_stream.core.world import World, system_command


def cancel(world: World, command: Cancel) -> Outcome | None:
    """To ``cancelled`` from every state that is not final; the worker of an active job learns it later."""
    record = here(world, command.job_id, command)
    if record is None:
        return None
    legal(record, "cancel")
    before = record.job.state
    return answer(_cancelled(world, record, command), previous_state=before)


def cancel_here(world: World, command: Cancel) -> None:
    """As ``cancel``, for a job of this home that may have come to its end, or gone, meanwhile."""
    record = world.job(command.job_id)
    if isinstance(record, Moved):
        world.message(record.moved, command)
    elif record is not None and record.job.state not in TERMINAL:
        _cancelled(world, record, command)


def _cancelled(world: World, record: JobRecord, command: Cancel) -> JobRecord:
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
    data = about(job, cancelled_by=command.actor, reason=command.reason or None)
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
    """From the retry agent. Silently nothing when the job is elsewhere by now, or not due by the log's clock."""
    record = world.job(command.job_id)
    if (
        isinstance(record, JobRecord)
        and record.job.state == "retryable"
        and record.job.attempt == command.attempt
        and record.ctl.due <= world.now
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
    revived = _revived(world, record, command)
    home = world.home_of(revived.job.queue)
    if home == world.home:
        ensure_queue(world, revived.job.queue)
        return answer(make_available(world, revived, reason="dead_letter_retry"))
    sent = _send_on(world, revived, (*_watching(world, revived, home), home))
    return Outcome(jobs=(Raw(public_json(sent)),))


def _watching(world: World, record: JobRecord, destination: int) -> tuple[int, ...]:
    """Homes that are told of the job: what its next home tells them must come after what this one has told."""
    return tuple(sorted(watching_homes(record) - {world.home, destination}))


def _send_on(world: World, record: JobRecord, route: tuple[int, ...]) -> JobRecord:
    """To the first home of ``route``, leaving a note where it went."""
    world.put(("job", record.job.id), Moved(route[0]))
    origins = (*record.ctl.origins, world.home)
    sent = JobRecord(record.job, structs.replace(record.ctl, origins=origins), record.extra)
    world.message(route[0], system_command(Adopt, record=sent, route=route[1:]))
    return sent


def _revived(world: World, record: JobRecord, command: RetryDead) -> JobRecord:
    moment = iso(world.now)
    job: dict[str, Any] = {
        "state": "available",
        "attempt": 0,
        "error": None,
        "errors": (),
        "completed_at": None,
        "discarded_at": None,
        "started_at": None,
        "retry_delay_ms": None,
        "enqueued_at": moment,
        "re_enqueued_at": moment,
    }
    ctl: dict[str, Any] = {
        "dead": False,
        "replays": record.ctl.replays + 1,
        "since": world.now,
        "enqueued": world.now,
    }
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
    return change(record, job, ctl)


def adopt(world: World, command: Adopt) -> Outcome | None:
    """Message: a job that moved here, to the tail of its queue, or that only passes by."""
    if command.route:
        _send_on(world, command.record, command.route)
        return None
    record = insert(world, command.record)
    if is_watched(record):
        tell(world, record, "discarded")
    return None


def delete_dead(world: World, command: DeleteDead) -> Outcome | None:
    """The dead letter and all that belongs to it go."""
    record = _dead(world, command.job_id, command)
    if record is None:
        return None
    remove(world, record)
    return Outcome()
