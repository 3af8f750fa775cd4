"""Room in bounded and draining queues: an enqueue holds it before its jobs are stored (OJS.md 5.6)."""

from __future__ import annotations

from msgspec import structs

from ojs_stream.core.fold.jobs import ensure_queue
from ojs_stream.core.records import ConfigRecord, Hold, Verdict
from ojs_stream.core.world import World

WAITING_OR_RUNNING = ("available", "active", "scheduled", "retryable", "pending")


def config_of(world: World, queue: str) -> ConfigRecord | None:
    """The configuration of a queue as this home has it."""
    return world.find(("config", queue), ConfigRecord)


def is_bounded(world: World, queue: str) -> bool:
    """Whether the queue may refuse a job."""
    config = config_of(world, queue)
    return config is not None and (config.draining or config.max_size > 0)


def take(world: World, hold: Hold, _stage: str) -> Verdict | None:
    """Room for one job at the queue's home, unless the queue is full or draining."""
    config = config_of(world, hold.name)
    queue = ensure_queue(world, hold.name)
    if config is not None and config.draining:
        message = f"Queue '{hold.name}' is draining: it takes no new jobs."
        return Verdict(job=hold.job, code="queue_draining", message=message, details={"queue": hold.name})
    depth = queue.reserved + sum(world.count(hold.name, state) for state in WAITING_OR_RUNNING)
    if config is not None and config.max_size and depth >= config.max_size:
        message = f"Queue '{hold.name}' has {depth} jobs, at most {config.max_size} are accepted."
        details = {"queue": hold.name, "depth": depth, "bound": config.max_size, "strategy": "reject"}
        return Verdict(job=hold.job, code="QUEUE_FULL", message=message, details=details)
    world.put(("queue", queue.name), structs.replace(queue, reserved=queue.reserved + 1))
    return None


def free(world: World, hold: Hold, _stage: str) -> None:
    """The job is not stored."""
    give_back(world, hold.name, 1)


def give_back(world: World, name: str, count: int) -> None:
    """Jobs are stored, or will not be: what was held for them is free."""
    queue = ensure_queue(world, name)
    world.put(("queue", name), structs.replace(queue, reserved=max(0, queue.reserved - count)))
