"""One home on this worker: its position, its buffer, and the one routine that brings it (back) to life.

The owner folds only the record at ``applied + 1``. Whatever goes wrong (a gap, a fence, an I/O error, a wiped
or old Redis, the watchdog) ends in ``_recover``: read ``applied``, read the gap from the log, look at what the
topics already have, send the rest, go live (DESIGN.md section 7). Nothing here runs inside Faust's rebalance
callbacks; ``close`` only sets a flag that is checked after every wait and right before a commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal, Protocol

import structlog
from msgspec import UNSET
from redis.exceptions import RedisError

from ojs_stream import stamp
from ojs_stream.agents.restore import LogSpan, Restore, nothing_fits
from ojs_stream.core.commands import Genesis
from ojs_stream.core.known import Known
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.portions import portions
from ojs_stream.core.records import STATE_VERSION, HomeState
from ojs_stream.core.world import Message, NumberedEvent, World
from ojs_stream.errors import FencedError, LogRefusedError, NewerVersionError, StalledError, UnavailableError
from ojs_stream.log.codec import decode_pack
from ojs_stream.log.gateway import Gateway
from ojs_stream.log.outbox import Outbox, Sender, stored_event, stored_outbox
from ojs_stream.log.reader import LogRecord
from ojs_stream.log.topics import Topics
from ojs_stream.store.base import Store
from ojs_stream.store.commit import OUTCOME_S, commit_of, message_field
from ojs_stream.store.reads import Positions
from ojs_stream.store.rounds import HomeRound, LogEntry, fold_rounds
from ojs_stream.telemetry.meters import HomeMeter

log = structlog.get_logger(__name__)

BUFFER_RECORDS_MAX = 20_000
BUFFER_BYTES_MAX = 64 * 1024 * 1024
"""Beyond these live records are dropped and read again from the log: bounded memory, nothing lost."""
ROUND_RECORDS_MAX = 64
ROUND_BYTES_MAX = 512 * 1024
"""A round folds without a wait: so much is about 1,000 commands, 20 ms."""
UNSENT_EVENTS_MAX = 2_000
"""With more unsent events the home folds nothing: the ring must not run over them."""
RECOVER_WAIT_S = (0.05, 0.2, 0.5)
"""Waits before another try, the last one again and again: nobody is served meanwhile, a try costs little."""
REFUSED_RETRY_S = 5.0
MESSAGES_HOLD_S = 60.0
"""How long a rebuilt home waits for the other homes' marks before it sends messages again."""
HELD_MESSAGES_MAX = 2_000
"""With so many more held by a catch-up, those that their destinations have folded by now are let go."""
OUTCOME_AGE_MS_MAX = OUTCOME_S * 1000
DUE_INDEXES = ("run", "reap", "cron")
"""What the timers look at: scheduled and retryable jobs, everything that ends, cron entries."""
NEWER_CURE = (
    "upgrade this worker. Nothing is lost: a worker of the newer release folds it when it gets this partition."
)
OUTBOX_TOPICS = ("events", "retry", "dead", "commands.dead")
Phase = Literal["starting", "catching_up", "live", "refused", "closed"]


