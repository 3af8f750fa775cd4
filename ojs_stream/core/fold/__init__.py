"""The fold: one command at a time, in log order, on the world of one home.

``HANDLERS`` is the table: command -> handler, and what is worth loading before it runs. A handler may ask for
more (``NeedMore``), refuse (``RefusedError``), answer, or stay silent when somebody else will answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from ojs_stream.core import commands as c
from ojs_stream.core.fold import (
    bulk,
    checkpoints,
    cron,
    deletion,
    enqueue,
    holds,
    home,
    importing,
    leases,
    lifecycle,
    limits,
    locks,
    maintenance,
    progress,
    queues,
    revision,
    ticks,
    watchers,
    workers,
    workflows,
)
from ojs_stream.core.names import DEFAULT_CONFIG
from ojs_stream.core.outcomes import Effect, Outcome
from ojs_stream.core.records import JobRecord, Watcher, WatcherKind
from ojs_stream.core.world import FIRST_LOOK, NeedMore, Needs, Savepoint, World, raw, spans_of
from ojs_stream.errors import RefusedError

OUTAGE_MS = 5_000
"""Nothing appended for longer than this, although something was to be watched: the log was away."""
GRACE_MS = 5_000
"""Workers get one heartbeat interval after an outage before leases are reaped."""

BULK_SOURCE = "bulk:"
"""Sources of the bulk agent: ``bulk:<partition>``."""
BURIED_BYTES_MAX = 512 * 1024
"""So much of a bad command goes to the dead topic; the whole of it is at its offset in the log."""

Handler = Callable[[World, Any], Outcome | None]
HANDLERS: dict[type[c.Command], Handler] = {
    c.Genesis: home.genesis,
    c.Reset: home.reset,
    c.Enqueue: enqueue.enqueue,
    c.Reserve: holds.reserve,
    c.Reserved: enqueue.reserved,
    c.Settle: holds.settled,
    c.Release: enqueue.release,
    c.Insert: enqueue.insert_jobs,
    c.Revise: revision.revise,
    c.Watched: watchers.watched,
    c.Claim: leases.claim,
    c.Ack: leases.ack,
    c.Nack: leases.nack,
    c.GiveBack: leases.give_back,
    c.Extend: leases.extend,
    c.Report: progress.report,
    c.SaveCheckpoint: checkpoints.save,
    c.DropCheckpoint: checkpoints.drop,
    c.Cancel: lifecycle.cancel,
    c.Activate: lifecycle.activate,
    c.Reprioritize: lifecycle.reprioritize,
    c.RetryJob: lifecycle.retry_job,
    c.Bulk: bulk.bulk,
    c.Promote: lifecycle.promote_retry,
    c.Tick: ticks.tick,
    c.Pause: queues.pause,
    c.Resume: queues.resume,
    c.Beat: workers.beat,
    c.Direct: workers.direct,
    c.RemoveWorker: workers.remove_worker,
    c.WorkerDied: workers.worker_died,
    c.RetryDead: lifecycle.retry_dead,
    c.DeleteDead: lifecycle.delete_dead,
    c.Adopt: lifecycle.adopt,
    c.PutCron: cron.put_cron,
    c.SwitchCron: cron.switch_cron,
    c.DeleteCron: cron.delete_cron,
    c.TriggerCron: cron.trigger_cron,
    c.Fire: cron.fire,
    c.Configure: queues.configure,
    c.Configured: queues.configured,
    c.Drain: queues.drain,
    c.Maintain: maintenance.maintain,
    c.Maintained: maintenance.maintained,
    c.Purge: deletion.purge,
    c.DeleteQueue: deletion.delete_queue,
    c.EmptyQueue: deletion.empty_queue,
    c.Grant: limits.grant,
    c.Ungrant: limits.ungrant,
    c.Divert: limits.divert,
    c.LimitPause: limits.pause,
    c.LimitOverride: limits.override,
    c.StartWorkflow: workflows.start_workflow,
    c.CancelWorkflow: workflows.cancel_workflow,
    c.CancelMembers: workflows.cancel_members,
    c.DropWorkflow: workflows.drop_workflow,
    c.ImportPart: importing.import_part,
    c.ImportEnd: importing.import_end,
}

OBSERVERS: dict[WatcherKind, Callable[[World, Watcher, c.JobNote], None]] = {
    "lock": locks.observe,
    "limit": limits.observe,
    "workflow": workflows.observe,
    "cron": cron.observe,
}
"""Who is told of a job's change of state."""


class RecordFold:
    """Folds the commands of one log record; keeps its place when more must be loaded."""

    def __init__(
        self, world: World, folded: Sequence[c.AnyCommand | c.BadCommand], *, offset: int, now: int
    ) -> None:
        self._world = world
        self._commands = folded
        self._offset = offset
        self._now = now
        self._next = 0

    def run(self) -> None:
        """Fold what is left. ``NeedMore``: load, then call again."""
        begin(self._world, self._now)
        while self._next < len(self._commands):
            command = self._commands[self._next]
            if isinstance(command, c.BadCommand):
                _refuse_bad(self._world, command, self._offset)
            else:
                _fold(self._world, command, self._offset)
            self._world.settle()
            self._next += 1


