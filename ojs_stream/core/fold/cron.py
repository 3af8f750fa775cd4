"""Cron entries (OJS.md 5.2): what is registered, when it fires, and what an overlap does.

Instants are computed outside and travel in the commands: time zones are no part of the fold. A tick fires once,
however many timers ask for it, since the entry remembers the last one that was decided.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, structs

from ojs_stream.core.commands import (
    Cancel,
    DeleteCron,
    Enqueue,
    Fire,
    JobNote,
    NewJob,
    PutCron,
    SwitchCron,
    TriggerCron,
)
from ojs_stream.core.envelope import encode_object, raw_object
from ojs_stream.core.fold import replays
from ojs_stream.core.fold.enqueue import enqueue
from ojs_stream.core.fold.lifecycle import cancel_here
from ojs_stream.core.ids import named_job_id
from ojs_stream.core.outcomes import EventData, Outcome
from ojs_stream.core.records import CronJob, CronRecord, CronRun, Watcher, stored_json
from ojs_stream.core.times import iso
from ojs_stream.core.world import World, raw, system_command
from ojs_stream.errors import RefusedError

HISTORY_MAX = 100
"""So many of its last occurrences an entry remembers."""
RUNNING_MAX = 100
"""So many of its jobs that are not over an entry knows, the newest: older ones are not waited for."""
_job_decoder = msgspec.json.Decoder(NewJob)
_encoder = msgspec.json.Encoder()


def _known(world: World, name: str) -> CronRecord:
    entry = world.find(("cron", name), CronRecord)
    if entry is None:
        details = {"resource_type": "cron", "resource_id": name}
        raise RefusedError("not_found", f"Cron entry '{name}' not found.", details=details)
    return entry


def _checked(entry: CronRecord, version: int) -> None:
    if entry.version != version:
        message = f"Cron entry '{entry.name}' was changed meanwhile: read it again."
        raise RefusedError("conflict", message, details={"version": entry.version})


def _put(world: World, entry: CronRecord) -> CronRecord:
    world.put(("cron", entry.name), entry)
    return entry


def _told(entry: CronRecord, **data: object) -> Outcome:
    """``jobs`` holds the entry as it is stored: raw, as nothing else of an outcome stays."""
    return Outcome(jobs=(Raw(stored_json(entry)),), data=data)


# -- the definition -------------------------------------------------------------------------------------------


def put_cron(world: World, command: PutCron) -> Outcome:
    """Register or change. The same schedule goes on as it was: an application registers at every start."""
    known = replays.look(world, command)
    if known is not None and known.outcome is not None:
        # A repeat is shown the entry as it is by now.
        return _told(_known(world, command.name), **known.outcome.data)
    before = world.find(("cron", command.name), CronRecord)
    if command.changes:
        _checked(_known(world, command.name), command.changes)
    entry = structs.replace(
        before or _new(world, command),
        expression=command.expression,
        timezone=command.timezone,
        overlap=command.overlap,
        description=command.description,
        template=command.template.copy(),
        job=Raw(_encoder.encode(command.job)),
        updated=world.now,
    )
    enabled = entry.enabled if command.enabled is None else command.enabled
    entry = _scheduled(entry, before, command, enabled=enabled)
    replays.keep(world, command, Outcome(data={"created": before is None}))
    return _told(_put(world, entry), created=before is None)


def _new(world: World, command: PutCron) -> CronRecord:
    return CronRecord(
        name=command.name,
        expression=command.expression,
        template=command.template,
        job=command.template,
        serial=world.next_sequence(),
        version=0,
        anchor=command.anchor,
        created=world.now,
        updated=world.now,
    )


def _scheduled(entry: CronRecord, before: CronRecord | None, command: PutCron, *, enabled: bool) -> CronRecord:
    version = entry.version + 1
    if not enabled:
        return structs.replace(entry, version=version, enabled=False, next_at=0)
    goes_on = before is not None and before.enabled and _schedule(before) == _schedule(entry)
    if goes_on:
        return structs.replace(entry, version=version)
    return structs.replace(
        entry, version=version, enabled=True, anchor=command.anchor, next_at=max(command.next_at, 0)
    )


def _schedule(entry: CronRecord) -> tuple[str, str]:
    return entry.expression, entry.timezone


def switch_cron(world: World, command: SwitchCron) -> Outcome:
    """Pause, or go on. What was due while it was paused is not made up for."""
    entry = _known(world, command.name)
    if entry.enabled == command.enabled:
        return _told(entry)
    if command.enabled:
        _checked(entry, command.version)
    next_at = command.next_at if command.enabled else 0
    return _told(
        _put(
            world,
            structs.replace(
                entry,
                enabled=command.enabled,
                next_at=next_at,
                version=entry.version + 1,
                updated=world.now,
            ),
        )
    )


def delete_cron(world: World, command: DeleteCron) -> Outcome:
    """Forget it."""
    entry = _known(world, command.name)
    world.put(("cron", command.name), None)
    return _told(entry)


# -- occurrences ----------------------------------------------------------------------------------------------


def fire(world: World, command: Fire) -> Outcome:
    """A tick of the schedule. ``moved`` 0: it is decided already, not due by the log's clock, or void."""
    entry = world.find(("cron", command.name), CronRecord)
    if entry is None or not _is_due(entry, command) or command.tick > world.now:
        return Outcome(data={"moved": 0})
    advanced = structs.replace(entry, next_at=command.next_at, last_tick=max(command.tick, entry.last_tick))
    if command.tick > entry.last_tick:
        advanced = _occur(world, advanced, command)
    _put(world, advanced)
    return Outcome(data={"moved": 1, "running": len(advanced.running)})


