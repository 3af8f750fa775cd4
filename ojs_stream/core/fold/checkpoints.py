"""Checkpoints: what the next attempt of a job needs to go on where the last one was (ojs-durable-execution).

A checkpoint lives at its job's home, moves with it and goes with it; until then it may be read, also after the
job's end. Saving one is a sign of life, as a heartbeat is.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, structs

from ojs_stream.core.commands import Adopt, DropCheckpoint, SaveCheckpoint
from ojs_stream.core.fold.jobs import change, here, owned, store
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import CheckpointRecord, JobRecord, is_told_of, own, public_json
from ojs_stream.core.states import TERMINAL
from ojs_stream.core.times import iso
from ojs_stream.core.world import World
from ojs_stream.errors import RefusedError


def save(world: World, command: SaveCheckpoint) -> Outcome | None:
    """``data``: ``job_id``, ``sequence``, ``created_at``. 409 once the job is over, or another worker has it."""
    record = here(world, command.job_id, command)
    if record is None:
        return None
    if record.job.state in TERMINAL:
        raise RefusedError(
            "conflict",
            f"Cannot save a checkpoint of job '{record.job.id}': it is {record.job.state}.",
            details={"job_id": record.job.id, "current_state": record.job.state},
        )
    owned(record, command.worker_id)
    checkpoint = CheckpointRecord(
        job=record.job.id,
        sequence=record.ctl.checkpoint + 1,
        at=world.now,
        state=command.state.copy(),
        step_index=command.step_index,
        metadata=own(command.metadata),
    )
    world.needs_release(2)
    world.put(("checkpoint", record.job.id), checkpoint)
    alive = {"lease": world.now + record.ctl.lease_ms} if record.job.state == "active" else {}
    store(world, change(record, {}, {"checkpoint": checkpoint.sequence, **alive}))
    return Outcome(data=_head(checkpoint))


def drop(world: World, command: DropCheckpoint) -> Outcome | None:
    """``data.deleted`` says whether there was one; of a job in any state."""
    record = here(world, command.job_id, command)
    if record is None:
        return None
    if not record.ctl.checkpoint:
        return Outcome(data={"deleted": False})
    world.put(("checkpoint", record.job.id), None)
    store(world, change(record, {}, {"checkpoint": 0}))
    return Outcome(data={"deleted": True})


def adopt_checkpoint(world: World, record: JobRecord, command: Adopt) -> None:
    """A job has come with its checkpoint; not, if another job of its id was here before."""
    if is_told_of(record.ctl):
        world.needs_release(2)
    checkpoint = command.checkpoint
    if checkpoint is None or record.ctl.created != command.record.ctl.created:
        return
    kept = structs.replace(checkpoint, state=checkpoint.state.copy(), metadata=own(checkpoint.metadata))
    world.put(("checkpoint", record.job.id), kept)


def job_with_checkpoint(world: World, record: JobRecord) -> Raw:
    """A claimed job as its worker gets it: with ``checkpoint: {state, sequence, ...}`` if there is one."""
    body = public_json(record)
    if not record.ctl.checkpoint:
        return Raw(body)
    checkpoint = world.find(("checkpoint", record.job.id), CheckpointRecord)
    if checkpoint is None:
        return Raw(body)
    return Raw(body[:-1] + b',"checkpoint":' + shown(checkpoint) + b"}")


def shown(checkpoint: CheckpointRecord) -> bytes:
    """A checkpoint as clients see it."""
    parts = {**_head(checkpoint), "state": checkpoint.state, "step_index": checkpoint.step_index}
    if checkpoint.metadata is not msgspec.UNSET:
        parts["metadata"] = checkpoint.metadata
    return msgspec.json.encode(parts)


def _head(checkpoint: CheckpointRecord) -> dict[str, object]:
    return {"job_id": checkpoint.job, "sequence": checkpoint.sequence, "created_at": iso(checkpoint.at)}
