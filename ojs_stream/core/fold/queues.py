"""Pause, drain, resume and configure a queue (OJS.md 5.6). A queue may be paused before anybody has used it.

A configuration is changed at its home, which tells every other: once answered, a change is in force everywhere.
"""

from __future__ import annotations

from msgspec import structs

from ojs_stream.core.commands import Configure, Configured, Drain, Pause, Resume
from ojs_stream.core.fold import limits, replays
from ojs_stream.core.fold.jobs import ensure_queue
from ojs_stream.core.fold.rooms import own_config
from ojs_stream.core.names import DEFAULT_CONFIG
from ojs_stream.core.outcomes import EventData, Outcome
from ojs_stream.core.records import ConfigRecord, QueueRecord
from ojs_stream.core.times import iso
from ojs_stream.core.world import World, system_command
from ojs_stream.errors import RefusedError


def pause(world: World, command: Pause) -> Outcome:
    """No more claims; enqueue and active jobs are not affected."""
    queue = ensure_queue(world, command.queue)
    moment = queue.paused_at if queue.paused else iso(world.now)
    if not queue.paused:
        world.put(("queue", queue.name), structs.replace(queue, paused=True, paused_at=moment))
        data = EventData(queue=queue.name, paused_by=command.actor, changed_at=moment)
        world.emit("queue.paused", queue.name, data)
    return Outcome(data={"name": queue.name, "paused": True, "paused_at": moment})


def resume(world: World, command: Resume) -> Outcome:
    """Claims, and jobs from clients, again."""
    queue = ensure_queue(world, command.queue)
    refuse_ending(queue)
    config = own_config(world, queue.name)
    draining = config is not None and config.draining
    if config is not None and draining:
        store_config(world, queue.name, structs.replace(config, draining=False))
    moment = iso(world.now)
    if queue.paused:
        changed = structs.replace(queue, paused=False, paused_at=None, resumed_at=moment)
        world.put(("queue", queue.name), changed)
    if queue.paused or draining:
        data = EventData(queue=queue.name, resumed_by=command.actor, changed_at=moment)
        world.emit("queue.resumed", queue.name, data)
    return Outcome(data={"name": queue.name, "paused": False, "resumed_at": moment})


def drain(world: World, command: Drain) -> Outcome:
    """No more jobs from clients; claims go on until the queue is empty, and after it."""
    queue = ensure_queue(world, command.queue)
    config = own_config(world, queue.name) or ConfigRecord(name=queue.name)
    if not config.draining:
        store_config(world, queue.name, structs.replace(config, draining=True))
        world.emit("queue.draining", queue.name, EventData(queue=queue.name, changed_at=iso(world.now)))
    return Outcome(data={"name": queue.name, "paused": queue.paused, "draining": True})


def configure(world: World, command: Configure) -> Outcome:
    """The fields that the command names get their values; ``create`` refuses a queue that exists."""
    known = replays.look(world, command)
    if known is not None and known.outcome is not None:
        return known.outcome
    name = command.queue
    if name != DEFAULT_CONFIG:
        _ensure_configurable(world, command)
    before = own_config(world, name) or ConfigRecord(name=name)
    kept = ConfigRecord(name=name, version=before.version, draining=before.draining) if command.replace else before
    fields = {field: getattr(command.config, field) for field in command.names}
    store_config(world, name, structs.replace(kept, **fields))
    kind = "queue.created" if command.create else "queue.config_updated"
    world.emit(kind, name, EventData(queue=name, changed_at=iso(world.now)))
    return replays.keep(world, command, Outcome(data={"name": name, "version": before.version + 1}))


def _ensure_configurable(world: World, command: Configure) -> None:
    known = world.queue(command.queue)
    if command.create and known is not None and not known.deleted:
        message = f"Queue '{command.queue}' exists already: change its configuration instead."
        raise RefusedError("conflict", message, details={"queue": command.queue})
    refuse_ending(ensure_queue(world, command.queue))


def refuse_ending(queue: QueueRecord) -> None:
    """409 while the queue is being deleted."""
    if queue.ending is not None:
        message = f"Queue '{queue.name}' is being deleted: wait until its last job has ended."
        raise RefusedError("conflict", message, details={"queue": queue.name, "strategy": queue.ending.strategy})


def store_config(world: World, name: str, config: ConfigRecord) -> None:
    """The next version of a configuration, here and at every other home."""
    publish(world, name, structs.replace(config, version=config.version + 1, updated_at=iso(world.now)))


def publish(world: World, name: str, config: ConfigRecord | None) -> None:
    """The configuration as it is now, or that there is none any more, here and at every other home."""
    world.put(("config", name), config)
    queue = world.queue(name) if name != DEFAULT_CONFIG else None
    if queue is not None:
        limits.follow_config(world, queue)
    for home in range(world.homes):
        if home != world.home:
            world.message(home, system_command(Configured, queue=name, config=config))


def configured(world: World, command: Configured) -> Outcome | None:
    """Message: what the home of the queue says. Its messages come in order, so the last one is the truth."""
    world.put(("config", command.queue), command.config)
    return None
