"""Room in bounded and draining queues: an enqueue holds it before its jobs are stored (OJS.md 5.6, 6.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import structs

from ojs_stream.core.config import is_allowed, layered, threshold_of
from ojs_stream.core.fold.jobs import ensure_queue
from ojs_stream.core.names import DEFAULT_CONFIG
from ojs_stream.core.records import ConfigRecord, Hold, Pressure, QueueRecord, Verdict
from ojs_stream.core.world import World

WAITING_OR_RUNNING = ("available", "active", "scheduled", "retryable", "pending")


def own_config(world: World, name: str) -> ConfigRecord | None:
    """What the configuration of this one queue (or template) says, as this home has it."""
    return world.find(("config", name), ConfigRecord)


def config_of(world: World, queue: str) -> ConfigRecord | None:
    """The configuration in force for a queue: its own over the template, as this home has them."""
    own, default = own_config(world, queue), own_config(world, DEFAULT_CONFIG)
    return layered(own, default)


def configs_of(world: World, queues: Iterable[str]) -> dict[str, ConfigRecord]:
    """The configurations in force, of those queues that have one."""
    found = {queue: config_of(world, queue) for queue in queues}
    return {queue: config for queue, config in found.items() if config is not None}


def is_bounded(config: ConfigRecord) -> bool:
    """Whether a queue with this configuration may refuse a job."""
    return bool(config.draining or config.max_size or config.allowed_job_types is not None)


def depth_of(world: World, queue: QueueRecord) -> int:
    """How many jobs wait or run in the queue, those included that room is held for."""
    held = sum(len(places) for places in queue.reserved.values())
    return held + sum(world.count(queue.name, state) for state in WAITING_OR_RUNNING)


def take(world: World, hold: Hold, stage: str) -> Verdict | None:
    """Room for one job at the queue's home, unless the queue is full, draining, or not for such jobs."""
    config = config_of(world, hold.name)
    queue = ensure_queue(world, hold.name)
    if config is not None:
        verdict = _verdict(world, config, queue, hold)
        if verdict is not None:
            return verdict
    held = (*queue.reserved.get(stage, ()), hold.job)
    world.put(("queue", queue.name), structs.replace(queue, reserved={**queue.reserved, stage: held}))
    return None


def _verdict(world: World, config: ConfigRecord, queue: QueueRecord, hold: Hold) -> Verdict | None:
    name = hold.name
    if config.draining:
        message = f"Queue '{name}' is draining: it takes no new jobs until it is resumed."
        return Verdict(job=hold.job, code="queue_draining", message=message, details={"queue": name})
    if not is_allowed(config, hold.type):
        allowed = list(config.allowed_job_types or ())
        message = f"Queue '{name}' takes no jobs of type '{hold.type}', only {', '.join(allowed) or 'none'}."
        details: dict[str, Any] = {"queue": name, "type": hold.type, "allowed_job_types": allowed}
        return Verdict(job=hold.job, code="JOB_TYPE_NOT_ALLOWED", message=message, details=details)
    if not config.max_size:
        return None
    depth = depth_of(world, queue)
    if depth < config.max_size:
        return None
    message = f"Queue '{name}' has {depth} jobs, at most {config.max_size} are accepted."
    details = {"queue": name, "depth": depth, "bound": config.max_size, "strategy": "reject", "type": hold.type}
    return Verdict(job=hold.job, code="QUEUE_FULL", message=message, details=details)


def free(world: World, hold: Hold, stage: str) -> None:
    """The job is not stored. Nothing, if this home had no room for it."""
    queue = world.queue(hold.name)
    held = queue.reserved.get(stage, ()) if queue is not None else ()
    if queue is not None and hold.job in held:
        _keep(world, queue, stage, tuple(place for place in held if place != hold.job))


def give_back(world: World, name: str, stage: str) -> None:
    """The jobs of a stage are stored: what it held in the queue is used."""
    queue = world.queue(name)
    if queue is not None and stage in queue.reserved:
        _keep(world, queue, stage, ())


def _keep(world: World, queue: QueueRecord, stage: str, places: tuple[int, ...]) -> None:
    reserved = {**queue.reserved, stage: places}
    if not places:
        del reserved[stage]
    world.put(("queue", queue.name), structs.replace(queue, reserved=reserved))


def pressure(world: World, holds: Iterable[Hold]) -> Pressure | None:
    """The fullest of the queues of this home that rooms are held in, if it is above its warning threshold."""
    fullest: Pressure | None = None
    for name in sorted(names_of(holds)):
        config, queue = config_of(world, name), world.queue(name)
        if config is None or queue is None or not config.max_size:
            continue
        depth = depth_of(world, queue)
        part = depth / config.max_size
        if part >= threshold_of(config):
            told = Pressure(name, depth, config.max_size, min(1.0, round(part, 4)))
            fullest = fuller(fullest, told)
    return fullest


def fuller(one: Pressure | None, other: Pressure | None) -> Pressure | None:
    """The one of which less is left."""
    if one is None or other is None:
        return one or other
    return other if other.pressure > one.pressure else one


def names_of(holds: Iterable[Hold]) -> set[str]:
    """The queues in which room is held."""
    return {hold.name for hold in holds if hold.kind == "room"}
