"""Limits (OJS.md 5.5): who waits for a slot, who has one, and what comes back.

A job under a limit is ``held`` when it becomes available: it is no part of its queue's ready index, so that it
stops nobody behind it. It asks the home of its limit, which grants a slot when there is room. The slot is taken at
once and counted when the job starts; every way out of ``active`` frees it. Each ask of a job has a number, and an
answer to an earlier ask is void: whatever the two homes do at the same time, no slot is lost or given twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import structs

from ojs_stream.core.commands import (
    Command,
    Divert,
    Grant,
    JobNote,
    LimitOverride,
    LimitPause,
    Ungrant,
)
from ojs_stream.core.fold.jobs import Failure, about, announce, asking, change, discard, store
from ojs_stream.core.fold.rooms import config_of
from ojs_stream.core.limits import (
    block_of,
    in_force,
    opens_at,
    override_end,
    queue_room,
    room,
    spacing_ms,
    started,
    window_end,
)
from ojs_stream.core.outcomes import EventData, Outcome
from ojs_stream.core.records import (
    SEQUENCE_SPAN,
    JobRecord,
    Key,
    LimitRecord,
    Moved,
    QueueLimit,
    QueueRecord,
    SlotRecord,
    Watcher,
)
from ojs_stream.core.times import iso
from ojs_stream.core.world import World, system_command
from ojs_stream.errors import RefusedError

GRANTS_MAX = 256
"""So many slots one command grants; the next tick goes on."""
LOOK_MAX = 1_000
"""So many waiting jobs are looked past for one of another queue."""
UNUSED_MS = 5_000
"""A slot that is not used for so long is asked back, if jobs of other queues wait for it."""
ASLEEP_MS = 60_000
"""A queue that has left a slot unused comes after the others for so long, or until it starts a job."""
ASLEEP_MAX = 64
RESCHEDULE_MS = 1_000
"""When nobody knows how long a limit stays full, a job of ``reschedule`` asks again after this."""
FORGET_MS = 3_600_000
"""A limit that nobody uses is forgotten after this."""
NEVER = 2**52
"""``recall_at`` when there is nobody to whom an unused slot could be given."""


# -- what jobs tell -------------------------------------------------------------------------------------------


def keys_of(watcher: Watcher, note: JobNote) -> tuple[Key, ...]:
    """The records that ``observe`` reads."""
    return ("limit", watcher.name), ("slot", note.id)


def observe(world: World, watcher: Watcher, note: JobNote) -> None:
    """A job under the limit has changed its state."""
    world.require(keys_of(watcher, note))
    slot = world.find(("slot", note.id), SlotRecord)
    if slot is not None and (note.created, note.ask) < (slot.created, slot.ask):
        # From the home that the job has left: it has asked again from its new one.
        return
    limit = _with_rule(world.find(("limit", watcher.name), LimitRecord), watcher.name, note)
    if note.state == "active":
        limit = _start(world, limit, slot, note)
    elif note.state == "available":
        limit = _ask(world, limit, slot, note)
    else:
        limit = _move(world, limit, slot, None)
    _keep(world, _pump(world, limit))


def _with_rule(limit: LimitRecord | None, key: str, note: JobNote) -> LimitRecord:
    """The rule of the latest new job is in force."""
    rule = note.limit
    if limit is None:
        limit = LimitRecord(key=key)
    elif note.ask > 1:
        return limit
    if rule is None:
        return limit
    return structs.replace(limit, concurrency=rule.concurrency, rate=rule.rate, throttle=rule.throttle)


def _ask(world: World, limit: LimitRecord, slot: SlotRecord | None, note: JobNote) -> LimitRecord:
    if slot is not None and _is_same(slot, note):
        # Its priority may have changed, or its queue.
        priority, ticket = divmod(note.score, SEQUENCE_SPAN)
        place = priority * SEQUENCE_SPAN + slot.score % SEQUENCE_SPAN
        same = structs.replace(slot, score=place, ticket=ticket, queue=note.queue)
        return _swap(world, _move(world, limit, slot, same))
    limit = _move(world, limit, slot, None)
    new = _new_slot(world, limit, slot, note)
    if limit.recall_at == NEVER:
        limit = structs.replace(limit, recall_at=0)
    if not limit.waiting and room(limit, world.now):
        return _grant(world, limit, [new], waited=False)
    return _no_room(world, limit, new, note)


def _is_same(slot: SlotRecord, note: JobNote) -> bool:
    """No new ask: the job waits, or has its slot."""
    return slot.created == note.created and (slot.ask == note.ask or not note.held)


def _new_slot(world: World, limit: LimitRecord, before: SlotRecord | None, note: JobNote) -> SlotRecord:
    """A job that came back to its old place in its queue (a lost lease) has its old place here too."""
    priority, ticket = divmod(note.score, SEQUENCE_SPAN)
    same = before is not None and (before.created, before.ticket) == (note.created, ticket) and not before.recalled
    place = before.score % SEQUENCE_SPAN if before is not None and same else world.next_sequence()
    return SlotRecord(
        key=limit.key,
        job=note.id,
        state="waiting",
        home=note.home,
        queue=note.queue,
        created=note.created,
        ask=note.ask,
        ticket=ticket,
        score=priority * SEQUENCE_SPAN + place,
    )


def _no_room(world: World, limit: LimitRecord, slot: SlotRecord, note: JobNote) -> LimitRecord:
    block = block_of(limit, world.now)
    data = EventData(
        job_id=slot.job,
        queue=slot.queue,
        key=limit.key,
        strategy=block.strategy,
        limit=block.limit,
        current=block.current,
    )
    world.emit("rate_limit.exceeded", slot.job, data)
    wish = note.limit.on_limit if note.limit is not None else "wait"
    if wish == "wait":
        return _swap(world, _move(world, limit, None, slot))
    again = opens_at(limit, world.now) or world.now + RESCHEDULE_MS
    order = system_command(
        Divert, job_id=slot.job, ask=slot.ask, key=limit.key, until=again if wish == "reschedule" else 0
    )
    if slot.home == world.home:
        divert(world, order)
    else:
        world.message(slot.home, order)
    return limit


def _start(world: World, limit: LimitRecord, slot: SlotRecord | None, note: JobNote) -> LimitRecord:
    if slot is not None and slot.state == "active":
        return limit
    active = structs.replace(slot or _new_slot(world, limit, None, note), state="active", recalled=False)
    limit = _move(world, limit, slot, active)
    bounds = in_force(limit, world.now)
    fields: dict[str, int] = {}
    if bounds.rate is not None:
        fields = started(limit, bounds.rate, note.at, world.now)
    if bounds.throttle is not None:
        fields["next_at"] = max(limit.next_at, note.at + spacing_ms(bounds.throttle))
    awake = {queue: until for queue, until in limit.asleep.items() if queue != note.queue}
    return structs.replace(limit, asleep=awake, **fields)


# -- slots and their counters ---------------------------------------------------------------------------------


def _move(world: World, limit: LimitRecord, before: SlotRecord | None, after: SlotRecord | None) -> LimitRecord:
    """Write a slot; the counters of its limit follow."""
    slot = after or before
    if slot is None:
        return limit
    world.put(("slot", slot.job), after)
    counts = {"waiting": limit.waiting, "granted": limit.granted, "active": limit.active}
    if before is not None:
        counts[before.state] -= 1
    if after is not None:
        counts[after.state] += 1
    return structs.replace(limit, **counts)


def _slots(world: World, members: Iterable[str]) -> list[SlotRecord]:
    keys = [("slot", member.removeprefix("slot:")) for member in members]
    world.require(keys)
    found = [world.find(key, SlotRecord) for key in keys]
    return [slot for slot in found if slot is not None]


def _keep(world: World, limit: LimitRecord) -> None:
    """Write the limit, with what time has to do for it."""
    now = world.now
    recall = (limit.recall_at or now + UNUSED_MS) if limit.waiting and limit.granted else 0
    wakes = [recall] if 0 < recall < NEVER else []
    if limit.waiting:
        wakes.append(now if room(limit, now) else opens_at(limit, now))
    wake = min((at for at in wakes if at), default=0)
    forget = _forget_at(limit, now)
    kept = structs.replace(limit, recall_at=recall, wake_at=wake, forget_at=forget)
    world.put(("limit", limit.key), kept)


def _forget_at(limit: LimitRecord, now: int) -> int:
    """Not before its window, its throttle and its override are over."""
    if limit.waiting or limit.granted or limit.active:
        return 0
    if limit.override is not None and not limit.override.until:
        return 0
    rate = in_force(limit, now).rate
    end = window_end(limit.window, rate) if rate is not None else 0
    return max(now + FORGET_MS, end, limit.next_at, limit.paused_until, override_end(limit))


# -- granting -------------------------------------------------------------------------------------------------


def _pump(world: World, limit: LimitRecord) -> LimitRecord:
    """Grant what there is room for."""
    count = min(room(limit, world.now), limit.waiting, GRANTS_MAX)
    return _grant(world, limit, _next(world, limit, count)) if count else limit


def _next(world: World, limit: LimitRecord, count: int) -> list[SlotRecord]:
    """Who comes next: the best places, jobs of sleeping queues after the others."""
    index = ("waiting", limit.key)
    if not _sleeping(limit, world.now):
        return _slots(world, [member for _, member in world.head(index, count)])
    slots = _slots(world, [member for _, member in world.head(index, LOOK_MAX)])
    asleep = _sleeping(limit, world.now)
    return sorted(slots, key=lambda slot: (slot.queue in asleep, slot.score))[:count]


def _sleeping(limit: LimitRecord, now: int) -> dict[str, int]:
    return {queue: until for queue, until in limit.asleep.items() if until > now}


def _grant(world: World, limit: LimitRecord, slots: Sequence[SlotRecord], *, waited: bool = True) -> LimitRecord:
    """Give these jobs their slots. A job of another home learns it by a message."""
    world.require([("job", slot.job) for slot in slots if slot.home == world.home])
    far: dict[int, list[tuple[str, int]]] = {}
    for slot in slots:
        limit = _move(world, limit, slot if waited else None, structs.replace(slot, state="granted", at=world.now))
        if waited:
            data = EventData(job_id=slot.job, queue=slot.queue, key=limit.key)
            world.emit("rate_limit.released", slot.job, data)
        if slot.home == world.home:
            _release(world, slot.job, slot.ask)
        else:
            far.setdefault(slot.home, []).append((slot.job, slot.ask))
    for home, asks in sorted(far.items()):
        world.message(home, system_command(Grant, asks=tuple(asks)))
    return limit


def _swap(world: World, limit: LimitRecord) -> LimitRecord:
    """A better job waits, a worse one of this home has not started: priority stays strict where it is cheap."""
    if not limit.waiting or not limit.granted or room(limit, world.now):
        return limit
    ((score, best),) = world.head(("waiting", limit.key), 1)
    ((worst, holder),) = world.head(("worst", limit.key), 1)
    if -worst <= score:
        return limit
    better, slot = _slots(world, [best, holder])
    if slot.home != world.home or better.queue in _sleeping(limit, world.now):
        return limit
    freed = _take_back(world, limit, slot, score=slot.score)
    return limit if freed is limit else _grant(world, freed, [better])


def _take_back(world: World, limit: LimitRecord, slot: SlotRecord, *, score: int) -> LimitRecord:
    """A job of this home loses a slot that it has not used; it has asked anew with that."""
    record = world.job(slot.job)
    if not isinstance(record, JobRecord) or not _has_slot(record, slot.ask):
        # What it does now is told already.
        return limit
    world.put(("job", slot.job), change(record, {}, asking(record)))
    back = structs.replace(slot, state="waiting", ask=slot.ask + 1, score=score, at=0)
    return _move(world, limit, slot, back)


# -- what happens because time passes -------------------------------------------------------------------------


def fall_due(world: World, limit: LimitRecord) -> None:
    """A window is over, a slot was not used, an override ends, or nobody wants the limit any more."""
    if 0 < limit.forget_at <= world.now:
        world.put(("limit", limit.key), None)
        return
    if 0 < override_end(limit) <= world.now:
        limit = structs.replace(limit, override=None)
    if 0 < limit.recall_at <= world.now:
        limit = _recall(world, structs.replace(limit, recall_at=0))
    _keep(world, _pump(world, limit))


def _recall(world: World, limit: LimitRecord) -> LimitRecord:
    """Ask unused slots back, as many as jobs of queues that are awake could use."""
    now = world.now
    held = _slots(world, [member for at, member in world.head(("granted", limit.key), GRANTS_MAX)])
    unused = [slot for slot in held if slot.at + UNUSED_MS <= now and not slot.recalled]
    if not unused:
        return limit
    queues = {slot.queue for slot in unused}
    waiting = _slots(world, [member for _, member in world.head(("waiting", limit.key), LOOK_MAX)])
    others = [slot for slot in waiting if slot.queue not in queues]
    if len(queues) > 1:
        others = waiting
    asleep = _sleeping(limit, now)
    users = [slot for slot in others if slot.queue not in asleep]
    if not users:
        again = min((asleep[slot.queue] for slot in others), default=NEVER)
        return structs.replace(limit, recall_at=again)
    asleep.update(dict.fromkeys(sorted(queues), now + ASLEEP_MS))
    limit = structs.replace(limit, asleep=dict(list(asleep.items())[-ASLEEP_MAX:]))
    for slot in unused[: len(users)]:
        limit = _ask_back(world, limit, slot)
    return limit


def _ask_back(world: World, limit: LimitRecord, slot: SlotRecord) -> LimitRecord:
    if slot.home == world.home:
        tail = slot.score // SEQUENCE_SPAN * SEQUENCE_SPAN + world.next_sequence()
        return _take_back(world, limit, slot, score=tail)
    world.message(slot.home, system_command(Ungrant, job_id=slot.job, ask=slot.ask))
    return _move(world, limit, slot, structs.replace(slot, recalled=True))


# -- messages to the jobs' homes ------------------------------------------------------------------------------


def grant(world: World, command: Grant) -> Outcome | None:
    """Message: jobs of this home have slots; they enter the ready index in their places."""
    world.require([("job", job_id) for job_id, _ in command.asks])
    for job_id, ask in command.asks:
        record = world.job(job_id)
        if isinstance(record, Moved):
            world.message(record.moved, system_command(Grant, asks=((job_id, ask),)))
        else:
            _release(world, job_id, ask)
    return None


def _release(world: World, job_id: str, ask: int) -> None:
    record = world.job(job_id)
    if isinstance(record, JobRecord) and _waits(record, ask):
        world.put(("job", job_id), change(record, {}, {"held": False}))


def _waits(record: JobRecord, ask: int) -> bool:
    return record.job.state == "available" and record.ctl.held and record.ctl.ask == ask


def _has_slot(record: JobRecord, ask: int) -> bool:
    return record.job.state == "available" and not record.ctl.held and record.ctl.ask == ask


def ungrant(world: World, command: Ungrant) -> Outcome | None:
    """Message: the slot is given back and asked for anew, unless the job has started: that was told already."""
    record = _job(world, command.job_id, command)
    if record is not None and _has_slot(record, command.ask):
        store(world, change(record, {}, asking(record)))
    return None


def divert(world: World, command: Divert) -> Outcome | None:
    """There is no slot for a job that does not want to wait: it is scheduled for later, or discarded."""
    record = _job(world, command.job_id, command)
    if record is None or not _waits(record, command.ask):
        return None
    if command.until:
        moment = iso(command.until)
        later = change(
            record, {"state": "scheduled", "scheduled_at": moment}, {"since": world.now, "due": command.until}
        )
        announce(world, store(world, later))
        return None
    world.emit("rate_limit.dropped", record.job.id, about(record.job, key=command.key), record)
    message = f"The limit '{command.key}' was reached, and the job asked to be dropped then."
    failure = Failure(code="rate_limited", type="rate_limited", message=message, retryable=False)
    discard(world, record, failure, dead=record.ctl.retry.on_exhaustion == "dead_letter")
    return None


def _job(world: World, job_id: str, command: Command) -> JobRecord | None:
    record = world.job(job_id)
    if isinstance(record, Moved):
        world.message(record.moved, command)
        return None
    return record


# -- what workers and operators say ---------------------------------------------------------------------------


def told_to_wait(world: World, record: JobRecord, until: int, reason: str) -> None:
    """A job has failed because something outside is limited: its limit grants nothing until then."""
    rule = record.ctl.limit
    if rule is None or until <= world.now:
        return
    order = system_command(LimitPause, key=rule.key, until=until, reason=reason)
    if rule.home == world.home:
        pause(world, order)
    else:
        world.message(rule.home, order)


def pause(world: World, command: LimitPause) -> Outcome | None:
    """Message: no slot before ``until``."""
    limit = world.find(("limit", command.key), LimitRecord)
    if limit is not None:
        _keep(world, structs.replace(limit, paused_until=max(limit.paused_until, command.until)))
        data = EventData(key=limit.key, until=iso(command.until), reason=command.reason or None)
        world.emit("rate_limit.dynamic_adjusted", limit.key, data)
    return None


def override(world: World, command: LimitOverride) -> Outcome:
    """Something else in place of the rule; taken away, it takes a pause by ``rate_limit_until`` with it."""
    limit = world.find(("limit", command.key), LimitRecord)
    if command.override is not None:
        limit = structs.replace(limit or LimitRecord(key=command.key), override=command.override)
    elif limit is None:
        raise RefusedError(
            "not_found",
            f"There is no rate limit '{command.key}'.",
            details={"resource_type": "rate_limit", "resource_id": command.key},
        )
    else:
        limit = structs.replace(limit, override=None, paused_until=0)
    _keep(world, _pump(world, limit))
    return Outcome()


# -- limits on whole queues -----------------------------------------------------------------------------------


def claimable(world: World, queue: QueueRecord) -> int:
    """So many jobs a claim may take from the queue. Its limit binds all its jobs: nobody is held for it."""
    return queue_room(follow_config(world, queue), world.count_in(queue, "active"), world.now)


def follow_config(world: World, queue: QueueRecord) -> QueueRecord:
    """The queue's record says what its configuration does: whether a claim is worth asking is seen from it."""
    config = config_of(world, queue.name)
    limit = None
    if config is not None and (config.concurrency or config.rate_limit is not None):
        limit = QueueLimit(concurrency=config.concurrency or None, rate=config.rate_limit)
    if limit != queue.limit:
        queue = structs.replace(queue, limit=limit)
        world.put(("queue", queue.name), queue)
    return queue


def count_starts(world: World, name: str, count: int) -> None:
    """A claim has started jobs of the queue."""
    queue = world.queue(name)
    rate = queue.limit.rate if queue is not None and queue.limit is not None else None
    if queue is not None and rate is not None and count:
        fields = started(queue, rate, world.now, world.now, count)
        world.put(("queue", name), structs.replace(queue, **fields))


def window_over(world: World, queue: QueueRecord) -> None:
    """The window of the queue's own rate is over: its claims go on."""
    world.put(("queue", queue.name), structs.replace(queue, window=0, starts=0))
