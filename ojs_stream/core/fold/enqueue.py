"""Enqueue: one home decides for all jobs of the command, the others only insert.

What the jobs need (client-supplied ids, locks, room in bounded queues) is held first: here when it is of this
home, else by messages that a stage waits for. Most jobs need nothing: server-made ids cannot clash. Then nothing
can be refused after the command is in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, structs

from ojs_stream.core.commands import Cancel, Enqueue, Insert, NewJob, Release, Reserve, Reserved, Revise
from ojs_stream.core.config import filled
from ojs_stream.core.fold import holds, replays, revision, rooms
from ojs_stream.core.fold.jobs import forget, insert
from ojs_stream.core.fold.lifecycle import cancel_here
from ojs_stream.core.fold.replays import NO_JOB
from ojs_stream.core.fold.twins import Twins, first_state, settle_twins
from ojs_stream.core.fold.watchers import tell_refused
from ojs_stream.core.outcomes import EventData, Outcome
from ojs_stream.core.records import ConfigRecord, Control, Hold, Job, JobRecord, Stage, Verdict, own, public_json
from ojs_stream.core.times import iso
from ojs_stream.core.world import World, system_command
from ojs_stream.errors import RefusedError

STAGE_MS_MAX = 8_000
"""A stage that is not decided after this is aborted (the client has been told ``unknown`` by then)."""
_decoder = msgspec.json.Decoder(Enqueue)
_encoder = msgspec.json.Encoder()


def enqueue(world: World, command: Enqueue) -> Outcome | None:
    """Store the jobs; ``outcome.jobs`` are they, in the order of the request.

    ``data`` names those that are not stored: ``existing`` (place -> the unique job that is there already) and, of
    a partial batch, ``refused`` (place -> code, message, details). ``replayed``: the answer of a command before.
    """
    known = replays.look(world, command)
    if known is not None:
        return known.outcome
    configs = rooms.configs_of(world, {new.queue for new in command.jobs})
    command = _with_defaults(command, configs)
    if holds.needs_nothing(command, configs):
        return replays.keep(world, command, _place_plain(world, command))
    return _decide(world, command)


def _decide(world: World, command: Enqueue) -> Outcome | None:
    _refuse_same_ids(world, command.jobs)
    twins = settle_twins(command.jobs, world.origin)
    if twins.refused and not command.partial:
        raise _refused_by(twins.refused[0], command)
    needed = holds.holds_of(world, command, twins)
    elsewhere = sorted(needed.keys() - {world.home})
    stage_id = f"{world.home}-{world.next_sequence()}" if elsewhere else ""
    verdicts = holds.take_all(world, needed.get(world.home, ()), stage_id, partial=command.partial)
    refusal = None if command.partial else holds.refuses(verdicts)
    if refusal is not None:
        raise _refused_by(refusal, command)
    if not elsewhere:
        return replays.keep(world, command, _place(world, command, _undivided(needed, verdicts)))
    _begin_stage(world, command, _undivided(needed, verdicts), stage_id)
    return None


def _begin_stage(world: World, command: Enqueue, undivided: Stage, stage_id: str) -> None:
    needed = undivided.holds
    elsewhere = sorted(needed.keys() - {world.home})
    stage = Stage(
        id=stage_id,
        command=Raw(_encoder.encode(command)),
        waiting=tuple(elsewhere),
        deadline=world.now + STAGE_MS_MAX,
        holds=needed,
        verdicts=undivided.verdicts,
    )
    world.put(("stage", stage.id), stage)
    replays.undecided(world, command, stage.id)
    for home in elsewhere:
        message = system_command(
            Reserve, stage=stage.id, home=world.home, holds=needed[home], partial=command.partial
        )
        world.message(home, message)


def _with_defaults(command: Enqueue, configs: dict[str, ConfigRecord]) -> Enqueue:
    """The command with what the configurations of its queues set: whoever stores a job sees it resolved."""
    if not configs:
        return command
    jobs = tuple(filled(new, configs[new.queue]) if new.queue in configs else new for new in command.jobs)
    return structs.replace(command, jobs=jobs)


def _undivided(needed: holds.Needed, verdicts: list[Verdict]) -> Stage:
    """What a stage would know, had one been needed: nobody else was asked."""
    return Stage(id="", command=NO_JOB, waiting=(), deadline=0, holds=needed, verdicts=tuple(verdicts))


def _refuse_same_ids(world: World, jobs: tuple[NewJob, ...]) -> None:
    """A client-supplied id stands once in a command."""
    seen: set[str] = set()
    for place, new in enumerate(jobs):
        if new.client_id and new.id in seen:
            details = {"existing_job_id": new.id, "home": world.home, "index": place}
            raise RefusedError("duplicate", f"Job '{new.id}' stands twice in this command.", details=details)
        seen.add(new.id)


def _refused_by(verdict: Verdict, command: Enqueue) -> RefusedError:
    details = dict(verdict.details)
    if command.batch:
        details["index"] = verdict.job
    return RefusedError(verdict.code, verdict.message, details=details)


def refused(world: World, command: Enqueue, refusal: RefusedError) -> None:
    """Nothing of the command is stored: who waits for its jobs is told."""
    _tell_full(world, refusal.code, refusal.details)
    for new in command.jobs:
        tell_refused(world, new, refusal.message)


def _tell_full(world: World, code: str, details: Mapping[str, Any]) -> None:
    """The event of a job that found no room."""
    if code == "QUEUE_FULL":
        queue = details["queue"]
        data = EventData(queue=queue, job_type=details["type"], depth=details["depth"], bound=details["bound"])
        world.emit("backpressure.rejected", queue, data)


# -- stages ---------------------------------------------------------------------------------------------------


def reserved(world: World, command: Reserved) -> Outcome | None:
    """Message to a stage: one home has answered. The last yes places the jobs, a no to all of them aborts."""
    stage = world.stage(command.stage)
    if stage is None:
        # Aborted by its deadline: what was sent then follows the reserve in order.
        return None
    stage = structs.replace(
        stage,
        waiting=tuple(home for home in stage.waiting if home != command.home),
        verdicts=(*stage.verdicts, *command.verdicts),
        pressure=rooms.fuller(stage.pressure, command.pressure),
    )
    original = _decoder.decode(stage.command)
    refusal = None if original.partial else holds.refuses(stage.verdicts)
    if refusal is not None:
        abort_stage(world, stage, refusal)
    elif stage.waiting:
        world.put(("stage", stage.id), stage)
    else:
        world.put(("stage", stage.id), None)
        world.reply(original.submit, replays.keep(world, original, _place(world, original, stage)))
    return None


def abort_stage(world: World, stage: Stage, refusal: Verdict | None = None) -> None:
    """Give back everything that is held and refuse the command."""
    command = _decoder.decode(stage.command)
    world.put(("stage", stage.id), None)
    holds.settle(world, stage.holds, stage.id, stored=False)
    if refusal is not None:
        error = _refused_by(refusal, command)
    else:
        message = "What the jobs need could not be held in time; nothing was enqueued."
        error = RefusedError("backend_error", message)
    refused(world, command, error)
    outcome = Outcome(code=error.code, message=error.message, details=error.details)
    world.reply(command.submit, replays.keep(world, command, outcome))


# -- storing --------------------------------------------------------------------------------------------------


def _place_plain(world: World, command: Enqueue) -> Outcome:
    """Nothing had to be held, as for most commands: a short way to what ``_place`` would do."""
    elsewhere: dict[int, list[NewJob]] = {}
    stored = [_store(world, new, elsewhere) for new in command.jobs]
    for home, jobs in sorted(elsewhere.items()):
        insertion = Insert(v=command.v, actor=command.actor, request=command.request, jobs=tuple(jobs))
        world.message(home, insertion)
    return Outcome(jobs=tuple(stored))


def _store(world: World, new: NewJob, elsewhere: dict[int, list[NewJob]]) -> Raw:
    """The job as it is answered. It is inserted here, or noted for its home."""
    record = new_record(world, new, world.origin)
    home = world.home_of(new.queue)
    if home == world.home:
        record = insert(world, record)
    else:
        elsewhere.setdefault(home, []).append(new)
    return Raw(public_json(record))


def _place(world: World, command: Enqueue, stage: Stage) -> Outcome:
    """Everything is held: insert what belongs here, send the rest to its homes."""
    twins = settle_twins(command.jobs, world.origin)
    judged = _judged(twins, (*twins.refused, *stage.verdicts))
    dropped = {place for place, verdict in judged.items() if verdict.action != "replace"}
    stored = [NO_JOB] * len(command.jobs)
    elsewhere: dict[int, list[NewJob]] = {}
    for place, new in enumerate(twins.jobs):
        if place in judged:
            _carry_out(world, command, new, judged[place])
        if place in dropped:
            continue
        stored[place] = _store(world, new, elsewhere)
    further = _settle(world, stage, dropped)
    for home, jobs in sorted(elsewhere.items()):
        insertion = Insert(
            v=command.v,
            actor=command.actor,
            request=command.request,
            jobs=tuple(jobs),
            stage=stage.id,
            locks=tuple(further.get(home, ())),
        )
        world.message(home, insertion)
    for verdict in judged.values():
        _tell_full(world, verdict.code, verdict.details)
    awaits = sorted({verdict.coming for verdict in judged.values() if verdict.coming is not None})
    return Outcome(jobs=tuple(stored), data=_told(world, command, stage, judged), awaits=tuple(awaits))


def _judged(twins: Twins, verdicts: tuple[Verdict, ...]) -> dict[int, Verdict]:
    """By place what was said of a job; a no counts more than anything else. Twins share what was said of one."""
    judged: dict[int, Verdict] = {}
    for verdict in verdicts:
        if verdict.code or verdict.job not in judged:
            judged[verdict.job] = verdict
    for place in twins.stands_for:
        other = twins.answer_for(place)
        judged[place] = structs.replace(_shared(twins.jobs[other], judged.get(other)), job=place)
    return judged


def _shared(other: NewJob, said: Verdict | None) -> Verdict:
    """What is said of the twin of a job, after what was ``said`` of that one."""
    if said is None or said.action == "replace":
        return Verdict(job=0, existing=other.id, action="ignore")
    if said.code and "unique_key" not in said.details:
        return said
    existing = said.existing or said.details.get("existing_job_id", "")
    return Verdict(job=0, existing=existing, action="ignore") if existing else said


def _carry_out(world: World, command: Enqueue, new: NewJob, verdict: Verdict) -> None:
    """What a verdict asks for beside storing the job, or instead of it."""
    if verdict.action == "replace":
        _cancel_replaced(world, command, verdict)
        return
    if verdict.action == "replace_except_schedule":
        change = Revise(
            v=command.v, actor=command.actor, request=command.request, job_id=verdict.existing, job=new
        )
        if verdict.home == world.home:
            revision.revise(world, change)
        else:
            world.message(verdict.home, change)
    tell_refused(world, new, verdict.message or f"Job '{verdict.existing}' has the same unique key.")


def _cancel_replaced(world: World, command: Enqueue, verdict: Verdict) -> None:
    for home, job_id in ((verdict.home, verdict.existing), *verdict.others):
        end = Cancel(
            v=command.v,
            actor=command.actor,
            request=command.request,
            job_id=job_id,
            reason="replaced by another job with the same unique key",
        )
        if home == world.home:
            cancel_here(world, end)
        else:
            world.message(home, end)


def _settle(world: World, stage: Stage, dropped: set[int]) -> dict[int, list[Hold]]:
    """Free what dropped jobs held; the rooms are used. Gives, by home of their jobs, the locks to keep from there.

    A lock whose home hears of a job may at once be asked to replace it: so it must not hear of it before the job's
    home has it. What this home sends to both comes too early or too late; what the job's home sends cannot.
    """
    if not stage.holds:
        return {}
    free = {home: [hold for hold in held if hold.job in dropped] for home, held in stage.holds.items()}
    holds.settle(world, free, stage.id, stored=False)
    for queue in sorted(rooms.names_of(stage.holds.get(world.home, ()))):
        rooms.give_back(world, queue, stage.id)
    return _keep_locks(world, stage, dropped) if stage.id else {}


def _keep_locks(world: World, stage: Stage, dropped: set[int]) -> dict[int, list[Hold]]:
    here: dict[int, list[Hold]] = {}
    further: dict[int, list[Hold]] = {}
    for home, held in stage.holds.items():
        for hold in held:
            if hold.kind != "lock" or hold.job in dropped:
                continue
            if world.home in (home, hold.home):
                here.setdefault(home, []).append(hold)
            else:
                further.setdefault(hold.home, []).append(hold)
    holds.settle(world, here, stage.id, stored=True)
    return further


def _told(world: World, command: Enqueue, stage: Stage, judged: dict[int, Verdict]) -> dict[str, Any]:
    """``data`` of the outcome: what became of jobs that were not simply stored, and how full queues are."""
    data: dict[str, Any] = {}
    pressure = rooms.fuller(rooms.pressure(world, stage.holds.get(world.home, ())), stage.pressure)
    if pressure is not None:
        data["pressure"] = structs.asdict(pressure)
    if command.rejected:
        data["rejected"] = {place: structs.asdict(said) for place, said in command.rejected.items()}
    for place, verdict in judged.items():
        if verdict.code:
            said = {"code": verdict.code, "message": verdict.message, "details": verdict.details}
            data.setdefault("refused", {})[str(place)] = said
        else:
            kind = "replaced" if verdict.action == "replace" else "existing"
            data.setdefault(kind, {})[str(place)] = verdict.existing
    return data


def insert_jobs(world: World, command: Insert) -> Outcome | None:
    """Message: jobs that another home has decided on. Their times are those of the first command."""
    for new in command.jobs:
        insert(world, new_record(world, new, world.origin))
    if command.stage:
        for queue in sorted({new.queue for new in command.jobs}):
            rooms.give_back(world, queue, command.stage)
    locks: dict[int, list[Hold]] = {}
    for hold in command.locks:
        assert hold.rule is not None
        locks.setdefault(hold.rule.home, []).append(hold)
    holds.settle(world, locks, command.stage, stored=True)
    return None


def release(world: World, command: Release) -> Outcome | None:
    """Message: ids whose jobs are gone."""
    for job_id in command.ids:
        forget(world, job_id)
    return None


def new_record(world: World, new: NewJob, moment: int) -> JobRecord:
    """The record of a new job at ``moment``; its sequence comes when it is inserted."""
    due = moment + new.delay_ms if new.delay_ms else new.scheduled
    expires = moment + new.expires_in_ms if new.expires_in_ms else new.expires
    waits = due > moment
    state = first_state(new, moment)
    created = iso(moment)
    job = Job(
        specversion="1.0",
        id=new.id,
        type=new.type,
        state=state,
        queue=new.queue,
        args=new.args.copy(),
        meta=new.meta.copy(),
        priority=new.priority,
        attempt=0,
        max_attempts=new.retry.max_attempts,
        timeout_ms=new.timeout_ms,
        visibility_timeout_ms=new.visibility_timeout_ms,
        created_at=created,
        enqueued_at=created if state == "available" else None,
        scheduled_at=new.scheduled_at or (iso(due) if due else None),
        expires_at=new.expires_at or (iso(expires) if expires else None),
        workflow_id=new.workflow_id,
        workflow_step=new.workflow_step,
        parent_results=own(new.parent_results),
    )
    ctl = Control(
        retry=new.retry,
        retention=new.retention,
        created=moment,
        since=moment,
        due=due if waits else 0,
        expires=expires,
        enqueued=moment if state == "available" else 0,
        total_timeout_ms=new.total_timeout_ms,
        origins=(world.home_of(new.id),) if new.client_id else (),
        watchers=new.watchers,
        unique=new.unique,
        limit=new.limit,
    )
    return JobRecord(job, ctl, own(new.extra))
