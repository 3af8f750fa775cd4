"""Pause and resume a queue (OJS.md 5.6). A queue may be paused before anybody has used it."""

from __future__ import annotations

from msgspec import structs

from ojs_stream.core.commands import Pause, Resume
from ojs_stream.core.fold.jobs import ensure_queue
from ojs_stream.core.outcomes import EventData, Outcome
from ojs_stream.core.times import iso
from ojs_stream.core.world import World


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
    """Claims again."""
    queue = ensure_queue(world, command.queue)
    moment = iso(world.now)
    if queue.paused:
        changed = structs.replace(queue, paused=False, paused_at=None, resumed_at=moment)
        world.put(("queue", queue.name), changed)
        data = EventData(queue=queue.name, resumed_by=command.actor, changed_at=moment)
        world.emit("queue.resumed", queue.name, data)
    return Outcome(data={"name": queue.name, "paused": False, "resumed_at": moment})
