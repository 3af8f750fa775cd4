"""The records of one log as another log with another number of homes has them.

Whatever names a home (a lock's, a watcher's, the place of a job) is a function of a name and of N; here it is
computed anew. Positions in queues, instants and attempts stay. Pure: records in, records out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, structs

from ojs_stream.core.commands import NewJob
from ojs_stream.core.homes import home_in_id, home_of, note_home
from ojs_stream.core.limits import limit_home
from ojs_stream.core.records import (
    CheckpointRecord,
    ConfigRecord,
    Control,
    Counts,
    CronRecord,
    Day,
    IdRecord,
    Job,
    JobRecord,
    Key,
    LimitRecord,
    LimitRule,
    LockRecord,
    Minute,
    Moved,
    PlanRecord,
    QueueRecord,
    Record,
    ReplayRecord,
    SlotRecord,
    StepRecord,
    UniqueRule,
    Watcher,
    WorkerRecord,
    WorkflowRecord,
)
from ojs_stream.core.unique import has_queue

_new_jobs = msgspec.json.Decoder(NewJob)
_encoder = msgspec.json.Encoder()

Placed = tuple[int, Key, Record]
"""The home of a record, and the record as it is there."""


class Seat(NamedTuple):
    """Where a job is in the new log."""

    home: int
    decides: int
    """The home that would decide on it: its lock's, else its own."""


class Move:
    """From a log with ``before`` homes to one with ``homes``."""

    def __init__(self, before: int, homes: int) -> None:
        self.before = before
        self.homes = homes
        self.queues: list[str] = []
        """All there are, to be filled before anything else is moved."""
        self.seats: dict[str, Seat] = {}
        """Of all jobs that other records name, to be filled before these are moved."""

    def records(self, key: Key, record: Record) -> Iterator[Placed]:
        """What becomes of a record: itself, and for a job also the notes that lead to it."""
        yield from _MOVERS[type(record)](self, key, record)

    def home_of(self, name: str) -> int:
        """The new home of a name."""
        return home_of(name, self.homes)

    def seat_of(self, record: JobRecord) -> Seat:
        """Where the job is to be."""
        home = self.home_of(record.job.queue)
        unique = record.ctl.unique
        return Seat(home, home if unique is None else self.unique(unique, record.job).home)

    # -- parts of records ---------------------------------------------------------------------------------

    def unique(self, rule: UniqueRule, job: Job | NewJob) -> UniqueRule:
        """A rule with the new home of its lock."""
        return structs.replace(rule, home=self.home_of(self._owner_of_lock(rule, job)))

    def _owner_of_lock(self, rule: UniqueRule, job: Job | NewJob) -> str:
        """The queue whose home has the lock, or the fingerprint: a rule does not say it, its old home tells it."""
        if self._is_of(rule, job, job.queue):
            return job.queue
        if rule.home == home_of(rule.key, self.before):
            return rule.key
        # The job was in another queue when its rule was made.
        return next((queue for queue in self.queues if self._is_of(rule, job, queue)), job.queue)

    def _is_of(self, rule: UniqueRule, job: Job | NewJob, queue: str) -> bool:
        if rule.home != home_of(queue, self.before):
            return False
        return has_queue(rule.key, kind=job.type, queue=queue, args=job.args, meta=job.meta)

    def limit(self, rule: LimitRule) -> LimitRule:
        """A rule with the new home of its limit."""
        return structs.replace(rule, home=limit_home(rule.key, self.homes))

    def watcher(self, watcher: Watcher) -> Watcher:
        """A workflow's step or a cron entry; locks and limits are told by their rules."""
        return structs.replace(watcher, home=self.watching(watcher))

    def watching(self, watcher: Watcher) -> int:
        """The new home of who is told."""
        if watcher.kind == "workflow":
            return note_home(watcher.name.partition(":")[0], self.homes)
        return self.home_of(watcher.name)

    def ruled(self, owner: Control | NewJob, job: Job | NewJob) -> dict[str, Any]:
        """The fields of a job (or of one to be) that name homes."""
        return {
            "unique": owner.unique and self.unique(owner.unique, job),
            "limit": owner.limit and self.limit(owner.limit),
            "watchers": tuple(self.watcher(watcher) for watcher in owner.watchers),
        }

    def new_job(self, data: Raw) -> Raw:
        """A job that is enqueued later."""
        new = _new_jobs.decode(data)
        return Raw(_encoder.encode(structs.replace(new, **self.ruled(new, new))))


