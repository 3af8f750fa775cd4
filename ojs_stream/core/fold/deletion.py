"""Purge jobs of a queue, and delete a queue with what is in it (OJS.md 5.6).

At most 1,000 jobs a command; a deletion goes on by a message of the home to itself, and by the reaper as long as
jobs are still active. Finished jobs of a deleted queue are found by their ids until their retention is over: until
then its record counts them, unseen by clients.
"""

from __future__ import annotations

from msgspec import structs

from ojs_stream.core.commands import DeleteQueue, EmptyQueue, Purge
from ojs_stream.core.fold.jobs import (
    Failure,
    announce,
    change,
    discard,
    ensure_queue,
    is_unused,
    remove,
    send_away,
    store,
)
from ojs_stream.core.fold.queues import publish, refuse_ending
from ojs_stream.core.fold.rooms import depth_of, own_config
from ojs_stream.core.outcomes import EventData, Outcome
from ojs_stream.core.records import ConfigRecord, Ending, JobRecord, Key, QueueRecord
from ojs_stream.core.states import State
from ojs_stream.core.times import iso
from ojs_stream.core.world import World, system_command
from ojs_stream.errors import RefusedError

STEP_JOBS_MAX = 1_000
"""So many jobs one command purges, discards or moves."""
LOOK_MS = 1_000
"""A deletion that waits for active jobs looks so often whether they have ended."""
WAITING: tuple[State, ...] = ("available", "scheduled", "retryable", "pending")


def _indexes(queue: str, state: State) -> list[Key]:
    if state == "available":
        # What waits for a slot of its limit is available, in an index of its own.
        return [("state", queue, state), ("held", queue)]
    return [("state", queue, state)]


def _first_jobs(world: World, queue: str, state: State, count: int) -> list[JobRecord]:
    """The first ``count`` jobs of a queue that are in ``state``."""
    members: list[str] = []
    for index in _indexes(queue, state) if world.count(queue, state) else ():
        if len(members) < count:
            members.extend(member for _, member in world.head(index, count - len(members)))
    world.require([("job", member) for member in members])
    found = [world.job(member) for member in members]
    return [record for record in found if isinstance(record, JobRecord)]


# -- purge ----------------------------------------------------------------------------------------------------


def purge(world: World, command: Purge) -> Outcome:
    """Remove jobs for good. ``data``: how many were ``purged``, and whether there may be ``more``."""
    looked = _first_jobs(world, command.queue, command.state, STEP_JOBS_MAX)
    # Final states are in the order in which they were entered: behind the first that is too young is none.
    purged = [record for record in looked if not command.before or record.ctl.since < command.before]
    for record in purged:
        remove(world, record)
    if purged:
        data = EventData(queue=command.queue, state=command.state, jobs_affected=len(purged))
        world.emit("queue.purged", command.queue, data)
    return Outcome(data={"purged": len(purged), "more": len(purged) == STEP_JOBS_MAX})


# -- delete ---------------------------------------------------------------------------------------------------


def delete_queue(world: World, command: DeleteQueue) -> Outcome:
    """Begin to delete a queue. ``data``: the jobs it concerns, and whether it is gone already."""
    queue = world.queue(command.queue)
    if queue is None or queue.deleted:
        message = f"Queue '{command.queue}' not found."
        raise RefusedError("not_found", message, details={"resource_type": "queue", "resource_id": command.queue})
    refuse_ending(queue)
    depth = depth_of(world, queue)
    if command.strategy == "reject":
        _refuse_used(queue.name, depth)
        _end(world, queue)
        return Outcome(data={"jobs_affected": 0, "deleted": True})
    _refuse_target(world, command)
    ending = Ending(strategy=command.strategy, target=command.target, look_at=world.now + LOOK_MS)
    queue = structs.replace(queue, ending=ending)
    world.put(("queue", queue.name), queue)
    # Draining at every home, so that clients put nothing more into it.
    config = own_config(world, queue.name) or ConfigRecord(name=queue.name)
    publish(world, queue.name, structs.replace(config, draining=True))
    go_on(world, queue)
    left = world.queue(queue.name)
    return Outcome(data={"jobs_affected": depth, "deleted": left is None or left.deleted})


def _refuse_used(name: str, depth: int) -> None:
    if depth:
        message = f"Queue '{name}' has {depth} jobs that wait or run: delete it with strategy discard or move."
        raise RefusedError("conflict", message, details={"queue": name, "depth": depth})


def _refuse_target(world: World, command: DeleteQueue) -> None:
    config = own_config(world, command.target) if command.target else None
    if config is not None and config.draining:
        message = f"Queue '{command.target}' is draining: the jobs of '{command.queue}' cannot move there."
        raise RefusedError("conflict", message, details={"queue": command.queue, "target_queue": command.target})


def empty_queue(world: World, command: EmptyQueue) -> Outcome | None:
    """Message to itself: the next part of a deletion."""
    queue = world.queue(command.queue)
    if queue is not None and queue.ending is not None:
        go_on(world, queue)
    return None


def go_on(world: World, queue: QueueRecord) -> None:
    """Discard or move the next jobs; the end, if none waits or runs any more."""
    ending = queue.ending
    assert ending is not None
    states: tuple[State, ...] = (*WAITING, "active") if ending.strategy == "discard" else WAITING
    done = 0
    for state in states:
        for record in _first_jobs(world, queue.name, state, STEP_JOBS_MAX - done):
            done += 1
            if ending.strategy == "move":
                _move(world, record, ending.target)
            else:
                _discard(world, record)
    queue = ensure_queue(world, queue.name)
    if not depth_of(world, queue):
        _end(world, queue)
        return
    world.put(
        ("queue", queue.name),
        structs.replace(queue, ending=structs.replace(ending, look_at=world.now + LOOK_MS)),
    )
    if done == STEP_JOBS_MAX:
        world.message(world.home, system_command(EmptyQueue, queue=queue.name))


def _discard(world: World, record: JobRecord) -> None:
    failure = Failure(
        code="queue_deleted",
        type="queue_deleted",
        message=f"Queue '{record.job.queue}' was deleted.",
        retryable=False,
    )
    discard(world, record, failure, dead=False)


def _move(world: World, record: JobRecord, target: str) -> None:
    """The job waits in another queue, behind those that wait there."""
    moved = change(record, {"queue": target}, {})
    if world.home_of(target) != world.home:
        send_away(world, moved, before=None)
        return
    ensure_queue(world, target)
    if moved.job.state == "available":
        moved = change(moved, {}, {"sequence": world.next_sequence()})
    store(world, moved)
    world.tally(target, "totals", "enqueued", 1)
    announce(world, moved, "queue_moved")


def _end(world: World, queue: QueueRecord) -> None:
    """Nothing waits or runs: the queue is gone for clients, with its configuration and statistics."""
    world.forget_minutes(queue.name)
    if own_config(world, queue.name) is not None:
        publish(world, queue.name, None)
    if is_unused(world, queue.name):
        world.forget_queue(queue.name)
    else:
        gone = structs.replace(queue, ending=None, deleted=True, paused=False, paused_at=None)
        world.put(("queue", queue.name), gone)
    world.emit("queue.deleted", queue.name, EventData(queue=queue.name, changed_at=iso(world.now)))
