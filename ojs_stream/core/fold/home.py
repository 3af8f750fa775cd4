"""The first command of a log, and the reset of the test mode."""

from __future__ import annotations

from ojs_stream.core.commands import Genesis, Reset
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.world import World


def genesis(world: World, command: Genesis) -> Outcome:
    """Name the log. Two workers may race at a cold start: the first record wins, the second says nothing."""
    if not world.log_id:
        world.log_id = command.log_id
    return Outcome()


def reset(world: World, _command: Reset) -> Outcome:
    """Forget every record; ``applied``, sequence, event numbers and marks go on (DESIGN.md section 7)."""
    world.wipe()
    return Outcome(data={"epoch": world.epoch})
