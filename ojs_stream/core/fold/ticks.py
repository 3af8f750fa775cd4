"""What happens because time passes: the scheduler's and the reaper's ticks (DESIGN.md section 9)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from ojs_stream.core.commands import Tick
from ojs_stream.core.fold import deletion, limits, locks, workflows
from ojs_stream.core.fold.enqueue import abort_stage
from ojs_stream.core.fold.jobs import Failure, discard, expire, is_expired, remove, retry_later, total_over
from ojs_stream.core.fold.leases import exhausted, promote
from ojs_stream.core.fold.workers import lose_lease, silence
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import (
    JobRecord,
    LimitRecord,
    LockRecord,
    QueueRecord,
    ReplayRecord,
    Stage,
    WorkerRecord,
    WorkflowRecord,
    key_of_member,
)
from ojs_stream.core.states import TERMINAL
from ojs_stream.core.world import World

TICK_MAX = 256
"""So many due records one tick moves; the outcome says whether more are left."""


def tick(world: World, command: Tick) -> Outcome:
    """Move what is due at the record's time. ``data``: how many ``moved``, whether ``more`` is left."""
    due = [member for _, member in world.due(("due", command.index), TICK_MAX)]
    world.require([key_of_member(member) for member in due])
    moved = sum(_fall_due(world, member, command) for member in due)
    return Outcome(data={"moved": moved, "more": len(due) == TICK_MAX and moved > 0})


def _fall_due(world: World, member: str, command: Tick) -> int:
    record = world.get(key_of_member(member))
    return DUE[type(record)](world, record, command)


def _worker_due(world: World, worker: WorkerRecord, _command: Tick) -> int:
    if not worker.silent and world.now < world.grace:
        return 0
    silence(world, worker)
    return 1


def _stage_due(world: World, stage: Stage, _command: Tick) -> int:
    abort_stage(world, stage)
    return 1


def _queue_due(world: World, queue: QueueRecord, command: Tick) -> int:
    if command.index == "run":
        limits.window_over(world, queue)
    else:
        deletion.go_on(world, queue)
    return 1


def _lock_due(world: World, lock: LockRecord, _command: Tick) -> int:
    locks.expire(world, lock)
    return 1


def _replay_due(world: World, replay: ReplayRecord, _command: Tick) -> int:
    world.put(("replay", replay.key), None)
    return 1


def _workflow_due(world: World, workflow: WorkflowRecord, _command: Tick) -> int:
    workflows.expire(world, workflow)
    return 1


def _limit_due(world: World, limit: LimitRecord, _command: Tick) -> int:
    limits.fall_due(world, limit)
    return 1


def _job_due(world: World, record: JobRecord, command: Tick) -> int:
    state = record.job.state
    if state == "active":
        # An outage is not a death: workers could not beat while the log was away.
        if world.now < world.grace:
            return 0
        _active_due(world, record, command)
    elif state in TERMINAL:
        remove(world, record)
    elif is_expired(record, world.now) or total_over(record, world.now):
        expire(world, record)
    elif world.maintenance is not None and state != "available":
        return 0
    else:
        promote(world, record)
    return 1


def _active_due(world: World, record: JobRecord, command: Tick) -> None:
    if total_over(record, world.now):
        failure = Failure(code="timeout", type="total_timeout", message="The total timeout of the job is over.")
        discard(world, record, failure, dead=record.ctl.retry.on_exhaustion == "dead_letter")
    elif record.ctl.timeout_at <= world.now:
        _time_out(world, record, command)
    else:
        lose_lease(
            world,
            record,
            "visibility_timeout",
            "The visibility timeout passed without an ack or a heartbeat.",
        )


def _time_out(world: World, record: JobRecord, command: Tick) -> None:
    failure = Failure(
        code="timeout",
        type="timeout",
        message=f"The execution timeout of {record.job.timeout_ms} ms passed.",
        retryable=True,
    )
    dice = job_dice(command.dice, record.job.id)
    end = exhausted(world, record, dice)
    if end == "retry":
        retry_later(world, record, failure, dice)
    else:
        discard(world, record, failure, dead=end == "dead_letter")


def job_dice(dice: float, job_id: str) -> float:
    """A number in [0, 1) of its own for each job of a tick, the same at every replay."""
    return (dice + zlib.crc32(job_id.encode()) / 2**32) % 1.0


DUE: dict[type, Callable[[World, Any, Tick], int]] = {
    JobRecord: _job_due,
    WorkerRecord: _worker_due,
    Stage: _stage_due,
    QueueRecord: _queue_due,
    LockRecord: _lock_due,
    ReplayRecord: _replay_due,
    LimitRecord: _limit_due,
    WorkflowRecord: _workflow_due,
}
"""What becomes of a record whose deadline is there; 0: it is not its time yet."""
