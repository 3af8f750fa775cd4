"""The retry agent: holds the nearest records of ``ojs.retry`` until due, then submits ``promote``.

Precise to milliseconds. What is due at once goes out in packs, one at a time for each home: an outage leaves no
crowd of tasks. It may lose what it holds: the due index, written by the nack's own commit, is the certainty
behind it, and a ``promote`` that comes late or twice moves nothing.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog
from msgspec import Struct

from ojs_stream import stamp
from ojs_stream.core.commands import Promote
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.world import system_command
from ojs_stream.errors import OjsError

log = structlog.get_logger(__name__)
HELD_MAX = 100_000
PACK_COMMANDS_MAX = 256
OVERDUE_MS_MAX = 5_000
"""Later than this a record is skipped: the scheduler has moved its job, or will with the next ticks."""
EMPTY_WAIT_MS = 60_000
SubmitPack = Callable[[int, Sequence[Promote]], Awaitable[list[Outcome]]]
_Held = tuple[int, str, int, int]
"""(due, job id, attempt, epoch)"""


class RetryRecord(Struct, frozen=True):
    """What a record of ``ojs.retry`` says; the partition is the job's home."""

    job_id: str
    attempt: int
    not_before_ms: int
    epoch: int = 0


_decoder = msgspec.json.Decoder(RetryRecord)


class RetryAgent:
    """A heap of what is held for each home, and at most one pack of each home on its way."""

    def __init__(self, submit_pack: SubmitPack) -> None:
        self._submit_pack = submit_pack
        self._heaps: dict[int, list[_Held]] = {}
        self._count = 0
        self._wake = asyncio.Event()
        self._flying: dict[int, asyncio.Task[None]] = {}
        self.skipped = 0

    def offer(self, home: int, value: bytes) -> None:
        """A record of the topic. What cannot be read is left to the due index."""
        try:
            record = _decoder.decode(value)
        except msgspec.DecodeError as error:
            log.warning("unreadable retry record", home=home, reason=str(error))
            return
        if self._count >= HELD_MAX:
            self.skipped += 1
            return
        held = (record.not_before_ms, record.job_id, record.attempt, record.epoch)
        heapq.heappush(self._heaps.setdefault(home, []), held)
        self._count += 1
        self._wake.set()

    async def run(self) -> None:
        """Promote what is due, for ever."""
        while True:
            self._wake.clear()
            wait_s = self._promote_due()
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _promote_due(self) -> float:
        """A pack for every home that has something due and none on its way; gives the seconds until the next."""
        now = stamp.now_ms()
        for home, heap in self._heaps.items():
            if home not in self._flying:
                pack = self._take_due(heap, now)
                if pack:
                    self._send(home, pack)
        firsts = [heap[0][0] for home, heap in self._heaps.items() if heap and home not in self._flying]
        return (min(firsts, default=now + EMPTY_WAIT_MS) - now) / 1000

    def _take_due(self, heap: list[_Held], now: int) -> list[Promote]:
        due: list[_Held] = []
        while heap and heap[0][0] <= now and len(due) < PACK_COMMANDS_MAX:
            due.append(heapq.heappop(heap))
        timely = [held for held in due if held[0] >= now - OVERDUE_MS_MAX]
        self._count -= len(due)
        self.skipped += len(due) - len(timely)
        return [
            system_command(Promote, job_id=job_id, attempt=attempt, epoch=epoch)
            for _, job_id, attempt, epoch in timely
        ]

    def _send(self, home: int, pack: Sequence[Promote]) -> None:
        task = self._flying[home] = asyncio.create_task(self._promote(home, pack), name=f"promote-{home}")
        task.add_done_callback(lambda _: self._landed(home))

    def _landed(self, home: int) -> None:
        del self._flying[home]
        self._wake.set()

    async def _promote(self, home: int, pack: Sequence[Promote]) -> None:
        try:
            await self._submit_pack(home, pack)
        except OjsError as error:
            log.info("promotes left to the scheduler", home=home, commands=len(pack), reason=str(error))
        except Exception:  # a bug must be seen; the home's next pack may fare better
            log.exception("promotes failed", home=home, commands=len(pack))
