"""Claim, ack, nack, heartbeat, give back: what workers do with jobs (OJS.md 3.3, 4.1-4.4)."""

from __future__ import annotations

from msgspec import Raw, structs

from ojs_stream.core.commands import Ack, Claim, Extend, GiveBack, Nack
from ojs_stream.core.fold import checkpoints, limits
from ojs_stream.core.fold.jobs import (
    Failure,
    about,
    answer,
    change,
    discard,
    expire,
    here,
    is_expired,
    legal,
    make_available,
    owned,
    remember,
    retry_later,
    store,
    total_over,
)
from ojs_stream.core.fold.progress import finished
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import JobRecord, Key, QueueRecord
from ojs_stream.core.retry import delay_ms, matches_non_retryable
from ojs_stream.core.times import iso
from ojs_stream.core.world import World

PROMOTED_MAX = 100
"""So many due jobs one claim promotes in passing, per state."""
EXPIRED_MAX = 100
"""So many expired jobs one claim discards in passing."""
LOOK_MAX = 1_000
"""A claim of more jobs looks at so many at a time."""
SHUTDOWN_TYPES = frozenset({"shutdown", "ShutdownError", "ShutdownTimeout"})


def claim(world: World, command: Claim) -> Outcome:
    """Lease up to ``count`` jobs; ``outcome.jobs`` are they."""
    if world.maintenance is not None:
        return Outcome()
    claimed: list[Raw] = []
    for name in command.queues:
        room = command.count - len(claimed)
        if room <= 0:
            break
        queue = world.queue(name)
        if queue is None or queue.paused:
            continue
        _promote_due(world, queue)
        started = _claim_from(world, name, min(room, limits.claimable(world, queue)), command)
        limits.count_starts(world, name, len(started))
        claimed.extend(started)
    return Outcome(jobs=tuple(claimed))


def _promote_due(world: World, queue: QueueRecord) -> None:
    for state in ("scheduled", "retryable"):
        if not world.count_in(queue, state):
            continue
        for _, job_id in _due(world, ("state", queue.name, state)):
            record = world.job(job_id)
            assert isinstance(record, JobRecord)
            promote(world, record)


def _due(world: World, index: Key) -> list[tuple[int, str]]:
    due = world.due(index, PROMOTED_MAX)
    world.require([("job", job_id) for _, job_id in due])
    return due


def promote(world: World, record: JobRecord) -> JobRecord:
    """A scheduled or retryable job whose time has come; an expired one is discarded instead."""
    if is_expired(record, world.now) or total_over(record, world.now):
        return expire(world, record)
    return make_available(world, record)


def _claim_from(world: World, queue: str, room: int, command: Claim) -> list[Raw]:
    claimed: list[Raw] = []
    expired = 0
    ready = ("state", queue, "available")
    while len(claimed) < room and expired < EXPIRED_MAX:
        head = world.head(ready, min(room - len(claimed), LOOK_MAX))
        if not head:
            break
        world.require([("job", job_id) for _, job_id in head])
        for _, job_id in head:
            record = world.job(job_id)
            assert isinstance(record, JobRecord)
            if is_expired(record, world.now) or total_over(record, world.now):
                expire(world, record)
                expired += 1
            else:
                claimed.append(checkpoints.job_with_checkpoint(world, _lease(world, record, command)))
    return claimed


def _lease(world: World, record: JobRecord, command: Claim) -> JobRecord:
    job, now = record.job, world.now
    lease_ms = command.visibility_ms or job.visibility_timeout_ms
    leased = change(
        record,
        {
            "state": "active",
            "attempt": job.attempt + 1,
            "started_at": iso(now),
            "worker_id": command.worker_id or None,
        },
        {
            "since": now,
            "lease": now + lease_ms,
            "lease_ms": lease_ms,
            "timeout_at": now + job.timeout_ms,
            "progress": None,
        },
    )
    store(world, leased)
    wait = max(0, now - (record.ctl.enqueued or now))
    world.tally_minute(job.queue, started=1, wait_ms=wait)
    data = about(leased.job, worker_id=leased.job.worker_id, attempt=leased.job.attempt)
    world.emit("job.started", job.id, data, leased)
    return leased


