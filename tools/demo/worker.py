"""A worker process of the demo: fetch over HTTP, do what the job's type says, ack; what fails is nacked."""

from __future__ import annotations

import asyncio
import multiprocessing
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from tools.demo.api import Api, ApiError
from tools.demo.library import HASH_TYPE, TOTAL_TYPE, UntokenizableError, hash_file, inspect, total_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.process import BaseProcess

FETCH_COUNT = 20
WAIT_MS = 300
STOP_S = 10.0
_CONFLICT = 409
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the workers have done, shared between processes."""

    completed: Synchronized[int]
    dead: Synchronized[int]
    #: Acks and nacks that were refused with 409; their jobs are judged by their records at the end.
    conflicts: Synchronized[int]
    stop: Event

    @property
    def done(self) -> int:
        """Return how many jobs reached their end."""
        return self.completed.value + self.dead.value + self.conflicts.value


def new_progress() -> Progress:
    """Return progress at zero."""
    return Progress(
        completed=_CONTEXT.Value("q", 0),
        dead=_CONTEXT.Value("q", 0),
        conflicts=_CONTEXT.Value("q", 0),
        stop=_CONTEXT.Event(),
    )


class Crew:
    """The worker processes of one run."""

    def __init__(self, *, url: str, queues: Sequence[str], root: str, count: int, progress: Progress) -> None:
        self._progress = progress
        self._processes: list[BaseProcess] = [
            _CONTEXT.Process(
                target=work, args=(url, queues, root, f"{queues[0]}-worker-{number}", progress), daemon=True
            )
            for number in range(1, count + 1)
        ]

    def start(self) -> None:
        """Start all workers."""
        for process in self._processes:
            process.start()

    def all_alive(self) -> bool:
        """Return whether no worker has ended."""
        return all(process.is_alive() for process in self._processes)

    def stop(self) -> None:
        """Ask all workers to end and wait for them."""
        self._progress.stop.set()
        for process in self._processes:
            process.join(STOP_S)
            if process.is_alive():
                process.kill()


def work(url: str, queues: Sequence[str], root: str, worker_id: str, progress: Progress) -> None:
    """Run one worker until it is asked to stop. The target of a worker process."""
    asyncio.run(_Worker(queues=queues, root=Path(root), worker_id=worker_id, progress=progress).run(url))


class _Worker:
    def __init__(self, *, queues: Sequence[str], root: Path, worker_id: str, progress: Progress) -> None:
        self._queues = queues
        self._root = root
        self._worker_id = worker_id
        self._progress = progress

    async def run(self, url: str) -> None:
        async with Api(url) as api:
            while not self._progress.stop.is_set():
                jobs = await self._fetch(api)
                async with asyncio.TaskGroup() as answers:
                    for job in jobs:
                        answers.create_task(self._handle(api, job))

    async def _fetch(self, api: Api) -> list[dict[str, Any]]:
        try:
            return await api.fetch(
                queues=self._queues, worker_id=self._worker_id, count=FETCH_COUNT, wait_ms=WAIT_MS
            )
        except aiohttp.ClientConnectionError:
            if self._progress.stop.is_set():
                return []
            raise

    async def _handle(self, api: Api, job: dict[str, Any]) -> None:
        try:
            await self._answer(api, job)
        except ApiError as error:
            if error.status != _CONFLICT:
                raise
            _add_one(self._progress.conflicts)

    async def _answer(self, api: Api, job: dict[str, Any]) -> None:
        try:
            result = self._result(job)
        except UntokenizableError as error:
            await self._fail(api, job["id"], error)
        else:
            await api.ack(job_id=job["id"], worker_id=self._worker_id, result=result)
            _add_one(self._progress.completed)

    def _result(self, job: dict[str, Any]) -> dict[str, str | int]:
        if job["type"] == TOTAL_TYPE:
            return total_of(job["parent_results"])
        path = self._root / job["args"][0]
        return hash_file(path) if job["type"] == HASH_TYPE else inspect(path).as_result()

    async def _fail(self, api: Api, job_id: str, error: UntokenizableError) -> None:
        report = {"code": "handler_error", "type": error.kind, "message": error.message}
        if await api.nack(job_id=job_id, worker_id=self._worker_id, error=report) == "discarded":
            _add_one(self._progress.dead)


def _add_one(counter: Synchronized[int]) -> None:
    with counter.get_lock():
        counter.value += 1
