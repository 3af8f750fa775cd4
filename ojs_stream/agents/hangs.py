"""The last resort: a worker that believes it hangs says why and ends, so that its supervisor starts another.

Consumers have been seen to fall silent for good after a reconnect. The routine of ``Owner`` reads the log with a
consumer of its own and heals most of that; this is for what it cannot heal. An outage is no hang: while Kafka or
Redis are known to be away, a restart would not help, and the time does not count. Nothing is lost by the end of
a process: what is in the log is folded by whoever owns the home next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import structlog

from ojs_stream.agents.owner import Owner
from ojs_stream.errors import UnavailableError

log = structlog.get_logger(__name__)

LOOK_S = 1.0
STEP_S_MAX = 2.0
"""A longer pause between two looks was a pause of the whole process: it says nothing of its consumers."""


class Ends(Protocol):
    """Where the partitions of the command topic end."""

    async def end_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """Partition -> the offset after its last record."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Why a worker believes that it hangs."""

    home: int
    what: str
    applied: int | None
    heard: int
    end: int
    seconds: float
    tried: str


class _Quiet:
    """For how long something has stood still that should not."""

    def __init__(self) -> None:
        self._last: object = None
        self.seconds = 0.0

    def look(self, mark: object, *, waits: bool, step_s: float) -> float:
        """``mark`` changes with every sign of life; ``waits`` says whether there is anything to do."""
        still = waits and (mark, waits) == self._last
        self.seconds = self.seconds + step_s if still else 0.0
        self._last = (mark, waits)
        return self.seconds


class _Seen:
    """What was seen of one owner."""

    def __init__(self, end: int) -> None:
        self.first_end = end
        """What was in the log before may have been delivered to an owner before."""
        self.folding = _Quiet()
        self.hearing = _Quiet()


class Hangs:
    """Looks at every home of a worker; ``give_up`` is called with the first that hangs for ``limit_s``."""

    def __init__(
        self,
        *,
        owners: Callable[[], Iterable[Owner]],
        ends: Ends,
        outage: Callable[[], str],
        give_up: Callable[[Hang], None],
        limit_s: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._owners = owners
        self._ends = ends
        self._outage = outage
        self._give_up = give_up
        self._limit_s = limit_s
        self._clock = clock
        self._looked_at = clock()
        self._seen: dict[Owner, _Seen] = {}

    async def run_once(self) -> None:
        """Look once."""
        owners = [owner for owner in self._owners() if owner.working]
        ends = await self._current_ends(owners)
        now = self._clock()
        step_s, self._looked_at = min(now - self._looked_at, STEP_S_MAX), now
        self._seen = {owner: self._seen.get(owner) or _Seen(ends[owner.home]) for owner in owners if ends}
        for owner, seen in self._seen.items():
            hang = self._judge(owner, seen, ends[owner.home], step_s)
            if hang is not None:
                self._give_up(hang)
                return

    async def _current_ends(self, owners: list[Owner]) -> dict[int, int]:
        """Nothing during an outage: what was seen before it does not count any more."""
        if not owners or self._outage():
            return {}
        try:
            return await self._ends.end_offsets([owner.home for owner in owners])
        except UnavailableError as error:
            log.info("hangs are not looked for", reason=str(error))
            return {}

    def _judge(self, owner: Owner, seen: _Seen, end: int, step_s: float) -> Hang | None:
        alive = (owner.applied, owner.vitals.excuses)
        waits = end > max(owner.next, owner.vitals.read_to)
        quiet_s = seen.folding.look(alive, waits=waits, step_s=step_s)
        if quiet_s >= self._limit_s:
            return self._hang(owner, "records are in the log and nothing is applied", end, quiet_s)
        missed = end > max(owner.vitals.heard + 1, seen.first_end)
        quiet_s = seen.hearing.look(owner.vitals.heard, waits=missed, step_s=step_s)
        if quiet_s >= self._limit_s:
            return self._hang(owner, "records were appended and the consumer delivers none", end, quiet_s)
        return None

    @staticmethod
    def _hang(owner: Owner, what: str, end: int, seconds: float) -> Hang:
        return Hang(owner.home, what, owner.applied, owner.vitals.heard, end, round(seconds, 1), owner.story)
