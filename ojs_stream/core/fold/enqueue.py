"""Enqueue: one home decides for all jobs of the command, the others only insert.

Server-made ids cannot clash, so nothing can be refused after the command is in the log. Client-supplied ids
are reserved at hash(id) first: here when it is this home, else by messages that a stage waits for.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from ojs_stream.core.commands import Enqueue, Insert, NewJob, Release, Reserve, Reserved
from ojs_stream.core.fold.jobs import forget, insert
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import Control, IdRecord, Job, JobRecord, Stage, own, public_json
from ojs_stream.core.times import iso
from ojs_stream.core.world import World, system_command
from ojs_stream.errors import RefusedError

STAGE_MS_MAX = 8_000
"""A stage that is not decided after this is aborted (the client has been told ``unknown`` by then)."""
_decoder = msgspec.json.Decoder(Enqueue)
_encoder = msgspec.json.Encoder()


def _duplicate(job_id: str, home: int) -> RefusedError:
    return RefusedError(
        "duplicate",
        f"Job '{job_id}' exists already.",
        details={"existing_job_id": job_id, "home": home},
    )


def _id_homes(world: World, jobs: tuple[NewJob, ...]) -> dict[int, dict[str, int]]:
    """Per id home the client-supplied ids and the homes of their queues."""
    homes: dict[int, dict[str, int]] = {}
    for job in jobs:
        if job.client_id:
            wanted = homes.setdefault(world.home_of(job.id), {})
            if job.id in wanted:
                raise _duplicate(job.id, world.home)
            wanted[job.id] = world.home_of(job.queue)
    return homes


def enqueue(world: World, command: Enqueue) -> Outcome | None:
    """Store the jobs; ``outcome.jobs`` are they, in the order of the request."""
    id_homes = _id_homes(world, command.jobs)
    here = id_homes.pop(world.home, {})
    taken = reserve_here(world, here, stage="" if not id_homes else _stage_id(command))
    if taken:
        raise _duplicate(taken, world.home)
    if not id_homes:
        return _place(world, command)
    stage = Stage(
        id=_stage_id(command),
        command=Raw(_encoder.encode(command)),
        waiting=tuple(sorted(id_homes)),
        granted=(world.home,) if here else (),
        deadline=world.now + STAGE_MS_MAX,
    )
    world.put(("stage", stage.id), stage)
    for home, ids in sorted(id_homes.items()):
        world.message(home, system_command(Reserve, stage=stage.id, home=world.home, ids=ids))
    return None


def _stage_id(command: Enqueue) -> str:
    return command.jobs[0].id


def reserve_here(world: World, ids: dict[str, int], *, stage: str) -> str:
    """Hold ids of this home; the first that exists already, or ``""``."""
    world.require([("id", job_id) for job_id in ids] + [("job", job_id) for job_id in ids])
    for job_id in ids:
        if world.id_record(job_id) is not None or world.job(job_id) is not None:
            return job_id
    for job_id, home in ids.items():
        world.put(("id", job_id), IdRecord(home=home, stage=stage))
    return ""


def reserve(world: World, command: Reserve) -> Outcome | None:
    """Message from a stage: hold its ids, or name one that is taken."""
    taken = reserve_here(world, command.ids, stage=command.stage)
    world.message(
        command.home,
        system_command(Reserved, stage=command.stage, home=world.home, taken=taken),
    )
    return None


def reserved(world: World, command: Reserved) -> Outcome | None:
    """Message to a stage: one home has answered. The last yes places the jobs, the first no aborts."""
    stage = world.stage(command.stage)
    if stage is None:
        # Aborted by its deadline: the release that was sent then follows the reserve in order.
        return None
    if command.taken:
        abort_stage(world, stage, taken=command.taken, refused_by=command.home)
        return None
    waiting = tuple(home for home in stage.waiting if home != command.home)
    granted = (*stage.granted, command.home)
    if waiting:
        world.put(("stage", stage.id), msgspec.structs.replace(stage, waiting=waiting, granted=granted))
        return None
    world.put(("stage", stage.id), None)
    original = _decoder.decode(stage.command)
    world.reply(original.submit, _place(world, original))
    return None


def abort_stage(world: World, stage: Stage, *, taken: str = "", refused_by: int = -1) -> None:
    """Give back every id that was granted and refuse the command."""
    command = _decoder.decode(stage.command)
    for home, ids in _id_homes(world, command.jobs).items():
        if home == world.home:
            for job_id in ids:
                forget(world, job_id)
        elif home != refused_by:
            world.message(home, system_command(Release, ids=tuple(ids), stage=stage.id))
    world.put(("stage", stage.id), None)
    if taken:
        refusal = _duplicate(taken, refused_by)
        outcome = Outcome(code=refusal.code, message=refusal.message, details=refusal.details)
    else:
        outcome = Outcome(
            code="backend_error", message="The ids could not be reserved in time; nothing was enqueued."
        )
    world.reply(command.submit, outcome)


def release(world: World, command: Release) -> Outcome | None:
    """Message: ids that are not needed any more. With ``stage`` only what that stage holds."""
    for job_id in command.ids:
        held = world.id_record(job_id)
        if command.stage and (held is None or held.stage != command.stage):
            continue
        forget(world, job_id)
    return None


def _place(world: World, command: Enqueue) -> Outcome:
    """Every id is granted: insert what belongs here, send the rest to its homes."""
    moment = command.at or world.now
    stored: list[Raw] = []
    elsewhere: dict[int, list[NewJob]] = {}
    for new in command.jobs:
        record = new_record(world, new, moment)
        home = world.home_of(new.queue)
        if home == world.home:
            insert(world, record)
        else:
            elsewhere.setdefault(home, []).append(new)
        stored.append(Raw(public_json(record)))
    awaits = [world.message(home, _insert(command, jobs), at=moment) for home, jobs in sorted(elsewhere.items())]
    return Outcome(jobs=tuple(stored), awaits=tuple(awaits))


def _insert(command: Enqueue, jobs: list[NewJob]) -> Insert:
    return Insert(v=command.v, actor=command.actor, request=command.request, jobs=tuple(jobs))


def insert_jobs(world: World, command: Insert) -> Outcome | None:
    """Message: jobs that another home has decided on. Their times are those of the first command."""
    for new in command.jobs:
        insert(world, new_record(world, new, command.at or world.now))
    return None


def new_record(world: World, new: NewJob, moment: int) -> JobRecord:
    """The record of a new job at ``moment``; its sequence comes when it is inserted."""
    due = moment + new.delay_ms if new.delay_ms else new.scheduled
    expires = moment + new.expires_in_ms if new.expires_in_ms else new.expires
    waits = due > moment
    state = "pending" if new.pending else "scheduled" if waits else "available"
    created = iso(moment)
    job = Job(
        specversion="1.0",
        id=new.id,
        type=new.type,
        state=state,  # type: ignore[arg-type]
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
    )
    return JobRecord(job, ctl, own(new.extra))