def _job(move: Move, key: Key, record: JobRecord) -> Iterator[Placed]:
    job_id, home = record.job.id, move.home_of(record.job.queue)
    origins: list[int] = []
    noted = note_home(job_id, move.homes)
    if noted != home:
        origins.append(noted)
        yield noted, key, Moved(home)
    # A client has chosen the id if hash(id) holds something for the job; or nobody would find it by its bits.
    chosen = home_of(job_id, move.before) in record.ctl.origins
    if chosen or home_in_id(job_id) >= move.homes:
        origins.append(move.home_of(job_id))
        yield origins[-1], ("id", job_id), IdRecord(home=home)
    ctl = structs.replace(record.ctl, origins=tuple(origins), **move.ruled(record.ctl, record.job))
    yield home, key, JobRecord(record.job, ctl, record.extra)


def _nothing(_move: Move, _key: Key, _record: Record) -> Iterator[Placed]:
    """Notes that lead to a job are made anew, with it."""
    return iter(())


def _queue(move: Move, key: Key, record: QueueRecord) -> Iterator[Placed]:
    """Its counters follow from the jobs that come after it."""
    yield move.home_of(record.name), key, structs.replace(record, counts=Counts(), held=0)


def _checkpoint(move: Move, key: Key, record: CheckpointRecord) -> Iterator[Placed]:
    yield move.seats[record.job].home, key, record


def _counted(move: Move, key: Key, record: Minute | Day) -> Iterator[Placed]:
    yield move.home_of(key[1]), key, record


def _config(move: Move, key: Key, record: ConfigRecord) -> Iterator[Placed]:
    """Every home has a copy."""
    for home in range(move.homes):
        yield home, key, record


def _lock(move: Move, key: Key, record: LockRecord) -> Iterator[Placed]:
    holders = tuple(
        structs.replace(holder, home=move.seats[holder.job].home)
        for holder in record.holders
        if holder.job in move.seats
    )
    if holders:
        yield move.seats[holders[0].job].decides, key, LockRecord(key=record.key, holders=holders)


def _slot(move: Move, key: Key, record: SlotRecord) -> Iterator[Placed]:
    yield limit_home(record.key, move.homes), key, structs.replace(record, home=move.home_of(record.queue))


def _limit(move: Move, key: Key, record: LimitRecord) -> Iterator[Placed]:
    yield limit_home(record.key, move.homes), key, record


def _workflow(move: Move, key: Key, record: WorkflowRecord) -> Iterator[Placed]:
    yield note_home(record.id, move.homes), key, record


def _step(move: Move, key: Key, record: StepRecord) -> Iterator[Placed]:
    home = note_home(record.workflow, move.homes)
    seat = move.seats.get(record.job_id)
    yield home, key, structs.replace(record, via=home if seat is None else seat.decides)


def _plan(move: Move, key: Key, record: PlanRecord) -> Iterator[Placed]:
    job = move.new_job(record.job) if isinstance(record.job, Raw) else record.job
    yield note_home(key[1], move.homes), key, structs.replace(record, job=job)


def _cron(move: Move, key: Key, record: CronRecord) -> Iterator[Placed]:
    yield move.home_of(record.name), key, structs.replace(record, job=move.new_job(record.job))


def _worker(move: Move, key: Key, record: WorkerRecord) -> Iterator[Placed]:
    yield move.home_of(record.id), key, record


def _replay(move: Move, key: Key, record: ReplayRecord) -> Iterator[Placed]:
    yield move.home_of(record.key), key, record


_MOVERS: dict[type, Callable[[Move, Key, Any], Iterator[Placed]]] = {
    ConfigRecord: _config,
    QueueRecord: _queue,
    Minute: _counted,
    Day: _counted,
    JobRecord: _job,
    CheckpointRecord: _checkpoint,
    Moved: _nothing,
    IdRecord: _nothing,
    LockRecord: _lock,
    LimitRecord: _limit,
    SlotRecord: _slot,
    WorkflowRecord: _workflow,
    StepRecord: _step,
    PlanRecord: _plan,
    CronRecord: _cron,
    WorkerRecord: _worker,
    ReplayRecord: _replay,
}
"""All but stages, of which a namespace that is exported has none."""


def is_own(key: Key, home: int, homes: int) -> bool:
    """Whether a record is exported from this home: a configuration is at every home, its truth at one."""
    return key[0] != "config" or home_of(key[1], homes) == home
