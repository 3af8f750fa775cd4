"""Submit a tick for every live home whose earliest deadline has passed.

How long a timer itself rests is measured by a clock that nobody sets: by the wall clock it would rest for an
hour when that is set back by an hour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from math import inf
from time import monotonic
from typing import Literal

import structlog
from msgspec import Struct
from redis.exceptions import RedisError

from ojs_stream import stamp
from ojs_stream.agents.owner import Owner
from ojs_stream.core.commands import Command, Tick
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.world import system_command
from ojs_stream.errors import OjsError

log = structlog.get_logger(__name__)

PULSE_MS = 2_000
"""A home that watches leases or workers appends at least so often: silence then means an outage."""
BACKOFF_MS_MAX = 1_000
"""A tick that moved nothing (local and broker clocks differ) is repeated later and later."""
Submit = Callable[[int, Command], Awaitable[Outcome]]


class TickResult(Struct, frozen=True):
    """What one look did: homes that got a tick."""

    ticked: tuple[int, ...]


class Ticker:
    """A timer over one due index: ``run`` (scheduler), ``reap`` (reaper), or ``cron`` (see ``timers/cron.py``)."""

    def __init__(
        self,
        index: Literal["run", "reap", "cron"],
        *,
        owners: Callable[[], Iterable[Owner]],
        submit: Submit,
    ) -> None:
        self.index = index
        self._owners = owners
        self._submit = submit
        self._busy: dict[int, asyncio.Task[None]] = {}
        self._not_before: dict[int, float] = {}
        self._idle: dict[int, int] = {}
        self._pulsed: dict[int, float] = {}

    async def run_once(self) -> TickResult:
        """Look at every live home once; the ticks go on in the background."""
        now = stamp.now_ms()
        ticked = []
        for owner in self._owners():
            if owner.live and owner.home not in self._busy and self._is_due(owner, now):
                ticked.append(owner.home)
                task = asyncio.create_task(self._tick(owner), name=f"tick-{self.index}-{owner.home}")
                self._busy[owner.home] = task
                task.add_done_callback(lambda _, home=owner.home: self._busy.pop(home, None))  # type: ignore[misc]
        return TickResult(tuple(ticked))

    def _is_due(self, owner: Owner, now: int) -> bool:
        if monotonic() < self._not_before.get(owner.home, 0.0):
            return False
        deadline = owner.deadlines[self.index]
        return (deadline is not None and deadline <= now) or self._wants_pulse(owner, now)

    def _wants_pulse(self, owner: Owner, now: int) -> bool:
        if self.index != "reap" or not owner.state.watched:
            return False
        rested_s = monotonic() - self._pulsed.get(owner.home, -inf)
        return now - owner.state.last > PULSE_MS and rested_s > PULSE_MS / 1000

    async def _tick(self, owner: Owner) -> None:
        try:
            due = await self._still_due(owner)
            if not due and not self._wants_pulse(owner, stamp.now_ms()):
                return
            self._pulsed[owner.home] = monotonic()
            moved = await self._move(owner.home)
            if due:
                self._note(owner.home, moved)
            await owner.refresh_deadline(self.index)
        except (OjsError, RedisError, OSError, TimeoutError) as error:
            self._note(owner.home, 0)
            log.info("tick failed", home=owner.home, index=self.index, reason=str(error))

    async def _move(self, home: int) -> int:
        """Have what is due moved; gives how much it was."""
        outcome = await self._submit(home, system_command(Tick, index=self.index, dice=stamp.dice()))
        return int(outcome.data.get("moved", 0))

    async def _still_due(self, owner: Owner) -> bool:
        """The deadline in memory may be of a job that has moved on since."""
        await owner.refresh_deadline(self.index)
        deadline = owner.deadlines[self.index]
        return deadline is not None and deadline <= stamp.now_ms()

    def _note(self, home: int, moved: int) -> None:
        if moved:
            self._idle.pop(home, None)
            self._not_before.pop(home, None)
            return
        idle = self._idle[home] = self._idle.get(home, 0) + 1
        self._not_before[home] = monotonic() + min(BACKOFF_MS_MAX, 10 * 2 ** min(idle, 7)) / 1000
