"""What views may ask of the store. Position-checked and bounded; lists scatter over the homes and merge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from ojs_stream.core.homes import home_in_id, home_of
from ojs_stream.core.names import MAINTENANCE, is_job_id
from ojs_stream.core.records import (
    CheckpointRecord,
    IdRecord,
    JobRecord,
    Key,
    Maintenance,
    Moved,
    QueueRecord,
    Record,
    decode_record,
    has_room,
)
from ojs_stream.core.selection import Filter
from ojs_stream.core.states import STATES, State
from ojs_stream.errors import UnavailableError
from ojs_stream.store import keys
from ojs_stream.store.cron_reads import CronReads
from ojs_stream.store.event_reads import EventReads
from ojs_stream.store.limit_reads import LimitReads
from ojs_stream.store.lock_reads import LockReads
from ojs_stream.store.queue_reads import QueueReads
from ojs_stream.store.reads import Read, Reads
from ojs_stream.store.scans import (
    Chain,
    Found,
    Keep,
    Newest,
    Page,
    Source,
    Window,
    newest_page,
    read_jobs,
    resumed,
    scored,
)
from ojs_stream.store.walks import Matches, walk
from ojs_stream.store.worker_reads import WorkerReads
from ojs_stream.store.workflow_reads import WorkflowReads

FOLLOW_MAX = 8
"""So many notes (``moved``, id records) a lookup follows."""

Place = tuple[int, str]
"""(home, job id)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs a list shows; ``None`` or empty = all."""

    queue: str | None = None
    states: tuple[State, ...] = ()
    type: str | None = None
    error_type: str | None = None
    since: int | None = None
    until: int | None = None

    def keep(self) -> Keep | None:
        """The part of the filter that needs the records; ``None`` if the indexes answer all of it."""
        return _matches_type(self.type) if self.type else None

    def keep_dead(self) -> Keep | None:
        """As ``keep``, for an index that knows neither queues nor types."""
        if not (self.queue or self.type or self.error_type):
            return None
        return self._matches_dead

    def _matches_dead(self, record: JobRecord) -> bool:
        job = record.job
        if self.queue and job.queue != self.queue:
            return False
        if self.error_type and (job.error is None or job.error.type != self.error_type):
            return False
        return not self.type or _matches_type(self.type)(record)


def _matches_type(wanted: str) -> Keep:
    if wanted.endswith("*"):
        return lambda record: record.job.type.startswith(wanted[:-1])
    return lambda record: record.job.type == wanted


class Queries:
    """Reads for the views; queues, workers, limits, locks, crons, events, workflows have their own classes."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self.homes = reads.homes
        self.queues = QueueReads(reads)
        self.workers = WorkerReads(reads)
        self.limits = LimitReads(reads)
        self.events = EventReads(reads)
        self.workflows = WorkflowReads(reads, self.jobs)
        self.crons = CronReads(reads)
        self.locks = LockReads(reads)
        self._look: _Look | None = None

    # ---------------------------------------------------------------- single jobs

    async def job(self, job_id: str) -> tuple[int, JobRecord] | None:
        """(home, record) of a job, wherever it is; ``None`` if there is none."""
        return (await self.jobs((job_id,))).get(job_id)

    async def jobs(self, job_ids: Iterable[str]) -> dict[str, tuple[int, JobRecord]]:
        """(home, record) by id, for the ids that exist; one pipeline, more only where notes are followed.

        ``UnavailableError`` for an id that is held for a job its home does not have yet: "there is none" would
        be wrong, since the enqueue may have been answered (its message to that home may take its time).
        """
        found: dict[str, tuple[int, JobRecord]] = {}
        places = {place for job_id in job_ids if is_job_id(job_id) for place in self._places(job_id)}
        seen: set[tuple[str, Place]] = set()
        held: set[str] = set()
        for _ in range(FOLLOW_MAX):
            wanted = [place for place in places if place not in seen and place[1][1] not in found]
            if not wanted:
                break
            seen.update(wanted)
            places = await self._follow(wanted, found, held)
        coming = sorted(held - found.keys())
        if coming:
            raise UnavailableError(f"job {coming[0]} is on its way to its home, or just leaving it")
        return found

    async def checkpoint(self, home: int, job_id: str) -> CheckpointRecord | None:
        """The checkpoint of a job of ``home``."""
        key = ("checkpoint", job_id)
        data = await self._reads.one(home, "GET", key)
        record = decode_record(key, data) if data else None
        return record if isinstance(record, CheckpointRecord) else None

    async def maintenance(self) -> Maintenance | None:
        """What maintenance there is, as the home says that decides on it."""
        home = home_of(MAINTENANCE, self.homes)
        data = await self._reads.one(home, "GET", keys.home_state(self._reads.namespace, home))
        return _state.decode(data).maintenance if data else None

    async def replayed(self, key: str) -> bool:
        """Whether an ``Idempotency-Key`` was used (see ``core/fold/replays.py``)."""
        return bool(await self._reads.one(home_of(key, self.homes), "EXISTS", ("replay", key)))

    def _places(self, job_id: str) -> list[tuple[str, Place]]:
        bits = home_in_id(job_id)
        places = [("id", (home_of(job_id, self.homes), job_id))]
        if bits < self.homes:
            places.append(("job", (bits, job_id)))
        return places

    async def _follow(
        self, wanted: Sequence[tuple[str, Place]], found: dict[str, tuple[int, JobRecord]], held: set[str]
    ) -> set[tuple[str, Place]]:
        reads: list[Read] = [(home, "GET", (kind, job_id), ()) for kind, (home, job_id) in wanted]
        onward: set[tuple[str, Place]] = set()
        for (kind, (home, job_id)), data in zip(wanted, await self._reads.many(reads), strict=True):
            record: Record | None = decode_record((kind, job_id), data) if data else None
            if isinstance(record, JobRecord):
                found[job_id] = (home, record)
            elif isinstance(record, Moved):
                onward.add(("job", (record.moved, job_id)))
                held.add(job_id)
            elif isinstance(record, IdRecord):
                onward.add(("job", (record.home, job_id)))
                held.add(job_id)
        return onward

    async def leases(self, worker_id: str, limit: int = 1_000) -> list[JobRecord]:
        """The active jobs of a worker, at every home."""
        wanted: list[Read] = [
            (home, "ZRANGE", ("leases", worker_id), (0, limit - 1)) for home in range(self.homes)
        ]
        answers = await self._reads.many(wanted)
        places = [(home, member.decode()) for home, members in enumerate(answers) for member in members]
        return [record for record in await read_jobs(self._reads, places[:limit]) if record]

    # ---------------------------------------------------------------- lists of jobs

    async def list_jobs(self, wanted: JobFilter, page: Page) -> Found:
        """Jobs state by state and queue by queue: ready order where order matters, else newest first."""
        names = [wanted.queue] if wanted.queue else await self.queues.names()
        states = wanted.states or STATES
        sources = [
            Source(home_of(name, self.homes), key, newest_first=state in _NEWEST_FIRST)
            for state in states
            for name in names
            for key in _indexes_of(name, state)
        ]
        return await Chain(self._reads, sources).page(page, wanted.keep())

    async def matching(self, wanted: Filter) -> AsyncGenerator[Matches, None]:
        """The jobs that a bulk change is for, page by page; they may be changed meanwhile."""
        names = [wanted.queue] if wanted.queue else await self.queues.names()
        async for page in walk(self._reads, wanted, names):
            yield page

    async def dead_letters(self, wanted: JobFilter, page: Page) -> Found:
        """Dead letters of all homes, newest first."""
        after, progress = resumed(page)
        index = Newest(self._reads, ("dead",), Window(since=wanted.since, until=wanted.until, after=after))
        return await newest_page(index, partial(read_jobs, self._reads), page, wanted.keep_dead(), progress)

    # ---------------------------------------------------------------- looking before a claim

    async def look(self, queues: Sequence[str], now_ms: int) -> dict[str, bool]:
        """Whether each queue has something to claim at ``now_ms``; looks of one loop tick share a pipeline."""
        look = self._look
        if look is None:
            look = self._look = _Look()
            look.task = asyncio.get_running_loop().create_task(self._run(look))
        look.names.update(dict.fromkeys(queues))
        look.now_ms = max(look.now_ms, now_ms)
        # The task is shared by views: none of them may cancel it for the others.
        answers = await asyncio.shield(look.task)
        return {name: answers[name] for name in queues}

    async def _run(self, look: _Look) -> dict[str, bool]:
        self._look = None
        names = list(look.names)
        homes = sorted({home_of(name, self.homes) for name in names})
        reads: list[Read] = [(home, "GET", keys.home_state(self._reads.namespace, home), ()) for home in homes]
        for name in names:
            home = home_of(name, self.homes)
            reads.append((home, "ZCARD", ("state", name, "available"), ()))
            reads.append((home, "ZRANGE", ("state", name, "scheduled"), (0, 0, "WITHSCORES")))
            reads.append((home, "ZRANGE", ("state", name, "retryable"), (0, 0, "WITHSCORES")))
            reads.append((home, "GET", ("queue", name), ()))
        states, answers = _split(await self._reads.many(reads), len(homes))
        closed = {home for home, data in zip(homes, states, strict=True) if _in_maintenance(data)}
        return {
            name: home_of(name, self.homes) not in closed and _claimable(answers[at * 4 : at * 4 + 4], look.now_ms)
            for at, name in enumerate(names)
        }


