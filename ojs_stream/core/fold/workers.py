"""The worker registry: beats, directives, and the end of a worker that fell silent (OJS.md 4.2, 4.3)."""

from __future__ import annotations

from msgspec import structs

from ojs_stream.core.commands import Beat, Direct, RemoveWorker, WorkerDied
from ojs_stream.core.fold.jobs import Failure, discard, make_available, remember
from ojs_stream.core.outcomes import EventData, Outcome
from ojs_stream.core.records import JobRecord, WorkerRecord
from ojs_stream.core.times import iso
from ojs_stream.core.world import World, system_command
from ojs_stream.errors import RefusedError

RANK = {"running": 0, "quiet": 1, "terminate": 2}
DIED_MAX = 1_000
"""So many leases of a dead worker go back in one command; the rest by a message to the home itself."""


def beat(world: World, command: Beat) -> Outcome:
    """A worker says that it lives; ``data.directive`` is what we want of it."""
    known = world.worker(command.worker_id)
    if known is not None and known.silent:
        # Whoever comes back under this name after its silence is a new worker: old directives are not its own.
        known = None
    moment = iso(world.now)
    reported = command.state or (known.reported if known else "running")
    directive = known.directive if known else "running"
    if RANK.get(reported, 0) > RANK.get(directive, 0):
        directive = reported
    world.put(
        ("worker", command.worker_id),
        WorkerRecord(
            id=command.worker_id,
            started_at=known.started_at if known else moment,
            last_heartbeat_at=moment,
            beat=world.now,
            reported=reported,
            directive=directive,
            hostname=command.hostname or (known.hostname if known else None),
            pid=command.pid or (known.pid if known else None),
            concurrency=command.concurrency or (known.concurrency if known else None),
            queues=command.queues or (known.queues if known else ()),
            active_jobs=command.active_jobs,
            labels=command.labels or (known.labels if known else command.labels),
            version=command.version or (known.version if known else None),
            dead_after_ms=command.dead_after_ms,
            keep_ms=command.keep_ms,
        ),
    )
    if known is None:
        world.emit("worker.started", command.worker_id, EventData(worker_id=command.worker_id, state=reported))
    elif known.reported != reported:
        world.emit(f"worker.{reported}", command.worker_id, EventData(worker_id=command.worker_id, state=reported))
    return Outcome(data={"directive": directive})


def _known(world: World, worker_id: str) -> WorkerRecord:
    worker = world.worker(worker_id)
    if worker is None:
        raise RefusedError(
            "not_found",
            f"Worker '{worker_id}' not found.",
            details={"resource_type": "worker", "resource_id": worker_id},
        )
    return worker


def direct(world: World, command: Direct) -> Outcome:
    """Ask a worker for something; it learns it with its next heartbeat."""
    worker = _known(world, command.worker_id)
    world.put(("worker", worker.id), structs.replace(worker, directive=command.directive))
    return Outcome(data={"directive": command.directive})


def remove_worker(world: World, command: RemoveWorker) -> Outcome:
    """A worker signs off."""
    worker = _known(world, command.worker_id)
    world.put(("worker", worker.id), None)
    world.emit("worker.stopped", worker.id, EventData(worker_id=worker.id, reason="deregistered"))
    return Outcome(data={"directive": worker.directive})


def silence(world: World, worker: WorkerRecord) -> None:
    """A worker has stopped beating: every home takes its leases back. After ``keep_ms`` the record goes."""
    if worker.silent:
        world.put(("worker", worker.id), None)
        return
    world.put(("worker", worker.id), structs.replace(worker, silent=True))
    world.emit("worker.stopped", worker.id, EventData(worker_id=worker.id, reason="silent"))
    for home in range(world.homes):
        world.message(home, system_command(WorkerDied, worker_id=worker.id))


def worker_died(world: World, command: WorkerDied) -> Outcome | None:
    """Message: leases of a dead worker go back; those at their last attempt end."""
    leases = world.head(("leases", command.worker_id), DIED_MAX)
    world.require([("job", job_id) for _, job_id in leases])
    for _, job_id in leases:
        record = world.job(job_id)
        if isinstance(record, JobRecord):
            lose_lease(world, record, "worker_death", f"Worker '{command.worker_id}' stopped beating.")
    if len(leases) == DIED_MAX:
        world.message(world.home, system_command(WorkerDied, worker_id=command.worker_id))
    return None


def lose_lease(world: World, record: JobRecord, kind: str, message: str) -> None:
    """Below the maximum of attempts back to the old place, else the end: a job that kills its workers ends."""
    failure = Failure(code=kind, type=kind, message=message, retryable=True)
    policy = record.ctl.retry
    if record.job.attempt >= policy.max_attempts:
        discard(world, record, failure, dead=policy.on_exhaustion == "dead_letter")
    else:
        make_available(world, record, reason=kind, keep_place=True, **remember(world, record, failure))
