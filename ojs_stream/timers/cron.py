"""The cron timer: fire the entries of live homes whose next instant has passed.

It computes instants and submits them; what fires is decided in the fold, once, whoever else asks for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from ojs_stream import stamp
from ojs_stream.agents.owner import Owner
from ojs_stream.core.commands import Fire
from ojs_stream.core.records import CronRecord
from ojs_stream.core.world import system_command
from ojs_stream.errors import RefusedError
from ojs_stream.timers.instants import Schedule, due_of
from ojs_stream.timers.ticker import Submit, Ticker

log = structlog.get_logger(__name__)

WAITING_MAX = 2
"""With more jobs of an ``enqueue`` entry that are not over, a warning is logged (ojs-cron 6.1)."""
ReadDue = Callable[[int, int], Awaitable[list[CronRecord]]]
"""(home, now in ms) -> the entries that are due"""


class CronTicker(Ticker):
    """The timer over the index of cron entries."""

    def __init__(self, read_due: ReadDue, *, owners: Callable[[], Iterable[Owner]], submit: Submit) -> None:
        super().__init__("cron", owners=owners, submit=submit)
        self._read_due = read_due

    async def _move(self, home: int) -> int:
        now = stamp.now_ms()
        entries = await self._read_due(home, now)
        return sum(await asyncio.gather(*(self._fire(home, entry, now) for entry in entries)))

    async def _fire(self, home: int, entry: CronRecord, now: int) -> int:
        try:
            due = due_of(schedule_of(entry), entry.next_at, now)
        except RefusedError as error:
            # This machine does not know the zone (any more): the others shall fire all the same.
            log.warning("cron entry cannot be computed", cron=entry.name, reason=error.message)
            return 0
        command = system_command(
            Fire,
            name=entry.name,
            tick=due.tick,
            next_at=due.next_at,
            missed=due.missed,
            version=entry.version,
        )
        outcome = await self._submit(home, command)
        running = int(outcome.data.get("running", 0))
        if entry.overlap == "enqueue" and running > WAITING_MAX:
            log.warning("jobs of a cron entry pile up", cron=entry.name, running=running)
        return int(outcome.data.get("moved", 0))


def schedule_of(entry: CronRecord) -> Schedule:
    """What the entry's instants follow from."""
    return Schedule(entry.expression, entry.timezone, entry.anchor)
