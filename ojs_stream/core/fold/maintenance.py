"""Maintenance: nothing starts until somebody ends it (ojs-admin-api 12.1). Leases and deadlines go on.

One home decides and tells every other; once answered, it is in force everywhere.
"""

from __future__ import annotations

from ojs_stream.core.commands import Maintain, Maintained
from ojs_stream.core.outcomes import EventData, Outcome
from ojs_stream.core.records import Maintenance
from ojs_stream.core.times import iso
from ojs_stream.core.world import World, system_command


def maintain(world: World, command: Maintain) -> Outcome:
    """``data``: ``since`` and ``ends`` in ms (0: none)."""
    before = world.maintenance
    after = _wanted(world, command) if command.enabled else None
    _set(world, after)
    for home in range(world.homes):
        if home != world.home:
            world.message(home, system_command(Maintained, maintenance=after))
    if (before is None) != (after is None):
        kind = "system.maintenance_started" if after else "system.maintenance_ended"
        world.emit(kind, "system", EventData(reason=command.reason or None, changed_at=iso(world.now)))
    return Outcome(data={"since": after.since if after else 0, "ends": after.ends if after else 0})


def _wanted(world: World, command: Maintain) -> Maintenance:
    known = world.maintenance
    ends = world.now + command.length_ms if command.length_ms else 0
    return Maintenance(since=known.since if known else world.now, reason=command.reason, ends=ends)


def maintained(world: World, command: Maintained) -> Outcome | None:
    """Message: the home that decides says how it is. Its messages come in order, so the last one is the truth."""
    _set(world, command.maintenance)
    return None


def _set(world: World, maintenance: Maintenance | None) -> None:
    world.maintenance = maintenance
    world.needs_release(2)
