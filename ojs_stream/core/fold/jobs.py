"""Moves of one job that more than one command makes. Each keeps record, counters and events together."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Raw, Struct, UnsetType, structs

from ojs_stream.core.commands import Adopt, Command, Release
from ojs_stream.core.fold.watchers import is_watched, tell, tell_removed, tell_unstored, watching_homes
from ojs_stream.core.outcomes import Effect, EventData, Outcome
from ojs_stream.core.records import (
    ERRORS_MAX,
    CheckpointRecord,
    ErrorEntry,
    Job,
    JobRecord,
    Moved,
    QueueRecord,
    own,
    public_json,
)
from ojs_stream.core.retry import delay_ms
from ojs_stream.core.states import STATES, State, is_legal
from ojs_stream.core.times import iso
from ojs_stream.core.world import World, raw, system_command
from ojs_stream.errors import RefusedError


class Failure(Struct, frozen=True, kw_only=True):
    """Why an attempt ended badly (an entry of ``errors`` before it has a place and a time)."""

    code: str
    type: str
    message: str
    retryable: bool | None = None
    details: Raw | UnsetType = UNSET
    backtrace: Raw | UnsetType = UNSET


def answer(record: JobRecord, **data: Any) -> Outcome:
    """The job after the command."""
    return Outcome(jobs=(Raw(public_json(record)),), data=data)


def not_found(job_id: str) -> RefusedError:
    """The refusal for an id that this home does not have."""
    return RefusedError(
        "not_found", f"Job '{job_id}' not found.", details={"resource_type": "job", "resource_id": job_id}
    )


def here(world: World, job_id: str, command: Command) -> JobRecord | None:
    """The job's record; ``None`` after the command was sent on to where the job has moved."""
    record = world.job(job_id)
    if isinstance(record, Moved):
        world.message(record.moved, command)
        world.reply(command.submit, Outcome(forwarded=record.moved))
        return None
    if record is None:
        raise not_found(job_id)
    return record


def owned(record: JobRecord, worker_id: str) -> None:
    """Refuse another worker's job; checked only when the worker names itself."""
    if worker_id and record.job.worker_id and record.job.worker_id != worker_id:
        raise RefusedError(
            "conflict",
            f"Job '{record.job.id}' is leased to worker '{record.job.worker_id}', not to '{worker_id}'.",
            details={"job_id": record.job.id, "worker_id": record.job.worker_id},
        )


def legal(record: JobRecord, trigger: str) -> None:
    """Refuse a transition that the table does not have."""
    if not is_legal(trigger, record.job.state):
        raise RefusedError(
            "conflict",
            f"Cannot {trigger} job '{record.job.id}': it is {record.job.state}.",
            details={"job_id": record.job.id, "current_state": record.job.state},
        )


def ensure_queue(world: World, name: str) -> QueueRecord:
    """The queue's record; a queue exists from first sight on."""
    queue = world.queue(name)
    if queue is None or queue.deleted:
        if queue is None:
            queue = QueueRecord(name=name, created_at=iso(world.now))
        else:
            queue = structs.replace(queue, created_at=iso(world.now), deleted=False)
        world.put(("queue", name), queue)
    return queue


def store(world: World, record: JobRecord) -> JobRecord:
    """Write the job, and tell who watches it."""
    key = ("job", record.job.id)
    if is_watched(record):
        before = world.get(key)
        tell(world, record, before.job.state if isinstance(before, JobRecord) else None)
    world.put(key, record)
    return record


def change(record: JobRecord, job: dict[str, Any], ctl: dict[str, Any]) -> JobRecord:
    """A copy of the record with some fields of its halves replaced."""
    return JobRecord(
        structs.replace(record.job, **job) if job else record.job,
        structs.replace(record.ctl, **ctl) if ctl else record.ctl,
        record.extra,
    )


def about(job: Job, **fields: Any) -> EventData:
    """What every job event says."""
    return EventData(job_id=job.id, job_type=job.type, queue=job.queue, state=job.state, **fields)


def insert(world: World, record: JobRecord) -> JobRecord:
    """A new job, in the state that its record already has.

    A server-made id is new. One that a client has chosen may be that of a server-made job, if nobody looked
    before: the job that is here stays.
    """
    if not record.ctl.origins:
        world.absent(("job", record.job.id))
    elif isinstance(known := world.job(record.job.id), JobRecord):
        tell_unstored(world, record)
        return known
    ensure_queue(world, record.job.queue)
    if record.job.state == "available":
        ctl = structs.replace(record.ctl, sequence=world.next_sequence(), **asking(record))
        record = JobRecord(record.job, ctl, record.extra)
    store(world, record)
    world.tally_minute(record.job.queue, enqueued=1)
    announce(world, record)
    return record