class Reader(Protocol):
    """The part of the log reader that an owner needs."""

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset still there, and the offset after the last."""

    def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncIterator[list[LogRecord]]:
        """Records from ``start`` up to ``stop`` (exclusive)."""

    async def tail_position(self, topic: str, partition: int) -> int:
        """The highest ``ojs-position`` at the end of a topic."""


@dataclass(slots=True, kw_only=True)
class Wiring:
    """What every owner of a worker shares."""

    store: Store
    namespace: str
    homes: int
    topics: Topics
    sender: Sender
    open_reader: Callable[[], AbstractAsyncContextManager[Reader]]
    gateway: Gateway
    positions: Positions
    wake: Callable[[], None]
    """There is something to fold."""
    on_commit: Callable[[Owner, World], None]
    """After every commit, live or catching up: hints and deadlines."""
    on_event: Callable[[NumberedEvent], None] | None = None
    publish: Callable[[str, int, int, list[tuple[str, Outcome]]], None]
    """(instance, home, applied, replies) for views of another worker."""


@dataclass(slots=True)
class Progress:
    """Where a catch-up stands, for ``/ready``."""

    done: int = 0
    """Records of the log, of ``total``."""
    total: int = 0
    reason: str = ""
    commands: int = 0
    """How many commands those records had."""
    begun: float = field(default_factory=monotonic)

    def folded(self, done: HomeRound) -> None:
        """A round of the gap is committed."""
        self.done += len(done.entries)
        self.commands += sum(len(entry.commands) for entry in done.entries)

    def shown(self) -> dict[str, Any]:
        """Records done and in all; commands left, their rate, and the seconds that it will take at that rate.

        How many commands a record has is known once it is read: those to come are taken to be like those that
        were. Before the first round nobody knows: no prediction.
        """
        left = max(0, self.total - self.done)
        shown: dict[str, Any] = {"done": self.done, "total": self.total}
        if not left or not self.done:
            return {
                **shown,
                "commands_left": 0 if not left else None,
                "commands_per_s": None,
                "seconds_left": None,
            }
        rate = self.commands / max(monotonic() - self.begun, 0.001)
        commands = left * self.commands / self.done
        return {
            **shown,
            "commands_left": round(commands),
            "commands_per_s": round(rate),
            "seconds_left": round(commands / rate, 1) if rate else None,
        }


@dataclass(slots=True)
class Vitals:
    """Signs of life, for who looks for hangs."""

    heard: int = -1
    """The highest offset that the group's consumer has delivered."""
    read_to: int = 0
    """A catch-up has read the log up to here, excluding."""
    excuses: int = 0
    """Rises when it stands still for a known reason: Kafka or Redis were not there for a recovery."""


@dataclass(slots=True)
class _Limbo:
    """A round whose commit is unknown: if ``applied`` shows it, its outcomes are right whoever wrote it."""

    offset: int
    replies: list[tuple[str, Outcome]] = field(default_factory=list)


def _bytes_of(record: LogRecord) -> int:
    return len(record.value)


def entry_of(record: LogRecord) -> LogEntry:
    """The commands of a log record."""
    return LogEntry(record.offset, record.timestamp_ms, decode_pack(record.value))


def check_version(state: HomeState, holder: str) -> None:
    """``NewerVersionError`` when only a newer release can read the home's records."""
    version = 1 if state.v is UNSET else state.v
    if version > STATE_VERSION:
        raise NewerVersionError(
            f"{holder} holds the records of partition {state.home} in version {version}, this release reads 1 to "
            f"{STATE_VERSION}: {NEWER_CURE}"
        )


def _earlier(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)


