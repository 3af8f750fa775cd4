"""The retry agent: holds the nearest records of ``ojs.retry`` until due, then submits ``promote``.

Precise to milliseconds. It may lose what it holds: the due index, written by the nack's own commit, is the
certainty behind it, and a ``promote`` that comes late or twice moves nothing.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable

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
EMPTY_WAIT_S = 60.0
Submit = Callable[[int, Promote], Awaitable[Outcome]]


class RetryRecord(Struct, frozen=True):
    """What a record of ``ojs.retry`` says; the partition is the job's home."""

    job_id: str
    attempt: int
    not_before_ms: int
    epoch: int = 0


_decoder = msgspec.json.Decoder(RetryRecord)


class RetryAgent:
    """A heap of (due, home, record)."""

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self._heap: list[tuple[int, int, str, int, int]] = []
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.skipped = 0

    def offer(self, home: int, value: bytes) -> None:
        """A record of the topic. What cannot be read is left to the due index."""
        try:
            record = _decoder.decode(value)
        except msgspec.DecodeError as error:
            log.warning("unreadable retry record", home=home, reason=str(error))
            return
        if len(self._heap) >= HELD_MAX:
            self.skipped += 1
            return
        heapq.heappush(self._heap, (record.not_before_ms, home, record.job_id, record.attempt, record.epoch))
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
        """Submit what is due; gives the seconds until the next."""
        now = stamp.now_ms()
        while self._heap and self._heap[0][0] <= now:
            _, home, job_id, attempt, epoch = heapq.heappop(self._heap)
            command = system_command(Promote, job_id=job_id, attempt=attempt, epoch=epoch)
            task = asyncio.create_task(self._promote(home, command))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return (self._heap[0][0] - now) / 1000 if self._heap else EMPTY_WAIT_S

    async def _promote(self, home: int, command: Promote) -> None:
        try:
            await self._submit(home, command)
        except OjsError as error:
            log.info("promote left to the scheduler", job=command.job_id, reason=str(error))