def announce(world: World, record: JobRecord, reason: str | None = None) -> None:
    """The event of entering a waiting state."""
    job = record.job
    if job.state == "available":
        data = about(job, priority=job.priority, attempt=job.attempt, reason=reason)
        world.emit("job.enqueued", job.id, data, record)
    elif job.state == "scheduled":
        world.emit("job.scheduled", job.id, about(job, scheduled_at=job.scheduled_at), record)
    elif job.state == "pending":
        world.emit("job.pending", job.id, about(job), record)


def make_available(
    world: World, record: JobRecord, *, reason: str | None = None, keep_place: bool = False, **job: Any
) -> JobRecord:
    """To ``available``: at the tail of its priority, or in its old place."""
    sequence = record.ctl.sequence if keep_place else world.next_sequence()
    moved = change(
        record,
        {
            "state": "available",
            "enqueued_at": iso(world.now),
            "worker_id": None,
            "next_attempt_at": None,
            "next_retry_at": None,
            **job,
        },
        {
            "since": world.now,
            "enqueued": world.now,
            "sequence": sequence,
            "due": 0,
            "lease": 0,
            "timeout_at": 0,
            **asking(record),
        },
    )
    store(world, moved)
    announce(world, moved, reason)
    return moved


def asking(record: JobRecord) -> dict[str, Any]:
    """The fields of ``ctl`` of a job that becomes available: under a limit it asks for a slot of it."""
    if record.ctl.limit is None:
        return {}
    return {"held": True, "ask": record.ctl.ask + 1}


def entry(world: World, record: JobRecord, failure: Failure) -> ErrorEntry:
    """The failure as an entry of the job's history."""
    moment = iso(world.now)
    return ErrorEntry(
        attempt=record.job.attempt,
        code=failure.code,
        type=failure.type,
        message=failure.message,
        occurred_at=moment,
        timestamp=moment,
        retryable=failure.retryable,
        details=own(failure.details),
        backtrace=own(failure.backtrace),
    )


def remember(world: World, record: JobRecord, failure: Failure) -> dict[str, Any]:
    """The fields ``error`` and ``errors`` after a failure."""
    last = entry(world, record, failure)
    return {"error": last, "errors": (*record.job.errors, last)[-ERRORS_MAX:]}


def failed(world: World, record: JobRecord) -> None:
    """The event and the counters of an attempt that failed."""
    job = record.job
    world.tally_minute(job.queue, failed=1)
    world.emit(
        "job.failed",
        job.id,
        about(job, attempt=job.attempt, worker_id=job.worker_id, error=job.error),
        record,
    )


def retry_later(world: World, record: JobRecord, failure: Failure, dice: float) -> JobRecord:
    """To ``retryable`` with the policy's backoff; the retry agent is told by a record in its topic."""
    wait = delay_ms(record.ctl.retry, record.job.attempt, dice)
    due = world.now + wait
    moment = iso(due)
    noted = change(record, remember(world, record, failure), {})
    failed(world, noted)
    moved = change(
        noted,
        {
            "state": "retryable",
            "retry_delay_ms": wait,
            "next_attempt_at": moment,
            "next_retry_at": moment,
            "worker_id": None,
        },
        {"since": world.now, "due": due, "lease": 0, "timeout_at": 0},
    )
    store(world, moved)
    job = moved.job
    data = about(job, attempt=job.attempt, max_attempts=job.max_attempts, next_retry_at=moment, error=job.error)
    world.emit("job.retrying", job.id, data, moved)
    world.effect(
        Effect(
            topic="retry",
            key=job.id,
            value=raw(
                {
                    "job_id": job.id,
                    "queue": job.queue,
                    "attempt": job.attempt,
                    "not_before": moment,
                    "not_before_ms": due,
                    "epoch": world.epoch,
                    "error": job.error,
                }
            ),
            headers={"ojs-job-id": job.id, "ojs-queue": job.queue, "ojs-attempt": str(job.attempt)},
        )
    )
    return moved