class Owner:
    """A home that is assigned to this worker."""

    commands = 0
    """How many of them this owner has folded."""

    def __init__(self, home: int, wiring: Wiring) -> None:
        self.home, self.meter = home, HomeMeter()
        self.phase: Phase = "starting"
        self.progress, self.vitals = Progress(), Vitals()
        self.state = HomeState(home=home)
        self.applied: int | None = None
        self.closed = False
        self.recoveries = 0
        self.lost_events = 0
        """Events that the ring no longer had when they were to be sent."""
        self._wiring = wiring
        self._buffer: dict[int, LogRecord] = {}
        self._buffer_bytes = self._expected = 0
        self._delivered = self._highest_dropped = -1
        self._alarm = asyncio.Event()
        self._why = "assigned"
        self._limbo: list[_Limbo] = []
        self._outbox: Outbox | None = None
        self._held: list[Message] = []
        self._holding = True
        self._held_floor = 0
        """How many messages were still held when the marks of their destinations were last looked at."""
        self._known = Known()
        self._ahead: HomeRound | None = None
        """The round whose commit is under way: the next one is folded on it."""
        self._releasing: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.deadlines: dict[str, int | None] = dict.fromkeys(DUE_INDEXES)
        """The earliest entry of each due index as far as it is known: never later than the store's."""
        self._noted: dict[str, int | None] = dict.fromkeys(DUE_INDEXES)
        self._refreshing = asyncio.Lock()

    # -- from outside -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take the home over, in a task of its own."""
        self._task = asyncio.create_task(self._run(), name=f"owner-{self.home}")

    def close(self) -> None:
        """Somebody else owns the home now (or soon). Only flags: the rebalance callback must not wait."""
        self.closed = True
        self.phase = "closed"
        self._wiring.positions.accept(self.home)
        self._alarm.set()
        self._close_outbox()

    def _close_outbox(self) -> None:
        if self._releasing is not None:
            self._releasing.cancel()
        if self._outbox is not None:
            self._outbox.close()

    async def closed_down(self) -> None:
        """Wait until nothing of this owner runs any more."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=5.0)

    @property
    def live(self) -> bool:
        """Whether the home folds live records."""
        return self.phase == "live"

    @property
    def working(self) -> bool:
        """Whether it should make progress."""
        return self.phase not in ("refused", "closed")

    @property
    def story(self) -> str:
        """What it has tried, for a log line."""
        told = f"{self.phase}; {self.recoveries} recoveries, the last one because: {self._why}"
        return f"{told}; {self.progress.done} of {self.progress.total} records read"

    @property
    def next(self) -> int:
        """The only offset that may be folded."""
        return 0 if self.applied is None else self.applied + 1

    @property
    def unsent(self) -> int:
        """Events, effects and messages that their topics do not have yet."""
        box = self._outbox
        return 0 if box is None else len(box.events) + len(box.effects) + len(box.messages)

    @property
    def backlog(self) -> dict[str, int]:
        """The same by lane, and the messages that wait until it is known what their destinations have folded."""
        box = self._outbox
        if box is None:
            return {}
        lanes = {"events": len(box.events), "effects": len(box.effects), "messages": len(box.messages)}
        return {**lanes, "held": len(self._held)}

    @property
    def next_since_ms(self) -> int | None:
        """When the record that is to be folded next was written, if it is here."""
        record = self._buffer.get(self._expected)
        return None if record is None else record.timestamp_ms

    def go_live(self) -> None:
        """From here on live records are folded, the first one is ``next``."""
        self._expected, self._delivered = self.next, -1
        self.phase = "live"

    def offer(self, record: LogRecord) -> bool:
        """A live record from the agent; whether it is news. These come in order: what they skip is a gap."""
        self._delivered = max(self._delivered, record.offset)
        self.vitals.heard = max(self.vitals.heard, record.offset)
        return self._keep(record)

    def foresee(self, record: LogRecord) -> None:
        """A record that this worker has written itself: acknowledged, it need not wait for its delivery."""
        self._keep(record)

    def _keep(self, record: LogRecord) -> bool:
        if self.phase == "live" and (record.offset < self._expected or record.offset in self._buffer):
            return False
        full = len(self._buffer) >= BUFFER_RECORDS_MAX or self._buffer_bytes > BUFFER_BYTES_MAX
        if self.phase != "live" or full:
            self._highest_dropped = max(self._highest_dropped, record.offset)
            if self.phase == "live":
                self.alarm("the buffer of live records is full")
            return True
        self._buffer[record.offset] = record
        self._buffer_bytes += len(record.value)
        self._wiring.wake()
        return True

    def alarm(self, why: str) -> None:
        """Something is wrong: drop what is in memory and recover."""
        if self.phase == "live":
            self.phase = "catching_up"
            self._why = why
            log.warning("home recovers", home=self.home, why=why, applied=self.applied)
            self._drop_buffer()
            self._alarm.set()

    def _drop_buffer(self) -> None:
        if self._buffer:
            self._highest_dropped = max(self._highest_dropped, *self._buffer)
            self._buffer.clear()
            self._buffer_bytes = 0

    # -- live rounds --------------------------------------------------------------------------------------

    @property
    def has_records(self) -> bool:
        """Whether live records wait to be folded."""
        return self._expected in self._buffer

    def take(self) -> list[LogRecord]:
        """The contiguous records that may be folded now, bounded."""
        if self.phase != "live" or self._outbox is None or len(self._outbox.events) > UNSENT_EVENTS_MAX:
            return []
        taken: list[LogRecord] = []
        size = 0
        while len(taken) < ROUND_RECORDS_MAX and size < ROUND_BYTES_MAX:
            record = self._buffer.pop(self._expected, None)
            if record is None:
                break
            taken.append(record)
            size += len(record.value)
            self._expected += 1
        self._buffer_bytes -= size
        if not taken and self._delivered >= self._expected:
            self.alarm(f"a gap: offset {self._expected} is next, {self._delivered} came")
        return taken

    def round_of(self, records: Sequence[LogRecord]) -> HomeRound:
        """A round over records, on the state of the last round. ``NewerVersionError``: one is not for us."""
        entries = [self._entry(record) for record in records]
        return self.round_over(entries)

    def _entry(self, record: LogRecord) -> LogEntry:
        try:
            return entry_of(record)
        except NewerVersionError as error:
            where = f"offset {record.offset} of partition {self.home} of {self._wiring.topics.commands}"
            raise NewerVersionError(f"At {where} is {error}: {NEWER_CURE}") from error

    def round_over(self, entries: Sequence[LogEntry]) -> HomeRound:
        """A round over decoded records."""
        ahead = self._ahead
        state, expected = (self.state, self.applied) if ahead is None else (ahead.world.state(), ahead.last_offset)
        return HomeRound(state, entries, homes=self._wiring.homes, expected=expected, known=self._known)

    def doubt(self) -> None:
        """Nothing in memory counts any more: the next round reads everything."""
        self._known = Known()

    def committing(self, done: HomeRound) -> None:
        """The round's commit is on its way: the next round stands on it, and falls with it."""
        self._ahead = done
        self._known.learn(done.world)

    @property
    def is_committing(self) -> bool:
        """Whether a commit is under way."""
        return self._ahead is not None

    def continues(self, done: HomeRound) -> bool:
        """Whether the round was made on what this owner holds now: a recovery in between makes it void."""
        return self.live and self.applied == done.expected

    def commit_of(self, done: HomeRound) -> tuple[Any, list[str]]:
        """The writes of a folded round, and the outbox fields they remove."""
        assert self._outbox is not None
        trim = self._outbox.trim()
        commit = commit_of(
            done.world,
            namespace=self._wiring.namespace,
            expected=done.expected,
            applied=done.last_offset,
            trim=trim,
            keep_outcome=self._somebody_waits(done),
        )
        return commit, trim.fields

    def _somebody_waits(self, done: HomeRound) -> Callable[[str], bool]:
        """Outcomes are stored for views of other workers, while these can still be waiting."""
        if done.entries[-1].now < stamp.now_ms() - OUTCOME_AGE_MS_MAX:
            return lambda _submit: False
        return lambda submit: not self._wiring.gateway.is_own(submit)

    def committed(self, done: HomeRound) -> None:
        """The round is in the store: act on it."""
        assert self._outbox is not None
        world = done.world
        self._ahead = None
        self.meter.committed(len(done.entries), sum(len(entry.commands) for entry in done.entries))
        self.applied = done.last_offset
        self.commands += sum(len(entry.commands) for entry in done.entries)
        self.state = world.state()
        self._wiring.positions.raise_to(self.home, self.applied)
        self._outbox.add(world.events, world.effects)
        if self._holding:
            self._held.extend(world.messages)
        else:
            self._outbox.add(messages=world.messages)
        self._wiring.on_commit(self, world)
        self.answer(world.replies)
        self._wiring.gateway.applied(self.home, self.applied)

    def answer(self, replies: list[tuple[str, Outcome]]) -> None:
        """Resolve views of this worker, tell those of others."""
        elsewhere: dict[str, list[tuple[str, Outcome]]] = {}
        for submit, outcome in replies:
            if self._wiring.gateway.is_own(submit):
                self._wiring.gateway.resolve(submit, outcome)
            else:
                elsewhere.setdefault(submit.partition(":")[0], []).append((submit, outcome))
        for instance, theirs in elsewhere.items():
            self._wiring.publish(instance, self.home, self.applied or 0, theirs)

    def not_committed(self, done: HomeRound, trimmed: list[str], error: Exception) -> None:
        """The commit was fenced, or nobody knows: recover; the outcomes may still turn out right."""
        if self._outbox is not None:
            self._outbox.give_back_trimmed(trimmed)
        self.meter.fences += isinstance(error, FencedError)
        self._remember_limbo(done)
        self.alarm(f"{type(error).__name__}: {error}")

    def _remember_limbo(self, done: HomeRound) -> None:
        """A round that read what another owner had written meanwhile has nothing true to say."""
        if done.sound:
            self._limbo.append(_Limbo(done.last_offset, done.world.replies))

    # -- deadlines ----------------------------------------------------------------------------------------

    def note_deadline(self, index: str, at: int) -> None:
        """A commit has set a deadline."""
        self.deadlines[index] = _earlier(self.deadlines[index], at)
        self._noted[index] = _earlier(self._noted[index], at)

    async def refresh_deadline(self, index: str) -> None:
        """Read the earliest deadline: the one in memory may be of a job that has moved on since."""
        async with self._refreshing:
            self._noted[index] = None
            earliest = await self._wiring.store.earliest(self.home, index)
            # What was noted during the read may have been committed after it.
            self.deadlines[index] = _earlier(earliest, self._noted[index])

    # -- recovery -----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        failures = 0
        while not self.closed:
            self._alarm.clear()
            try:
                await self._recover()
                failures = 0
                await self._alarm.wait()
            except LogRefusedError as error:
                self._refuse(str(error))
                await asyncio.sleep(REFUSED_RETRY_S)
            except (FencedError, UnavailableError, RedisError, OSError, TimeoutError) as error:
                self.progress.reason = f"{type(error).__name__}: {error}"
                self.meter.fences += isinstance(error, FencedError)
                log.warning("home cannot recover yet", home=self.home, reason=self.progress.reason)
                self.vitals.excuses += not isinstance(error, StalledError)
                await asyncio.sleep(RECOVER_WAIT_S[min(failures, len(RECOVER_WAIT_S) - 1)])
                failures += 1
            except Exception as error:  # a bug must be seen and must not end the home's task
                self._refuse(f"{type(error).__name__}: {error}")
                log.exception("home failed to recover", home=self.home)
                await asyncio.sleep(REFUSED_RETRY_S)

    def _is_closed(self) -> bool:
        """The flag after a wait: it may have changed meanwhile, which mypy cannot know of an attribute."""
        return self.closed

    def _refuse(self, reason: str) -> None:
        if not self.closed:
            self.phase = "refused"
            self._wiring.positions.refuse(self.home, reason)
        self.progress.reason = reason
        log.error("home is refused", home=self.home, reason=reason)

    async def _recover(self) -> None:
        if not self.closed:
            self.phase = "catching_up"
        self.recoveries += 1
        self.meter.recoveries += 1
        self._drop_buffer()
        self._held, self._holding, self._held_floor = [], True, 0
        self._known, self._ahead = Known(), None
        self._close_outbox()
        # Without Redis there is nothing to do, and to hear that costs less than to open a reader of the log.
        await self._wiring.store.applied([self.home])
        async with self._wiring.open_reader() as reader:
            await self._find_position(reader)
            self._settle_limbo()
            await self._open_outbox(reader)
            await self._catch_up(reader)
            # Not before: a home that is refused for the same reason every few seconds takes nothing in between.
            self._wiring.positions.accept(self.home)
        for index in self.deadlines:
            await self.refresh_deadline(index)
        self._releasing = asyncio.create_task(self._release_messages(), name=f"release-{self.home}")
        if self.live:
            self.progress.reason = ""
            log.info("home is live", home=self.home, applied=self.applied, why=self._why)
            self._wiring.wake()

    async def _find_position(self, reader: Reader) -> None:
        """Where the records are, and that they belong to this log."""
        topic = self._wiring.topics.commands
        # In this order: while another owner is still at work, the log may only look longer than it was.
        self.applied, state = await self._wiring.store.position(self.home)
        begin, end = await reader.bounds(topic, self.home)
        if self._is_closed():
            return
        if self.applied is None or state is None or self.applied < 0:
            # Nothing, a torn state, or a snapshot that somebody has not loaded to its end.
            await self._begin_anew(reader, begin, end)
            return
        self._check_version(state)
        self.state = state
        if end < self.applied + 1:
            raise LogRefusedError(
                f"Partition {self.home} of {topic} ends at offset {end - 1}, but Redis has applied offset "
                f"{self.applied}: this is another or a truncated log. Restore the topic, or start with an empty "
                "Redis or another OJS_NAMESPACE."
            )
        span = self._span(begin, end, state.log_id)
        if begin > self.applied + 1:
            if not await self._restored(reader, span, self.applied):
                raise nothing_fits(span, self.applied)
        elif begin > 0:
            await self._restore.check_identity(reader, span)
        elif end > 0:
            await self._check_identity(reader)

    async def _begin_anew(self, reader: Reader, begin: int, end: int) -> None:
        """From the newest snapshot, or else from the first record."""
        stored = self.applied
        self.applied, self.state = None, HomeState(home=self.home)
        span = self._span(begin, end, await self._log_id(reader) if begin == 0 and end > 0 else "")
        if await self._restored(reader, span, stored):
            return
        if begin > 0:
            raise nothing_fits(span, None)
        if not self._is_closed():
            await self._wiring.store.clear(self.home, stored)

    def _span(self, begin: int, end: int, log_id: str) -> LogSpan:
        wiring = self._wiring
        return LogSpan(
            topic=wiring.topics.commands, home=self.home, homes=wiring.homes, begin=begin, end=end, log_id=log_id
        )

    @property
    def _restore(self) -> Restore:
        wiring = self._wiring
        return Restore(store=wiring.store, namespace=wiring.namespace, topic=wiring.topics.snapshots)

    async def _restored(self, reader: Reader, span: LogSpan, stored: int | None) -> bool:
        if not await self._restore.home(reader, span, expected=stored, progress=self._show_progress):
            return False
        self.applied, state = await self._wiring.store.position(self.home)
        if state is None:
            raise FencedError("the store has changed while a snapshot was loaded")
        self._check_version(state)
        self.state = state
        return True

    def _show_progress(self, done: int, total: int, what: str) -> None:
        self.progress = Progress(done, total, what)
        # A large snapshot takes its time: nothing is folded meanwhile, and that is no hang.
        self.vitals.excuses += 1

    def _check_version(self, state: HomeState) -> None:
        # A method of its own: in the simulation workers of two releases stand side by side.
        check_version(state, "Redis")

    async def _check_identity(self, reader: Reader) -> None:
        log_id = await self._log_id(reader)
        if log_id and log_id != self.state.log_id:
            raise LogRefusedError(
                f"Partition {self.home} of {self._wiring.topics.commands} is log {log_id}, Redis has records of "
                f"log {self.state.log_id}: the topic was recreated or the cluster is another one. Start with an "
                "empty Redis or another OJS_NAMESPACE."
            )

    async def _log_id(self, reader: Reader) -> str:
        """The name of a log whose first record is there; empty when that does not tell it."""
        async for records in self._records(reader, 0, 1):
            commands = self._entry(records[0]).commands
            genesis = commands[0] if commands else None
            return genesis.log_id if isinstance(genesis, Genesis) else ""
        return ""

    async def _records(self, reader: Reader, start: int, stop: int) -> AsyncIterator[list[LogRecord]]:
        """Records that were in the log a moment ago. If they are trimmed now, the next look finds a snapshot."""
        try:
            async for records in reader.read(self._wiring.topics.commands, self.home, start, stop):
                yield records
        except LogRefusedError as error:
            raise UnavailableError(f"the log has lost its beginning meanwhile: {error}") from error

    def _settle_limbo(self) -> None:
        for limbo in self._limbo:
            if self.applied is not None and limbo.offset <= self.applied:
                self.answer(limbo.replies)
        self._limbo = []
        if self.applied is not None:
            self._wiring.gateway.applied(self.home, self.applied)

    async def _open_outbox(self, reader: Reader) -> None:
        """What the topics already have is not sent again; the rest of ring and outbox is."""
        wiring = self._wiring
        tails = {name: await reader.tail_position(wiring.topics.of(name), self.home) for name in OUTBOX_TOPICS}
        # An idle home's topic is empty after its retention, and knows nothing of what it had.
        tails["events"] = max(tails["events"], (await wiring.store.acked(self.home)).events)
        self._outbox = Outbox(
            self.home,
            sender=wiring.sender,
            produce=wiring.gateway.produce,
            topics=wiring.topics,
            tails=tails,
            on_event=wiring.on_event,
            on_sent=wiring.wake,
        )
        if self.closed:
            return
        if self.applied is not None:
            effects, messages = stored_outbox(await wiring.store.outbox(self.home))
            self._outbox.add(await self._unsent_events(tails["events"]), effects)
            self._held.extend(messages)
        if not self._is_closed():
            self._outbox.start()

    async def _unsent_events(self, sent: int) -> list[NumberedEvent]:
        """The events after number ``sent``, as far as the ring still has them."""
        store = self._wiring.store
        ring = await store.ring(self.home, sent + 1, self.state.events)
        if await store.applied([self.home]) != [self.applied]:
            raise FencedError("the store has changed while its ring was read")
        lost = max(0, self.state.events - sent) - len(ring)
        if lost:
            self.lost_events += lost
            self.meter.lost_events += lost
            log.error("events were lost: the ring has run over them", home=self.home, lost=lost, after=sent)
        return [stored_event(number, data) for number, data in ring]

    async def _catch_up(self, reader: Reader) -> None:
        """Fold from the log until nothing is missing; the step to live has no wait in it."""
        topic = self._wiring.topics.commands
        _, end = await reader.bounds(topic, self.home)
        self.progress = Progress(done=0, total=max(0, end - self.next))
        while not self.closed:
            async for records in self._records(reader, self.next, end):
                for chunk in portions(records, _bytes_of, count_max=ROUND_RECORDS_MAX, bytes_max=ROUND_BYTES_MAX):
                    await self._fold_gap(chunk)
            # Offsets at the end that hold no record (transaction markers) count as passed.
            self.vitals.read_to = end
            if self.next > self._highest_dropped or self._highest_dropped < end:
                if not self._is_closed():
                    self.go_live()
                return
            end = self._highest_dropped + 1

    async def _fold_gap(self, records: Sequence[LogRecord]) -> None:
        if self.closed or not records:
            return
        try:
            done = self.round_of(records)
        except NewerVersionError:
            if len(records) == 1:
                raise
            # What stands before it was promised, too.
            for record in records:
                await self._fold_gap([record])
        else:
            await self._commit_gap(done)

    async def _commit_gap(self, done: HomeRound) -> None:
        await fold_rounds(self._wiring.store, [done])
        if self._is_closed():
            return
        if not done.sound:
            raise FencedError("another owner wrote while the round was reading")
        commit, trimmed = self.commit_of(done)
        self.committing(done)
        (error,) = await self._wiring.store.commit([commit])
        if error is not None:
            assert self._outbox is not None
            self._outbox.give_back_trimmed(trimmed)
            self._remember_limbo(done)
            raise error
        self.committed(done)
        self.progress.folded(done)
        await self._wait_for_events()
        if len(self._held) > self._held_floor + HELD_MESSAGES_MAX:
            await self._let_go()

    async def _wait_for_events(self) -> None:
        assert self._outbox is not None
        while len(self._outbox.events) > UNSENT_EVENTS_MAX and not self.closed:
            await asyncio.sleep(0.01)

    async def _release_messages(self) -> None:
        """Send the messages whose destination has not folded them; one that is behind is waited for.

        Until then new messages queue behind the held ones: a destination drops what comes out of order.
        """
        destinations = sorted({message.destination for message in self._held})
        found = await asyncio.gather(*(self._mark_at(destination) for destination in destinations))
        if self.closed or self._outbox is None:
            return
        self._drop_folded(dict(zip(destinations, found, strict=True)))
        held, self._held, self._holding = self._held, [], False
        self._outbox.add(messages=held)
        self._outbox.start_messages()

    async def _let_go(self) -> None:
        """A rebuild repeats every message there ever was: most are folded long since, and memory is finite."""
        destinations = sorted({message.destination for message in self._held} - {self.home})
        states = await asyncio.gather(*(self._wiring.store.position(each) for each in destinations))
        marks = {
            destination: state.marks.get(str(self.home), 0)
            for destination, (_, state) in zip(destinations, states, strict=True)
            if state is not None
        }
        self._drop_folded({**marks, self.home: self.state.marks.get(str(self.home), 0)})
        self._held_floor = len(self._held)

    def _drop_folded(self, marks: dict[int, int]) -> None:
        """Forget held messages up to the marks of their destinations; the next commit trims the stored ones."""
        assert self._outbox is not None
        folded = [m for m in self._held if m.number <= marks.get(m.destination, 0)]
        self._held = [m for m in self._held if m.number > marks.get(m.destination, 0)]
        self._outbox.give_back_trimmed([message_field(m.destination, m.number) for m in folded])

    async def _mark_at(self, destination: int) -> int:
        """How far ``destination`` has folded our messages, once it has folded what is in its log now."""
        if destination == self.home:
            return self.state.marks.get(str(self.home), 0)
        until = monotonic() + MESSAGES_HOLD_S
        end: int | None = None
        while not self.closed and monotonic() < until:
            try:
                # The end as it was at first: under load a log is never folded up to its end of now.
                end = await self._end_of(destination) if end is None else end
                return await self._settled_mark(destination, end)
            except (UnavailableError, RedisError, OSError, TimeoutError) as error:
                log.info("messages wait", home=self.home, destination=destination, reason=str(error))
            await asyncio.sleep(0.1)
        return 0

    async def _end_of(self, destination: int) -> int:
        async with self._wiring.open_reader() as reader:
            return (await reader.bounds(self._wiring.topics.commands, destination))[1]

    async def _settled_mark(self, destination: int, end: int) -> int:
        applied, state = await self._wiring.store.position(destination)
        if applied is None or state is None or applied < end - 1:
            raise UnavailableError(f"home {destination} is behind its log")
        return state.marks.get(str(self.home), 0)