def ack(world: World, command: Ack) -> Outcome | None:
    """The job is completed."""
    record = here(world, command.job_id, command)
    if record is None:
        return None
    legal(record, "ack")
    owned(record, command.worker_id)
    now = world.now
    took = max(0, now - record.ctl.since)
    done = change(
        record,
        {"state": "completed", "completed_at": iso(now), "result": command.result, "error": None},
        {"since": now, "lease": 0, "timeout_at": 0, "progress": finished(record.ctl.progress)},
    )
    store(world, done)
    job = done.job
    world.tally_minute(job.queue, completed=1, duration_ms=took)
    data = about(job, attempt=job.attempt, worker_id=job.worker_id, duration_ms=took, result=job.result)
    world.emit("job.completed", job.id, data, done)
    return answer(done)


def nack(world: World, command: Nack) -> Outcome | None:
    """The job failed: back to its queue, a later attempt, or the end (OJS.md 3.3, in that order)."""
    record = here(world, command.job_id, command)
    if record is None:
        return None
    legal(record, "nack")
    owned(record, command.worker_id)
    failure = Failure(
        code=command.code,
        type=command.type,
        message=command.message,
        retryable=command.retryable,
        details=command.details,
        backtrace=command.backtrace,
    )
    limits.told_to_wait(world, record, command.limit_until, command.message)
    if command.requeue:
        return answer(make_available(world, record, reason="requeued", **remember(world, record, failure)))
    end = _verdict(world, record, command)
    if end == "retry":
        return answer(retry_later(world, record, failure, command.dice))
    return answer(discard(world, record, failure, dead=end == "dead_letter"))


def _verdict(world: World, record: JobRecord, command: Nack) -> str:
    """``retry``, ``discard`` or ``dead_letter``."""
    policy = record.ctl.retry
    if command.code in ("DISCARD", "FAIL"):
        return "discard"
    if command.code == "DEAD_LETTER":
        return "dead_letter"
    if command.type not in SHUTDOWN_TYPES:
        names = (command.type, command.error_class, command.code)
        if command.retryable is False or matches_non_retryable(policy, *names):
            return policy.on_exhaustion
    return exhausted(world, record, command.dice)


def exhausted(world: World, record: JobRecord, dice: float) -> str:
    """``retry`` while attempts are left and the next one fits into the total time, else what the policy says."""
    policy, total = record.ctl.retry, record.ctl.total_timeout_ms
    if record.job.attempt >= policy.max_attempts:
        return policy.on_exhaustion
    if total:
        # A timeout as long as the total comes from it (or is no bound of its own): only the wait must fit then.
        run = record.job.timeout_ms if record.job.timeout_ms < total else 0
        if record.ctl.created + total < world.now + delay_ms(policy, record.job.attempt, dice) + run:
            return policy.on_exhaustion
    return "retry"


def give_back(world: World, command: GiveBack) -> Outcome:
    """The client never got its jobs: each returns to its old place."""
    world.require([("job", job_id) for job_id in command.job_ids])
    for job_id in command.job_ids:
        record = world.job(job_id)
        if not isinstance(record, JobRecord) or record.job.state != "active":
            continue
        if (record.job.worker_id or "") == command.worker_id:
            make_available(world, record, reason="given_back", keep_place=True)
    return Outcome()


def extend(world: World, command: Extend) -> Outcome:
    """Heartbeat: ``data`` lists the ids ``extended`` and, for the worker to stop, the ``cancelled``."""
    world.require([("job", job_id) for job_id in command.job_ids])
    extended, cancelled = [], []
    for job_id in command.job_ids:
        record = world.job(job_id)
        if not isinstance(record, JobRecord):
            continue
        if record.job.state == "cancelled":
            cancelled.append(job_id)
        elif record.job.state == "active" and record.job.worker_id in (None, command.worker_id):
            _extend(world, record, command.visibility_ms)
            extended.append(job_id)
    return Outcome(data={"extended": extended, "cancelled": cancelled})


def _extend(world: World, record: JobRecord, visibility_ms: int) -> None:
    lease = world.now + (visibility_ms or record.ctl.lease_ms)
    store(world, JobRecord(record.job, structs.replace(record.ctl, lease=lease), record.extra))