def discard(world: World, record: JobRecord, failure: Failure, *, dead: bool) -> JobRecord:
    """To ``discarded`` after a failure; ``dead`` puts it among the dead letters and into their topic."""
    noted = change(record, remember(world, record, failure), {})
    if record.job.state == "active":
        failed(world, noted)
    moment = iso(world.now)
    moved = change(
        noted,
        {
            "state": "discarded",
            "completed_at": moment,
            "discarded_at": moment,
            "worker_id": None,
            "next_attempt_at": None,
            "next_retry_at": None,
        },
        {"since": world.now, "dead": dead, "due": 0, "lease": 0, "timeout_at": 0},
    )
    store(world, moved)
    job = moved.job
    world.tally(job.queue, "totals", "discarded", 1)
    data = about(job, total_attempts=job.attempt, last_error=job.error)
    world.emit("job.discarded", job.id, data, moved)
    if dead:
        headers = {"ojs-job-id": job.id, "ojs-job-type": job.type, "ojs-queue": job.queue}
        world.effect(Effect(topic="dead", key=job.id, value=Raw(public_json(moved)), headers=headers))
    return moved


def expire(world: World, record: JobRecord) -> JobRecord:
    """To ``discarded`` because its time to live is over: no attempt failed, ``completed_at`` stays absent."""
    moment = iso(world.now)
    moved = change(
        record,
        {"state": "discarded", "discarded_at": moment, "next_attempt_at": None, "next_retry_at": None},
        {"since": world.now, "due": 0},
    )
    store(world, moved)
    job = moved.job
    world.tally(job.queue, "totals", "discarded", 1)
    ttl = max(0, (record.ctl.expires or world.now) - record.ctl.created)
    data = about(job, created_at=job.created_at, expired_at=moment, ttl_ms=ttl)
    world.emit("job.expired", job.id, data, moved)
    return moved


def is_expired(record: JobRecord, now: int) -> bool:
    """Whether the job's time to live is over."""
    return bool(record.ctl.expires) and record.ctl.expires <= now


def total_over(record: JobRecord, now: int) -> bool:
    """Whether the job's total timeout is over."""
    total = record.ctl.total_timeout_ms
    return bool(total) and record.ctl.created + total <= now


def remove(world: World, record: JobRecord) -> None:
    """The job's record goes, with all that other homes hold for it."""
    if is_watched(record):
        tell_removed(world, record)
    world.put(("job", record.job.id), None)
    take_checkpoint(world, record)
    queue = world.queue(record.job.queue)
    if queue is not None and queue.deleted and is_unused(world, queue.name):
        world.forget_queue(queue.name)
    for home in sorted(set(record.ctl.origins)):
        if home == world.home:
            forget(world, record.job.id)
        else:
            world.message(home, system_command(Release, ids=(record.job.id,)))


def take_checkpoint(world: World, record: JobRecord) -> CheckpointRecord | None:
    """The job leaves this home, or ends to be: its checkpoint is none of this home's any more."""
    if not record.ctl.checkpoint:
        return None
    key = ("checkpoint", record.job.id)
    checkpoint = world.find(key, CheckpointRecord)
    world.put(key, None)
    return checkpoint


def is_unused(world: World, queue: str) -> bool:
    """Whether no job of the queue is left, in whatever state."""
    return not any(world.count(queue, state) for state in STATES)


def send_away(world: World, record: JobRecord, *, before: State | None) -> JobRecord:
    """The job goes to the home of the queue that its record names; a note of where it went stays here.

    It passes by the homes of its watchers: what its next home tells them comes after what this one has told.
    """
    home = world.home_of(record.job.queue)
    watching = sorted(watching_homes(record) - {world.home, home})
    checkpoint = take_checkpoint(world, record)
    return send_on(world, record, (*watching, home), before=before, checkpoint=checkpoint)


def send_on(
    world: World,
    record: JobRecord,
    route: tuple[int, ...],
    *,
    before: State | None,
    checkpoint: CheckpointRecord | None,
) -> JobRecord:
    """To the first home of ``route``, leaving a note where it went."""
    world.put(("job", record.job.id), Moved(route[0]))
    origins = (*record.ctl.origins, world.home)
    sent = JobRecord(record.job, structs.replace(record.ctl, origins=origins), record.extra)
    onward = system_command(Adopt, record=sent, before=before, route=route[1:], checkpoint=checkpoint)
    world.message(route[0], onward)
    return sent


def forget(world: World, job_id: str) -> None:
    """Drop the id record and the ``moved`` note of a job that is gone."""
    if world.id_record(job_id) is not None:
        world.put(("id", job_id), None)
    if isinstance(world.job(job_id), Moved):
        world.put(("job", job_id), None)
