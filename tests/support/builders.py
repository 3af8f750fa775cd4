"""Commands, jobs, and homes folded in memory at times that the test chooses.

``Fold`` writes real packs into a log per home, decodes them, folds them on a ``MemoryStore`` and delivers the
messages between homes: what a test sees went the whole way but for Kafka, Redis and the loop.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from ojs_stream.core.commands import (
    CancelWorkflow,
    Claim,
    Command,
    Enqueue,
    Genesis,
    LimitOverride,
    Maintain,
    Nack,
    NewJob,
    StartWorkflow,
    Tick,
)
from ojs_stream.core.homes import home_in_id, home_of
from ojs_stream.core.limits import limit_home
from ojs_stream.core.names import MAINTENANCE
from ojs_stream.core.outcomes import Effect, Event, Outcome
from ojs_stream.core.records import (
    ConfigRecord,
    HomeState,
    JobRecord,
    Retention,
    UniqueRule,
    decode_record,
    stored_json,
)
from ojs_stream.core.retry import RetryPolicy
from ojs_stream.core.unique import DEFAULT_STATES, deciding_home
from ojs_stream.core.world import Message, NumberedEvent
from ojs_stream.log.codec import decode_pack, encode_pack
from ojs_stream.store import keys
from ojs_stream.store.base import Dump, Store
from ojs_stream.store.commit import Commit, commit_of
from ojs_stream.store.memory import MemoryStore
from ojs_stream.store.rounds import HomeRound, LogEntry, fold_rounds

T = TypeVar("T")

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
START = 1_900_000_000_000
"""Record time of the first command: 2030-03-17T17:46:40Z."""
NAMESPACE = "mem"
KEEP = Retention(completed_ms=7 * DAY, cancelled_ms=7 * DAY, discarded_ms=30 * DAY, dead_ms=180 * DAY)
STEADY = RetryPolicy(
    max_attempts=3,
    initial_ms=SECOND,
    coefficient=1.0,
    max_ms=5 * MINUTE,
    jitter=False,
    strategy="constant",
    on_exhaustion="discard",
)
"""Retries after exactly one second: no dice in a test that is not about them."""
_numbers = itertools.count(1)


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never really waits (everything on a ``MemoryStore``)."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("it waits: this is no work on a memory store")


def server_id(home: int) -> str:
    """An id as the server makes them: its ten lowest bits are ``home``."""
    return f"0197f0a0-0000-7000-8000-{next(_numbers):09x}{home:03x}"


def client_id(homes: int = 1, home: int | None = None) -> str:
    """An id as a client makes them; with ``home`` one whose hash is there."""
    while True:
        job_id = f"0197f0a0-1111-7000-9000-{next(_numbers):012x}"
        if home is None or home_of(job_id, homes) == home:
            return job_id


def queue_at(home: int, homes: int, prefix: str = "q") -> str:
    """A queue of that home."""
    return next(f"{prefix}{n}" for n in itertools.count() if home_of(f"{prefix}{n}", homes) == home)


def worker_at(home: int, homes: int) -> str:
    """A worker of that home."""
    return queue_at(home, homes, prefix="worker-")


def policy(**fields: Any) -> RetryPolicy:
    """``STEADY`` with some fields changed."""
    return msgspec.structs.replace(STEADY, **fields)


def job(queue: str = "default", *, homes: int = 1, **fields: Any) -> NewJob:
    """A job to enqueue, with a server-made id unless ``id`` is given (then it is a client's)."""
    if "id" in fields:
        fields.setdefault("client_id", True)
    given: dict[str, Any] = {
        "id": server_id(home_of(queue, homes)) if "id" not in fields else fields["id"],
        "type": "email.send",
        "queue": queue,
        "args": Raw(b"[1]"),
        "meta": Raw(b"{}"),
        "priority": 0,
        "retry": STEADY,
        "retention": KEEP,
        "timeout_ms": 30 * MINUTE,
        "visibility_timeout_ms": 30 * MINUTE,
        **fields,
    }
    return NewJob(**given)


def unique(key: str = "k", *, homes: int = 1, **fields: Any) -> UniqueRule:
    """A rule with a fingerprint that the test chooses; its lock is at hash(key) unless ``home`` is given."""
    return UniqueRule(**{"key": key, "home": home_of(key, homes), "states": DEFAULT_STATES, **fields})


def command(kind: Callable[..., T], **fields: Any) -> T:
    """A command as a view makes it."""
    return kind(v=1, actor="test", **fields)


def enqueue(*jobs: NewJob) -> Enqueue:
    """Store these jobs, all or none."""
    return command(Enqueue, jobs=jobs, batch=len(jobs) > 1)


def claim(*queues: str, count: int = 1, worker: str = "w1", visibility_ms: int = 0) -> Claim:
    """Lease jobs."""
    names = queues or ("default",)
    return command(Claim, queues=names, count=count, worker_id=worker, visibility_ms=visibility_ms)


def nack(job_id: str, **fields: Any) -> Nack:
    """A failure without any special mark."""
    plain = {"code": "handler_error", "type": "Boom", "message": "it broke", "dice": 0.5}
    return command(Nack, job_id=job_id, **{**plain, **fields})


def tick(index: str, dice: float = 0.25) -> Tick:
    """What a timer submits."""
    return command(Tick, index=index, dice=dice)


def genesis(log_id: str = "00ff00ff00ff00ff", homes: int = 1) -> Genesis:
    """The first command of a partition."""
    return command(Genesis, log_id=log_id, partitions=homes)


def pack(commands: Iterable[Command | bytes]) -> bytes:
    """A record's value."""
    return encode_pack([c if isinstance(c, bytes) else msgspec.json.encode(c) for c in commands])


def entry(offset: int, now: int, value: bytes) -> LogEntry:
    """A record as the owner of the home decodes it."""
    return LogEntry(offset, now, decode_pack(value))


async def fold_round(
    store: Store, state: HomeState, entries: Sequence[LogEntry], *, homes: int, expected: int | None
) -> tuple[HomeRound, Commit]:
    """Load and fold one round; the commit is made, not written."""
    done = HomeRound(state, entries, homes=homes, expected=expected)
    await fold_rounds(store, [done])
    namespace = store.namespace  # type: ignore[attr-defined]
    return done, commit_of(done.world, namespace=namespace, expected=expected, applied=done.last_offset)


Record = tuple[int, bytes]
"""(record time, value)"""


async def replay(store: Store, log: Sequence[Record], home: int, *, homes: int, sizes: Iterable[int] = ()) -> None:
    """Fold a home's whole log into ``store`` in rounds of ``sizes`` records (then one by one)."""
    cuts = iter(sizes)
    state, expected, start = HomeState(home=home), None, 0
    while start < len(log):
        size = max(1, next(cuts, 1))
        entries = [entry(start + i, now, value) for i, (now, value) in enumerate(log[start : start + size])]
        done, commit = await fold_round(store, state, entries, homes=homes, expected=expected)
        assert await store.commit([commit]) == [None]
        state, expected = done.world.state(), done.last_offset
        start += size


class Fold:
    """All homes of a log in memory. ``do`` submits one command and delivers what follows from it."""

    def __init__(self, homes: int = 1, *, deliver: bool = True) -> None:
        self.homes = homes
        self.now = START
        self.deliver = deliver
        self.store = MemoryStore(NAMESPACE)
        self.logs: list[list[Record]] = [[] for _ in range(homes)]
        self.events: list[Event] = []
        self.sent: list[NumberedEvent] = []
        """The same as they leave the home."""
        self.effects: list[tuple[int, Effect]] = []
        self.held: list[Message] = []
        """Messages that were not delivered yet (``deliver=False``)."""
        self._outcomes: dict[str, Outcome] = {}
        self._states = [HomeState(home=home) for home in range(homes)]
        self._submits = itertools.count(1)
        for home in range(homes):
            self.append(home, [genesis(homes=homes)])

    # -- commands -----------------------------------------------------------------------------------------

    def do(self, asked: Command, *, home: int | None = None, after: int = 0) -> Outcome:
        """Fold one command at its home, ``after`` ms later; gives its outcome (also of staged ones)."""
        self.now += after
        (outcome,) = self.do_all([asked], home=self.home_for(asked) if home is None else home)
        return outcome

    def do_all(self, asked: Sequence[Command], *, home: int = 0) -> list[Outcome]:
        """Fold several commands as one record."""
        submits = [f"test:{next(self._submits)}" for _ in asked]
        sealed = [msgspec.structs.replace(one, submit=submit) for one, submit in zip(asked, submits, strict=True)]
        self.append(home, sealed)
        return [self._outcomes.get(submit, Outcome(code="silent")) for submit in submits]

    def heard(self, submit: str) -> Outcome | None:
        """What somebody was answered who waits under this name."""
        return self._outcomes.get(submit)

    def append(self, home: int, commands: Sequence[Command | bytes]) -> None:
        """Put a record into a home's log and fold it; with its messages, when they are delivered."""
        self.append_value(home, pack(commands))

    def append_value(self, home: int, value: bytes) -> None:
        """As ``append``, with the record's bytes."""
        log = self.logs[home]
        log.append((self.now, value))
        state, expected = self._states[home], len(log) - 2 if len(log) > 1 else None
        folded = entry(len(log) - 1, self.now, value)
        done, commit = run(fold_round(self.store, state, [folded], homes=self.homes, expected=expected))
        assert run(self.store.commit([commit])) == [None]
        world = done.world
        self._states[home] = world.state()
        self._outcomes.update(world.replies)
        self.sent.extend(world.events)
        self.events.extend(msgspec.json.decode(event.data, type=Event) for event in world.events)
        self.effects.extend((home, effect.effect) for effect in world.effects)
        self.held.extend(world.messages)
        if self.deliver:
            self.deliver_all()

    def deliver_all(self) -> None:
        """Deliver held messages until there are none."""
        while self.held:
            message = self.held.pop(0)
            self.append(message.destination, [message.data])

    def home_for(self, asked: Command) -> int:
        """Where a view would send the command."""
        if isinstance(asked, Enqueue):
            return home_of(asked.replay, self.homes) if asked.replay else deciding_home(asked.jobs, self.homes)
        if isinstance(asked, Claim):
            return home_of(asked.queues[0], self.homes)
        if isinstance(asked, LimitOverride):
            return limit_home(asked.key, self.homes)
        if isinstance(asked, Maintain):
            return home_of(MAINTENANCE, self.homes)
        if isinstance(asked, StartWorkflow | CancelWorkflow):
            return home_in_id(asked.id)
        for name in ("queue", "worker_id", "name"):
            value = getattr(asked, name, "")
            if value and not hasattr(asked, "job_id") and not hasattr(asked, "job_ids"):
                return home_of(value, self.homes)
        job_id = getattr(asked, "job_id", "") or next(iter(getattr(asked, "job_ids", ())), "")
        return self.where(job_id) if job_id else 0

    def configure(self, queue: str, **fields: Any) -> None:
        """Let every home have this configuration of a queue."""
        data = stored_json(ConfigRecord(name=queue, **fields))
        for home in range(self.homes):
            self.store.data[keys.record(NAMESPACE, home, ("config", queue))] = data

    # -- short words --------------------------------------------------------------------------------------

    def put(self, queue: str = "default", **fields: Any) -> str:
        """Enqueue one job; gives its id."""
        outcome = self.do(enqueue(job(queue, homes=self.homes, **fields)))
        assert not outcome.refused, outcome
        return str(jobs_of(outcome)[0]["id"])

    def take(self, *queues: str, count: int = 1, **fields: Any) -> list[str]:
        """Claim; gives the ids."""
        return [str(each["id"]) for each in jobs_of(self.do(claim(*queues, count=count, **fields)))]

    def active(self, queue: str = "default", *, worker: str = "w1", **fields: Any) -> str:
        """A job that ``worker`` has leased."""
        job_id = self.put(queue, **fields)
        assert self.take(queue, worker=worker) == [job_id]
        return job_id

    def ticks(self, *, after: int = 0) -> None:
        """Both timers look at every home, as often as they ask for more."""
        self.now += after
        for home in range(self.homes):
            for index in ("run", "reap"):
                while self.do(tick(index), home=home).data.get("more"):
                    pass

    # -- what is stored -----------------------------------------------------------------------------------

    def dump(self, home: int = 0) -> Dump:
        """The logical content of a home."""
        return run(self.store.dump(home))

    def dumps(self) -> list[Dump]:
        """The logical contents of all homes."""
        return [self.dump(home) for home in range(self.homes)]

    def record(self, job_id: str) -> JobRecord:
        """The job's record, wherever it is."""
        found = self.find(job_id)
        assert found is not None, f"no job {job_id}"
        return found

    def find(self, job_id: str) -> JobRecord | None:
        """The job's record, or ``None``."""
        for home in range(self.homes):
            data = self.dump(home).get(f"job:{job_id}")
            if data is not None:
                record = decode_record(("job", job_id), data)
                if isinstance(record, JobRecord):
                    return record
        return None

    def where(self, job_id: str) -> int:
        """The home of a job (0 when there is none)."""
        for home in range(self.homes):
            data = self.dump(home).get(f"job:{job_id}")
            if data is not None and not data.startswith(b'{"moved"'):
                return home
        return 0

    def state(self, job_id: str) -> str:
        """The job's state."""
        return self.record(job_id).job.state

    def counts(self, queue: str = "default") -> dict[str, int]:
        """The counters of a queue that are not 0."""
        data = self.dump(home_of(queue, self.homes)).get(f"queue:{queue}")
        counts = json.loads(data).get("counts", {}) if data else {}
        return {name: count for name, count in counts.items() if count}

    def event_types(self, job_id: str) -> list[str]:
        """What happened to a job, in order."""
        return [event.type for event in self.events if event.subject == job_id]

    def effects_of(self, topic: str) -> list[Effect]:
        """The effects for one topic."""
        return [effect for _, effect in self.effects if effect.topic == topic]


def jobs_of(outcome: Outcome) -> list[dict[str, Any]]:
    """The jobs of an outcome as values."""
    assert not outcome.refused, outcome
    return [json.loads(bytes(each)) for each in outcome.jobs]
