"""Workflows (OJS.md 5.8): start, what their jobs tell, cancel, and the end of their retention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import UNSET, structs

from ojs_stream.core.commands import (
    Cancel,
    CancelMembers,
    CancelWorkflow,
    DropWorkflow,
    Enqueue,
    JobNote,
    NewJob,
    StartWorkflow,
)
from ojs_stream.core.fold import replays
from ojs_stream.core.fold.enqueue import enqueue
from ojs_stream.core.fold.flows import Run, decider_of, plan_key, records_of, step_key
from ojs_stream.core.fold.lifecycle import cancel_here
from ojs_stream.core.homes import note_home
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.portions import portions
from ojs_stream.core.records import Key, StepRecord, Watcher, WorkflowRecord
from ojs_stream.core.world import World, system_command
from ojs_stream.errors import RefusedError

MESSAGE_JOBS_MAX = 250
"""So many jobs of a workflow one message carries to the home that decides on them."""
MESSAGE_BYTES_MAX = 1024 * 1024
"""So many bytes of their args, meta and results; a single larger job travels alone."""
DROPPED_MAX = 1_000
"""So many steps one command removes; the rest by a message of the home to itself."""


def start_workflow(world: World, command: StartWorkflow) -> Outcome | None:
    """Store the workflow and start what waits for nothing. ``data.id``: the view reads it afterwards."""
    known = replays.look(world, command)
    if known is not None:
        return known.outcome
    record = WorkflowRecord(
        id=command.id,
        name=command.name,
        state="running",
        created=world.now,
        retention=command.retention,
        flow=command.flow,
        steps=len(command.steps),
        jobs=sum(new.job is not None and not new.callback for new in command.steps),
    )
    # The server made the id for this command alone: nothing of it is stored yet.
    world.absent(("workflow", record.id))
    for step in records_of(record.id, command.steps):
        key = step_key(record.id, step.number)
        world.absent(key)
        world.absent(plan_key(record.id, step.number))
        world.put(key, step)
    run = Run(world, record, dict(enumerate(command.steps)))
    run.tell("workflow.started")
    run.begin(record.flow, ())
    _submit(world, run.finish())
    return replays.keep(world, command, Outcome(data={"id": record.id}))


def _submit(world: World, jobs: Sequence[NewJob]) -> None:
    """Enqueue jobs that start now, each at the home that decides on it; those of a home in their order.

    One that is refused must not hold up the others: each is for itself.
    """
    by_home: dict[int, list[NewJob]] = {}
    for new in jobs:
        by_home.setdefault(decider_of(world, new), []).append(new)
    for home, chosen in by_home.items():
        if home == world.home:
            ours = system_command(Enqueue, jobs=tuple(chosen), batch=True, partial=True)
            # As a message: what the log has accepted goes on, even into a full queue.
            enqueue(world, structs.replace(ours, source=str(home)))
            continue
        for part in portions(chosen, _bytes_of, count_max=MESSAGE_JOBS_MAX, bytes_max=MESSAGE_BYTES_MAX):
            world.message(home, system_command(Enqueue, jobs=tuple(part), batch=True, partial=True))


def _bytes_of(new: NewJob) -> int:
    return sum(len(part) for part in (new.args, new.meta, new.extra, new.parent_results) if part is not UNSET)


def watched_keys(watcher: Watcher) -> list[Key]:
    """The workflow and the step that a job belongs to."""
    workflow_id, _, number = watcher.name.partition(":")
    return [("workflow", workflow_id), step_key(workflow_id, int(number))]


def observe(world: World, watcher: Watcher, note: JobNote) -> None:
    """The job of a step has ended. A step that has ended before ignores it: it advances its workflow once."""
    keys = watched_keys(watcher)
    world.require(keys)
    record, step = world.find(keys[0], WorkflowRecord), world.find(keys[1], StepRecord)
    if record is None or step is None or step.state != "pending" or step.job_id != note.id:
        return
    run = Run(world, record)
    run.end_job(step, note)
    _submit(world, run.finish())


# -- cancel ---------------------------------------------------------------------------------------------------


def cancel_workflow(world: World, command: CancelWorkflow) -> Outcome:
    """To ``cancelled``, with every step that has not ended, and their jobs wherever they are.

    ``data``: ``cancelled`` (the ids of these steps, without callbacks), ``completed`` (how many had completed).
    """
    record = world.find(("workflow", command.id), WorkflowRecord)
    if record is None:
        details = {"resource_type": "workflow", "resource_id": command.id}
        raise RefusedError("not_found", f"Workflow '{command.id}' not found.", details=details)
    if record.state != "running":
        details = {"workflow_id": record.id, "current_state": record.state}
        raise RefusedError("conflict", f"Workflow '{record.id}' is already {record.state}.", details=details)
    run = Run(world, structs.replace(record, state="cancelled", ended=world.now))
    # Every step is looked at, nested ones too: none is left to be cancelled by its parent.
    numbers = range(record.steps)
    run.load(numbers)
    ended = [step for step in run.steps(numbers) if step.state in ("waiting", "pending", "running")]
    for step in ended:
        run.cancel(step)
    reason = command.reason or f"workflow {record.id} was cancelled"
    run.tell("workflow.cancelled", reason)
    run.finish()
    _cancel_jobs(world, [step for step in ended if step.state == "pending"], command, reason)
    return Outcome(
        data={
            "cancelled": [step.id for step in ended if not step.callback and step.flow is None],
            "completed": record.jobs_completed,
        }
    )


def _cancel_jobs(world: World, steps: Iterable[StepRecord], command: CancelWorkflow, reason: str) -> None:
    """By the homes that decided on the jobs: a cancel must not overtake the job it is for."""
    by_home: dict[int, list[str]] = {}
    for step in steps:
        by_home.setdefault(step.via, []).append(step.job_id)
    for home, job_ids in sorted(by_home.items()):
        order = CancelMembers(
            v=command.v, actor=command.actor, request=command.request, job_ids=tuple(job_ids), reason=reason
        )
        if home == world.home:
            cancel_members(world, order)
        else:
            world.message(home, order)


def cancel_members(world: World, command: CancelMembers) -> Outcome | None:
    """Jobs of this home are cancelled unless they are over; the others' homes are told."""
    elsewhere: dict[int, list[str]] = {}
    ours: list[str] = []
    for job_id in command.job_ids:
        home = note_home(job_id, world.homes)
        (ours if home == world.home else elsewhere.setdefault(home, [])).append(job_id)
    world.require([("job", job_id) for job_id in ours])
    for job_id in ours:
        if world.job(job_id) is not None:
            cancel_here(world, _cancel_of(command, job_id))
    for home, job_ids in sorted(elsewhere.items()):
        world.message(home, structs.replace(command, submit="", job_ids=tuple(job_ids)))
    return None


def _cancel_of(command: CancelMembers, job_id: str) -> Cancel:
    return Cancel(v=command.v, actor=command.actor, request=command.request, job_id=job_id, reason=command.reason)


# -- the end of the retention ---------------------------------------------------------------------------------


def expire(world: World, record: WorkflowRecord) -> None:
    """The retention of a workflow is over: its steps go with it, by commands of their own."""
    world.put(("workflow", record.id), structs.replace(record, closing=True))
    world.message(world.home, system_command(DropWorkflow, id=record.id))


def drop_workflow(world: World, command: DropWorkflow) -> Outcome | None:
    """Message: remove the last steps that there are; the workflow with the first of them."""
    record = world.find(("workflow", command.id), WorkflowRecord)
    if record is None:
        return None
    left = max(0, record.steps - DROPPED_MAX)
    keys = [step_key(record.id, number) for number in range(left, record.steps)]
    world.require(keys)
    for key in keys:
        world.put(key, None)
    world.put(("workflow", record.id), structs.replace(record, steps=left) if left else None)
    if left:
        world.message(world.home, system_command(DropWorkflow, id=record.id))
    return None