def begin(world: World, now: int) -> None:
    """A record of time ``now`` begins. Watching with nothing appended for long means that the log was away."""
    if world.last and world.watched and now - world.last > OUTAGE_MS:
        world.grace = now + GRACE_MS
    world.now = now
    world.minute = str(now // 60_000)
    world.last = now


def _fold(world: World, command: c.AnyCommand, offset: int) -> None:
    if command.source and command.number <= world.marks.get(command.source, 0):
        _repeat(world, command)
        return
    world.origin = command.at or world.now
    start = marked = world.savepoint()
    if command.source:
        world.mark(command.source, command.number)
        marked = world.savepoint()
    try:
        outcome = _outcome_of(world, command, marked)
    except NeedMore:
        world.rollback(start)
        raise
    except Exception as error:  # a failing command must hurt only itself, never the partition
        world.rollback(marked)
        reason = f"{type(error).__name__}: {error}"
        _bury(world, msgspec.json.encode(command), reason, offset)
        outcome = Outcome(code="backend_error", message=f"The command failed and was put aside: {reason}")
    if outcome is not None:
        world.reply(command.submit, outcome)
    world.await_messages(start)


def _outcome_of(world: World, command: c.AnyCommand, marked: Savepoint) -> Outcome | None:
    try:
        outcome = _handle(world, command)
    except RefusedError as refusal:
        world.rollback(marked)
        outcome = Outcome(code=refusal.code, message=refusal.message, details=refusal.details)
        if isinstance(command, c.Enqueue):
            enqueue.refused(world, command, refusal)
    _observe(world)
    return outcome


def _observe(world: World) -> None:
    """Tell watchers of this home. What limits read is asked for at once: a claim starts many jobs."""
    if not world.observations:
        return
    world.require(
        key
        for watcher, note in world.observations
        if watcher.kind == "limit"
        for key in limits.keys_of(watcher, note)
    )
    while world.observations:
        watcher, note = world.observations.pop(0)
        OBSERVERS[watcher.kind](world, watcher, note)


def _repeat(world: World, command: c.AnyCommand) -> None:
    """Folded before. The bulk agent asks again after a crash and must hear so; other homes need no answer."""
    if command.source.startswith(BULK_SOURCE):
        world.reply(command.submit, Outcome(data={"repeated": True}))


def _handle(world: World, command: c.AnyCommand) -> Outcome | None:
    internal = command.source and not command.source.startswith(BULK_SOURCE)
    if command.epoch < world.epoch and (internal or isinstance(command, c.Promote)):
        return Outcome(code="conflict", message="The command is of an epoch before the last reset.")
    if world.importing and not internal:
        importing.check_allowed(command)
    return HANDLERS[type(command)](world, command)


class _Probe(msgspec.Struct):
    submit: str = ""


_probe_decoder = msgspec.json.Decoder(_Probe)


def _refuse_bad(world: World, bad: c.BadCommand, offset: int) -> None:
    """Put it aside; if it says who waits for it, nobody waits in vain."""
    _bury(world, bad.data, bad.reason, offset)
    try:
        submit = _probe_decoder.decode(bad.data).submit
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    world.reply(submit, Outcome(code="backend_error", message=f"The command was put aside: {bad.reason}"))


def _bury(world: World, data: bytes, reason: str, offset: int) -> None:
    world.effect(
        Effect(
            topic="commands.dead",
            key=str(world.home),
            value=raw({"reason": reason, "partition": world.home, "offset": offset, "command": _readable(data)}),
            headers={"ojs-error": reason[:1000], "ojs-partition": str(world.home), "ojs-offset": str(offset)},
        )
    )


def _readable(data: bytes) -> str:
    return data[:BURIED_BYTES_MAX].decode("utf-8", errors="backslashreplace")


# -- what is worth loading first ------------------------------------------------------------------------------


def needs_of(world: World, command: c.AnyCommand | c.BadCommand, now: int, needs: Needs) -> None:
    """Add what ``command`` will surely want. Only speed depends on it: a fold asks for what is missing."""
    wants = NEEDS.get(type(command))
    if wants is None:
        return
    # Where it fails the fold of the command fails, too, and there it hurts only itself.
    with suppress(Exception):
        wants(world, command, now, needs)


def _enqueue_needs(world: World, command: c.Enqueue, now: int, needs: Needs) -> None:
    if command.replay:
        needs.records.add(("replay", command.replay))
    needs.records.add(("config", DEFAULT_CONFIG))
    for queue in {job.queue for job in command.jobs}:
        needs.records.add(("config", queue))
        if world.home_of(queue) == world.home:
            needs.records.update((("queue", queue), *spans_of(queue, now)))
    _new_job_needs(world, command, needs)


def _new_job_needs(world: World, command: c.Enqueue, needs: Needs) -> None:
    for job in command.jobs:
        if job.limit is not None and job.limit.home == world.home:
            needs.records.update((("limit", job.limit.key), ("slot", job.id)))
        if job.unique is not None and job.unique.home == world.home:
            needs.records.add(("lock", job.unique.key))
        if job.client_id:
            needs.records.add(("job", job.id))
        if job.client_id and world.home_of(job.id) == world.home:
            needs.records.add(("id", job.id))


def _holds_needs(_world: World, command: c.Reserve, _now: int, needs: Needs) -> None:
    needs.records.update(("lock", hold.name) for hold in command.holds if hold.kind == "lock")


def _watched_needs(world: World, command: c.Watched, _now: int, needs: Needs) -> None:
    if command.watcher.kind == "lock":
        needs.records.add(("lock", command.watcher.name))
    elif command.watcher.kind == "limit":
        needs.records.update(limits.keys_of(command.watcher, command.note))
    _watcher_needs(world, command.watcher, needs)


def _insert_needs(_world: World, command: c.Insert, now: int, needs: Needs) -> None:
    for queue in {job.queue for job in command.jobs}:
        needs.records.update((("queue", queue), *spans_of(queue, now)))
    needs.records.update(("job", job.id) for job in command.jobs if job.client_id)


def _claim_needs(_world: World, command: c.Claim, now: int, needs: Needs) -> None:
    needs.records.add(("config", DEFAULT_CONFIG))
    for queue in command.queues:
        needs.records.add(("queue", queue))
        needs.records.add(("config", queue))
        needs.records.update(spans_of(queue, now))
    needs.head(("state", command.queues[0], "available"), min(command.count, leases.LOOK_MAX))


def _job_needs(world: World, command: c.Ack, _now: int, needs: Needs) -> None:
    key = ("job", command.job_id)
    needs.records.add(key)
    # An active job is in memory: then it is known already who will be told of its end.
    record = world.peek(key)
    if isinstance(record, JobRecord):
        for watcher in record.ctl.watchers:
            _watcher_needs(world, watcher, needs)


def _watcher_needs(world: World, watcher: Watcher, needs: Needs) -> None:
    if watcher.kind == "workflow" and watcher.home == world.home:
        needs.records.update(workflows.watched_keys(watcher))


def _start_needs(world: World, command: c.StartWorkflow, _now: int, needs: Needs) -> None:
    if command.replay:
        needs.records.add(("replay", command.replay))
    for step in command.steps:
        if step.job is not None and world.home_of(step.job.queue) == world.home:
            needs.records.add(("queue", step.job.queue))


def _jobs_needs(_world: World, command: c.Extend, _now: int, needs: Needs) -> None:
    needs.records.update(("job", job_id) for job_id in command.job_ids)


def _grant_needs(_world: World, command: c.Grant, _now: int, needs: Needs) -> None:
    needs.records.update(("job", job_id) for job_id, _ in command.asks)


def _queue_needs(_world: World, command: c.Pause, _now: int, needs: Needs) -> None:
    needs.records.add(("queue", command.queue))
    needs.records.add(("config", command.queue))


def _worker_needs(_world: World, command: c.Beat, _now: int, needs: Needs) -> None:
    needs.records.add(("worker", command.worker_id))


def _tick_needs(_world: World, command: c.Tick, _now: int, needs: Needs) -> None:
    needs.head(("due", command.index), FIRST_LOOK, follow=False)


def _cron_needs(_world: World, command: c.Fire, _now: int, needs: Needs) -> None:
    needs.records.add(("cron", command.name))


NEEDS: dict[type, Callable[[World, Any, int, Needs], None]] = {
    c.Enqueue: _enqueue_needs,
    c.Insert: _insert_needs,
    c.Reserve: _holds_needs,
    c.Settle: _holds_needs,
    c.Watched: _watched_needs,
    c.Grant: _grant_needs,
    c.Claim: _claim_needs,
    c.Extend: _jobs_needs,
    c.GiveBack: _jobs_needs,
    c.Bulk: _jobs_needs,
    **dict.fromkeys((c.Pause, c.Resume, c.Drain, c.Configure, c.Purge, c.DeleteQueue, c.EmptyQueue), _queue_needs),
    c.Tick: _tick_needs,
    c.Watched: _watched_needs,
    c.StartWorkflow: _start_needs,
    **dict.fromkeys((c.Beat, c.Direct, c.RemoveWorker), _worker_needs),
    **dict.fromkeys((c.PutCron, c.SwitchCron, c.DeleteCron, c.TriggerCron, c.Fire), _cron_needs),
    **dict.fromkeys((c.Ack, c.Nack, c.Cancel, c.Activate, c.Promote, c.RetryDead, c.DeleteDead), _job_needs),
    **dict.fromkeys((c.Reprioritize, c.RetryJob, c.Report, c.SaveCheckpoint, c.DropCheckpoint), _job_needs),
}
