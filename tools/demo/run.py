"""The course of the demo: enqueue every file and let the workers run until each job has reached its end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tools.demo.library import INSPECT_TYPE
from tools.demo.worker import Crew, new_progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from tools.demo.api import Api
    from tools.demo.worker import Progress

BATCH_JOBS = 100
STALL_S = 60.0
"""How long a run may go without one more finished job before the checks say what is missing."""

READS_AT_ONCE = 16
SETTLE_TRIES_MAX = 20
SETTLE_PAUSE_S = 0.5
_POLL_S = 0.1
_TERMINAL = frozenset({"completed", "discarded", "cancelled"})
_RETRY = {"max_attempts": 2, "initial_interval": "PT0.2S", "jitter": False, "on_exhaustion": "dead_letter"}


@dataclass(slots=True)
class Outcome:
    """What a run did, before anything is checked."""

    #: File name of each job id.
    names: dict[str, str] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    dead_letters: list[str] = field(default_factory=list)
    seconds: float = 0.0
    conflicts: int = 0
    stalled: bool = False

    @property
    def jobs_per_second(self) -> float:
        """Return finished jobs per second, from the first enqueue to the last end."""
        return len(self.names) / self.seconds if self.seconds else 0.0


class Run:
    """One demo run on a queue of its own."""

    def __init__(self, api: Api, *, queue: str, files: list[str], bars: Bars) -> None:
        self._api = api
        self._queue = queue
        self._files = files
        self._bars = bars
        self._progress = new_progress()
        self._lines: dict[str, TaskID] = {}
        self._outcome = Outcome()

    async def execute(self, *, url: str, root: str, workers: int) -> Outcome:
        """Enqueue, work, and read back every record and the dead letters."""
        crew = Crew(url=url, queues=[self._queue], root=root, count=workers, progress=self._progress)
        self._lines = {
            name: self._bars.add_task(name, total=len(self._files)) for name in ("enqueued", "completed", "dead")
        }
        crew.start()
        try:
            await self._work(crew)
            await self._read_back()
        finally:
            crew.stop()
        return self._outcome

    async def _work(self, crew: Crew) -> None:
        began = time.perf_counter()
        await asyncio.gather(self._enqueue(), self._watch(crew))
        self._outcome.seconds = time.perf_counter() - began
        self._outcome.conflicts = self._progress.conflicts.value

    async def _enqueue(self) -> None:
        for start in range(0, len(self._files), BATCH_JOBS):
            names = self._files[start : start + BATCH_JOBS]
            job_ids = await self._api.enqueue_batch([self._job(name) for name in names])
            self._outcome.names.update(zip(job_ids, names, strict=True))
            self._bars.update(self._lines["enqueued"], completed=len(self._outcome.names))

    def _job(self, name: str) -> dict[str, Any]:
        return {"type": INSPECT_TYPE, "queue": self._queue, "args": [name], "retry": _RETRY}

    async def _watch(self, crew: Crew) -> None:
        done, moved_at = 0, time.monotonic()
        while done < len(self._files):
            await asyncio.sleep(_POLL_S)
            self._show(self._progress)
            if self._progress.done != done:
                done, moved_at = self._progress.done, time.monotonic()
            elif time.monotonic() - moved_at > STALL_S or not crew.all_alive():
                self._outcome.stalled = True
                return

    def _show(self, progress: Progress) -> None:
        self._bars.update(self._lines["completed"], completed=progress.completed.value)
        self._bars.update(self._lines["dead"], completed=progress.dead.value)

    async def _read_back(self) -> None:
        line = self._bars.add_task("read back", total=len(self._outcome.names))
        gate = asyncio.Semaphore(READS_AT_ONCE)

        async def read(job_id: str) -> None:
            async with gate:
                self._outcome.records[job_id] = await self._settled(job_id)
            self._bars.advance(line)

        await asyncio.gather(*(read(job_id) for job_id in self._outcome.names))
        self._outcome.dead_letters = [job["id"] async for job in self._api.dead_letters(self._queue)]

    async def _settled(self, job_id: str) -> dict[str, Any]:
        """Return a record in its last state; normally the first look is enough."""
        record = await self._api.job(job_id)
        for _ in range(0 if self._outcome.stalled else SETTLE_TRIES_MAX):
            if record["state"] in _TERMINAL:
                break
            await asyncio.sleep(SETTLE_PAUSE_S)
            record = await self._api.job(job_id)
        return record