class _State(Struct):
    maintenance: Maintenance | None = None


_state = msgspec.json.Decoder(_State)


def _in_maintenance(data: bytes | None) -> bool:
    return data is not None and _state.decode(data).maintenance is not None


def _split(values: list[Any], at: int) -> tuple[list[Any], list[Any]]:
    return values[:at], values[at:]


class _Look:
    """Which queues are looked at together: everything asked before the task takes its first step."""

    task: asyncio.Task[dict[str, bool]]

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.now_ms = 0


def _claimable(answers: Sequence[Any], now_ms: int) -> bool:
    ready, scheduled, retryable, queue = answers
    due = any(score <= now_ms for _, score in scored(scheduled) + scored(retryable))
    return (ready > 0 or due) and not _closed(queue)


_NEWEST_FIRST = frozenset(("pending", "active", "completed", "cancelled", "discarded"))


def _indexes_of(queue: str, state: State) -> list[Key]:
    """Where the jobs of a state are: those that wait for a slot of a limit come after the ready ones."""
    key = ("state", queue, state)
    return [key, ("held", queue)] if state == "available" else [key]


def _closed(data: bytes | None) -> bool:
    """Paused, or at the limit on the whole queue."""
    record = decode_record(("queue", ""), data) if data else None
    return isinstance(record, QueueRecord) and (record.paused or not has_room(record))
