"""Where the homes of a worker stand, for the metrics page."""

from __future__ import annotations

import structlog

from ojs_stream import stamp
from ojs_stream.agents.engine import EndOffsets, Engine
from ojs_stream.agents.owner import Owner
from ojs_stream.errors import UnavailableError
from ojs_stream.telemetry.facts import PartitionFacts

log = structlog.get_logger(__name__)


async def positions_of(engine: Engine, ends: EndOffsets) -> tuple[PartitionFacts, ...]:
    """Every home that is assigned here; without ends and lags while Kafka does not answer."""
    try:
        known = await ends.end_offsets(list(engine.owners))
    except UnavailableError as error:
        log.info("no end offsets for the metrics page", reason=str(error))
        known = {}
    now_ms = stamp.now_ms()
    owners = sorted(engine.owners.values(), key=lambda owner: owner.home)
    return tuple(_position(owner, known.get(owner.home), engine.idle_s(owner.home), now_ms) for owner in owners)


def _position(owner: Owner, end: int | None, idle_s: float, now_ms: int) -> PartitionFacts:
    behind = owner.phase != "live" or (end is not None and end > owner.next)
    return PartitionFacts(
        home=owner.home,
        phase=owner.phase,
        applied=owner.next - 1,
        end=end,
        oldest_s=_oldest_s(owner, idle_s, now_ms) if behind else 0.0,
        unsent=owner.backlog,
    )


def _oldest_s(owner: Owner, idle_s: float, now_ms: int) -> float:
    """The age of the next record; of one that is not here the most that it can be.

    It was written after the last one that is applied. A live home looks at the end of its log twice a second and
    knows since when it has been behind.
    """
    since = owner.next_since_ms
    if since is None and owner.live:
        return idle_s
    since = since or owner.state.last
    return max(0, now_ms - since) / 1000 if since else 0.0