def _is_due(entry: CronRecord, command: Fire) -> bool:
    if not entry.next_at or entry.version != command.version:
        return False
    return entry.next_at <= command.tick and (not command.next_at or command.next_at > command.tick)


def _occur(world: World, entry: CronRecord, command: Fire) -> CronRecord:
    run = CronRun(due=command.tick, at=world.now, outcome="triggered", missed=command.missed)
    if world.maintenance is not None:
        return _skipped(world, entry, run, "maintenance", "")
    if entry.overlap == "skip" and entry.running:
        return _skipped(world, entry, run, "overlap_skip", entry.running[-1].id)
    new = _job_of(world, entry, command.tick, str(entry.serial))
    _make_room(world, entry)
    try:
        existing = _existing(_enqueue(world, new))
    except RefusedError as refusal:
        existing = str(refusal.details.get("existing_job_id", ""))
        return _skipped(world, entry, run, refusal.message, existing)
    if existing:
        return _skipped(world, entry, run, f"Job '{existing}' has the same unique key.", existing)
    return _started(world, entry, run, new)


def trigger_cron(world: World, command: TriggerCron) -> Outcome | None:
    """A run by hand: also of a paused entry, and beside a run that is not over (unless its policy cancels it).

    The outcome is that of the enqueue, from the home that decides about it.
    """
    known = replays.look(world, command)
    if known is not None:
        return known.outcome
    entry = _known(world, command.name)
    new = _job_of(world, entry, world.now, f"{entry.serial}:{world.next_sequence()}")
    _make_room(world, entry)
    outcome = _enqueue(world, new, command.submit)
    if outcome is not None and _existing(outcome):
        return replays.keep(world, command, outcome)
    run = CronRun(due=world.now, at=world.now, outcome="triggered", reason="manual", replay=command.replay)
    _put(world, _started(world, entry, run, new))
    # A repeat is told this job, whichever home decides about it; a refusal takes that back (``observe``).
    head = raw({"id": new.id, "type": new.type, "state": "available", "queue": new.queue})
    replays.keep(world, command, Outcome(jobs=(head,)))
    return outcome


def _job_of(world: World, entry: CronRecord, due: int, salt: str) -> NewJob:
    new = _job_decoder.decode(entry.job)
    more = {"cron_name": raw(entry.name), "cron_triggered_at": raw(iso(due))}
    return structs.replace(
        new,
        id=named_job_id(f"{entry.name}:{salt}", due, world.home_of(new.queue)),
        meta=encode_object({**raw_object(new.meta), **more}),
        watchers=(Watcher("cron", world.home, entry.name),),
    )


def _make_room(world: World, entry: CronRecord) -> None:
    """The policy ``cancel_previous``: what is not over ends before the next one is enqueued."""
    if entry.overlap != "cancel_previous":
        return
    for job in entry.running:
        end: Cancel = system_command(Cancel, job_id=job.id, reason=f"the next run of cron entry '{entry.name}'")
        home = world.home_of(job.queue)
        if home != world.home:
            world.message(home, end)
        elif world.job(job.id) is not None:
            cancel_here(world, end)


def _started(world: World, entry: CronRecord, run: CronRun, new: NewJob) -> CronRecord:
    """The job is enqueued, or asked for at the home that decides."""
    started = structs.replace(
        entry,
        last_run=world.now,
        runs=entry.runs + 1,
        running=(*entry.running, CronJob(new.id, new.queue))[-RUNNING_MAX:],
        history=_remembered(entry, structs.replace(run, job=new.id)),
    )
    data = _about(started, run, job_id=new.id, job_type=new.type, run_count=started.runs)
    world.emit("cron.triggered", entry.name, data)
    return started


def _enqueue(world: World, new: NewJob, submit: str = "") -> Outcome | None:
    """The outcome if this home decides at once, else who waits for ``submit`` hears it from the home that does."""
    decides = world.home_of(new.queue) if new.unique is None else new.unique.home
    # The source says that it comes from the log itself: it needs no room in a bounded queue.
    command: Enqueue = system_command(Enqueue, jobs=(new,), source=str(world.home), submit=submit)
    if decides != world.home:
        world.message(decides, command)
        world.reply(submit, Outcome(forwarded=decides))
        return None
    before = world.savepoint()
    try:
        return enqueue(world, command)
    except RefusedError:
        world.rollback(before)
        raise


def _existing(outcome: Outcome | None) -> str:
    """The unique job that is there already, if the new one was not stored because of it."""
    return str(outcome.data.get("existing", {}).get("0", "")) if outcome is not None else ""


def _skipped(world: World, entry: CronRecord, run: CronRun, reason: str, existing: str) -> CronRecord:
    world.emit("cron.skipped", entry.name, _about(entry, run, reason=reason, existing_job_id=existing or None))
    skipped = structs.replace(run, outcome="skipped", reason=reason)
    return structs.replace(entry, history=_remembered(entry, skipped))


def _remembered(entry: CronRecord, run: CronRun) -> tuple[CronRun, ...]:
    return (run, *entry.history)[:HISTORY_MAX]


def _about(entry: CronRecord, run: CronRun, **fields: object) -> EventData:
    return EventData(
        cron_name=entry.name,
        cron_expr=entry.expression,
        timezone=entry.timezone,
        scheduled_at=iso(run.due),
        **fields,  # type: ignore[arg-type]
    )


# -- what became of its jobs ----------------------------------------------------------------------------------


def observe(world: World, watcher: Watcher, note: JobNote) -> None:
    """A job of the entry is over, or was refused by the home that decided."""
    entry = world.find(("cron", watcher.name), CronRecord)
    if entry is None or all(job.id != note.id for job in entry.running):
        return
    entry = structs.replace(entry, running=tuple(job for job in entry.running if job.id != note.id))
    history = tuple(_ended(run, note) if run.job == note.id else run for run in entry.history)
    if note.state == "refused":
        entry = structs.replace(entry, runs=entry.runs - 1)
        for run in entry.history:
            if run.job == note.id:
                world.emit("cron.skipped", entry.name, _about(entry, run, reason=note.reason))
                if run.replay:
                    world.put(("replay", run.replay), None)
    _put(world, structs.replace(entry, history=history))


def _ended(run: CronRun, note: JobNote) -> CronRun:
    if note.state == "refused":
        return structs.replace(run, outcome="skipped", reason=note.reason)
    return structs.replace(run, state=note.state)
