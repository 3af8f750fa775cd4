"""What a round knows of one home: loaded records, its own changes, and effects to come.

A fold reads and writes here and nowhere else. Every change is journalled, so that a refused or failing
command, or one that needs more loaded, leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Raw

from ojs_stream.core.commands import COMMAND_VERSION, Command, JobNote, Watched, version_of
from ojs_stream.core.homes import home_of
from ojs_stream.core.ids import event_id
from ojs_stream.core.index import Index
from ojs_stream.core.known import Known
from ojs_stream.core.outcomes import Effect, Event, EventData, Outcome
from ojs_stream.core.records import (
    Counts,
    Day,
    HomeState,
    IdRecord,
    JobRecord,
    Key,
    Minute,
    Moved,
    QueueRecord,
    Record,
    Stage,
    Totals,
    Watcher,
    WorkerRecord,
    entries_of,
)
from ojs_stream.core.times import iso

R = TypeVar("R", bound=Record)
_MISSING = object()
_encoder = msgspec.json.Encoder()
MINUTE_SLOTS = 60
DAY_SLOTS = 31
MINUTES_A_DAY = 1_440
_TOTALS = frozenset(Totals.__struct_fields__)
PREFETCH = 8
PREFETCH_MAX = 512
"""So many times what is needed of an index is read, up to this: the next rounds find it in memory."""
FIRST_LOOK = 16
"""Few entries are due as a rule: their index is read in growing steps, their records only when they are due."""
SYSTEM = "system"


class Needs:
    """What must be loaded before a fold can go on."""

    __slots__ = ("everything", "follow", "heads", "records")

    def __init__(self) -> None:
        self.records: set[Key] = set()
        self.heads: dict[Key, int] = {}
        """index -> how many of its lowest entries"""
        self.follow: set[Key] = set()
        """indexes whose members' records are wanted too"""
        self.everything = False
        """the names of all keys of the home (reset)"""

    def head(self, index: Key, count: int, *, follow: bool = True) -> None:
        """Want ``count`` more entries of ``index`` and the records they name."""
        self.heads[index] = self.heads.get(index, 0) + count
        if follow:
            self.follow.add(index)

    def __bool__(self) -> bool:
        return bool(self.records or self.heads or self.everything)


class NeedMore(Exception):  # noqa: N818 - the design's word; it is a signal, not an error
    """The fold needs a record, or more of an index, than was loaded."""

    def __init__(self, needs: Needs) -> None:
        super().__init__("more must be loaded")
        self.needs = needs


class Message(msgspec.Struct, frozen=True):
    """A command on its way to another home."""

    destination: int
    number: int
    data: bytes


class NumberedEvent(msgspec.Struct, frozen=True):
    """An event with its position in the home's event topic."""

    number: int
    type: str
    subject: str
    queue: str
    job: JobRecord | None
    data: bytes


class NumberedEffect(msgspec.Struct, frozen=True):
    """An effect with its position in the outbox."""

    number: int
    effect: Effect


class Savepoint(NamedTuple):
    """Where the journal and the effects stood."""

    journal: int
    events: int
    effects: int
    messages: int
    replies: int
    observations: int
    state: tuple[Any, ...]


class World:
    """One home during one round."""

    def __init__(self, state: HomeState, *, homes: int, known: Known | None = None) -> None:  # noqa: PLR0915 - a field a line
        self.homes = homes
        self.home = state.home
        self.log_id = state.log_id
        self.epoch = state.epoch
        self.sequence = state.sequence
        self.event_number = state.events
        self.effect_number = state.effects
        self.watched = state.watched
        self.last = self.now = self.origin = state.last
        """``origin``: when the chain of messages began that the present command belongs to."""
        self.minute = str(self.now // 60_000)
        """Of ``now``, since the epoch: a group of counters."""
        self.grace = state.grace
        self.maintenance = None if state.maintenance is UNSET else state.maintenance
        self.version = 1 if state.v is UNSET else state.v
        self.sent = state.sent
        self.marks = state.marks
        self.importing = state.importing is True
        self.blank = False
        """After a reset: what is not in memory does not exist."""
        self.wiped: frozenset[str] = frozenset()
        self.forgotten = 0
        """After a reset: events up to this number are published, but no longer kept."""
        self.all_keys: frozenset[str] | None = None
        self.events: list[NumberedEvent] = []
        self.effects: list[NumberedEffect] = []
        self.messages: list[Message] = []
        self.replies: list[tuple[str, Outcome]] = []
        """(submit, outcome): who waits for what"""
        self.observations: list[tuple[Watcher, JobNote]] = []
        """What watchers of this home are still to be told, before the command ends."""
        self.found: set[int | None] = set()
        """The applied offsets that the store had when it was read."""
        memory = known if known is not None else Known()
        self._known = memory.records
        self._windows = memory.windows
        self.indexes: dict[Key, Index] = {}
        """Those that the round has touched."""
        self.read: list[Key] = []
        """Jobs, configurations and days that the store was asked for."""
        self.changed: dict[Key, Record | None] = {}
        self._records: dict[Key, Record | None] = {}
        self._tallies: dict[tuple[str, str, str], int] = {}
        self._journal: list[tuple[Any, ...]] = []

    # -- savepoints ---------------------------------------------------------------------------------------

    def savepoint(self) -> Savepoint:
        """A place to come back to."""
        return Savepoint(
            len(self._journal),
            len(self.events),
            len(self.effects),
            len(self.messages),
            len(self.replies),
            len(self.observations),
            self._scalars(),
        )

    def rollback(self, to: Savepoint) -> None:
        """Undo everything since ``to``."""
        while len(self._journal) > to.journal:
            target, key, before = self._journal.pop()
            if isinstance(target, Index):
                target.undo(key, before)
            elif before is _MISSING:
                del target[key]
            else:
                target[key] = before
        del self.events[to.events :], self.effects[to.effects :]
        del self.messages[to.messages :], self.replies[to.replies :]
        del self.observations[to.observations :]
        self._restore(to.state)

    def settle(self) -> None:
        """Keep what was done: the journal is not needed any more."""
        self._journal.clear()

    def _scalars(self) -> tuple[Any, ...]:
        return (
            self.log_id,
            self.epoch,
            self.sequence,
            self.event_number,
            self.effect_number,
            self.watched,
            self.sent,
            self.marks,
            self.importing,
            self.maintenance,
            self.version,
        )

    def _restore(self, state: tuple[Any, ...]) -> None:
        (
            self.log_id,
            self.epoch,
            self.sequence,
            self.event_number,
            self.effect_number,
            self.watched,
            self.sent,
            self.marks,
            self.importing,
            self.maintenance,
            self.version,
        ) = state

    def _assign(self, target: dict[Any, Any], key: Any, value: Any) -> None:
        """Write into a dict so that it can be undone."""
        self._journal.append((target, key, target.get(key, _MISSING)))
        target[key] = value

    # -- loading ------------------------------------------------------------------------------------------

    def add_record(self, key: Key, record: Record | None) -> None:
        """A record as the store has it (``None``: there is none). What the round changed stays."""
        self._records.setdefault(key, record)
        if key[0] in ("job", "config", "day"):
            self.read.append(key)

    def add_head(self, index: Key, loaded: list[tuple[int, str]], *, complete: bool) -> None:
        """The lowest entries of an index as the store has them."""
        known = self._window(index)
        if known is None:
            self.indexes[index] = Index(loaded, complete=complete)
        elif not known.complete:
            known.extend(loaded, complete=complete)

    def absent(self, key: Key) -> None:
        """A record that cannot exist yet (a new job's id is unique): nothing is read to learn it."""
        self._records.setdefault(key, None)

    def missing(self, needs: Needs) -> Needs:
        """The part of ``needs`` that is not in memory yet."""
        left = Needs()
        left.everything = needs.everything and self.all_keys is None
        if self.blank:
            return left
        left.records = {key for key in needs.records if not self._has(key)}
        left.follow = needs.follow
        for index, count in needs.heads.items():
            known = self._window(index)
            if known is None or (not known.complete and known.loaded < count):
                ahead = min(PREFETCH * count, max(count, PREFETCH_MAX)) if index in needs.follow else count
                left.heads[index] = ahead
        return left

    def _has(self, key: Key) -> bool:
        return key in self.changed or key in self._records or key in self._known

    def _window(self, index: Key) -> Index | None:
        window = self.indexes.get(index)
        if window is None and not self.blank:
            window = self._windows.get(index)
            if window is not None:
                self.indexes[index] = window
        return window

    # -- reading ------------------------------------------------------------------------------------------

    def get(self, key: Key) -> Record | None:
        """The record of ``key`` as of now in the round."""
        record = self.changed.get(key, _MISSING)
        if record is _MISSING:
            record = self._records.get(key, _MISSING)
        if record is _MISSING:
            if self.blank:
                return None
            record = self._known.get(key, _MISSING)
        if record is _MISSING:
            needs = Needs()
            needs.records.add(key)
            raise NeedMore(needs)
        return record  # type: ignore[return-value]

    def peek(self, key: Key) -> Record | None:
        """The record of ``key`` if it is in memory; nothing is asked for."""
        return self._records.get(key) or (None if self.blank else self._known.get(key))

    def require(self, keys: Iterable[Key]) -> None:
        """Say at once that all of ``keys`` are needed."""
        missing = [key for key in keys if not self._has(key)]
        if missing and not self.blank:
            needs = Needs()
            needs.records.update(missing)
            raise NeedMore(needs)

    def job(self, job_id: str) -> JobRecord | Moved | None:
        """The job's record, or the note where it went."""
        record = self.get(("job", job_id))
        assert record is None or isinstance(record, (JobRecord, Moved))
        return record

    def queue(self, name: str) -> QueueRecord | None:
        """The queue's record (its counters are of the last commit: see ``count``)."""
        record = self.get(("queue", name))
        assert record is None or isinstance(record, QueueRecord)
        return record

    def find(self, key: Key, kind: type[R]) -> R | None:
        """The record of ``key``, which is of this kind."""
        record = self.get(key)
        assert record is None or isinstance(record, kind)
        return record

    def worker(self, worker_id: str) -> WorkerRecord | None:
        """The worker's record."""
        return self.find(("worker", worker_id), WorkerRecord)

    def id_record(self, job_id: str) -> IdRecord | None:
        """Who holds a client-supplied id."""
        return self.find(("id", job_id), IdRecord)

    def stage(self, stage_id: str) -> Stage | None:
        """An enqueue that is being decided."""
        return self.find(("stage", stage_id), Stage)

    def count(self, queue: str, state: str) -> int:
        """How many jobs of ``queue`` are in ``state`` as of now in the round."""
        record = self.queue(queue)
        return self.count_in(record, state) if record else self._tallies.get((queue, "counts", state), 0)

    def count_in(self, record: QueueRecord, state: str) -> int:
        """The same, of a queue whose record is at hand."""
        stored: int = getattr(record.counts, state)
        return stored + self._tallies.get((record.name, "counts", state), 0)

    def head(self, index: Key, count: int, *, follow: bool = True) -> list[tuple[int, str]]:
        """The ``count`` lowest (score, member) of an index, the round's own changes included.

        ``follow``: when more must be loaded, the records that are named are wanted as well.
        """
        view = self._window(index)
        found = view.head(count) if view is not None else ([] if self.blank else None)
        if found is None:
            needs = Needs()
            # The round may have emptied the window: more means more than the store has given so far.
            more = (view.loaded if view is not None else 0) + max(2 * count, count + 64)
            needs.head(index, more, follow=follow)
            raise NeedMore(needs)
        return found

    def due(self, index: Key, count_max: int) -> list[tuple[int, str]]:
        """The entries of an index by instants that are due now, at most ``count_max``, the earliest first."""
        count = min(FIRST_LOOK, count_max)
        while True:
            head = self.head(index, count, follow=False)
            due = [entry for entry in head if entry[0] <= self.now]
            if len(due) < count or count >= count_max:
                return due
            count = min(4 * count, count_max)

    # -- writing ------------------------------------------------------------------------------------------

    def put(self, key: Key, record: Record | None) -> None:
        """Store (or remove, ``None``) a record; its index entries and counters follow."""
        before = self.get(key)
        self._assign(self.changed, key, record)
        old, new = entries_of(before), entries_of(record)
        for index, (member, _) in old.items():
            if index not in new:
                self._move(index, member, None)
        for index, place in new.items():
            if old.get(index) != place:
                self._move(index, *place)
        self._tally_states(before, record)

    def _move(self, index: Key, member: str, score: int | None) -> None:
        view = self.indexes.get(index)
        if view is None:
            view = self._window(index)
        if view is None:
            view = self.indexes[index] = Index([], complete=self.blank)
        self._journal.append((view, member, view.set(member, score)))

    def _tally_states(self, before: Record | None, after: Record | None) -> None:
        if isinstance(before, JobRecord):
            self._tally_job(before, -1)
        if isinstance(after, JobRecord):
            self._tally_job(after, 1)
        if isinstance(before, WorkerRecord) and not before.silent:
            self.watched -= 1
        if isinstance(after, WorkerRecord) and not after.silent:
            self.watched += 1

    def _tally_job(self, record: JobRecord, step: int) -> None:
        job = record.job
        self.tally(job.queue, "counts", job.state, step)
        if job.state == "active":
            self.watched += step
        elif record.ctl.held and record.job.state == "available":
            self.tally(record.job.queue, "held", "jobs", step)

    def tally(self, queue: str, group: str, field: str, step: int) -> None:
        """Add to a counter of a queue: group ``counts``, ``totals``, ``held`` or a minute number as text."""
        key = (queue, group, field)
        before = self._tallies.get(key)
        if before is None:
            self._want_records(queue, group)
            before = 0
        self._assign(self._tallies, key, before + step)

    def _want_records(self, queue: str, group: str) -> None:
        """The end of the round writes the counter, and must find its record."""
        stored = self.get(_record_of(queue, group))
        if group.isdigit():
            self.get(("queue", queue))
            self._want_days(queue, int(group), stored)

    def _want_days(self, queue: str, minute: int, stored: Record | None) -> None:
        """A minute begins: what its slot has may go into a day, and it itself in a round of more than an hour."""
        if isinstance(stored, Minute):
            if stored.minute == minute:
                return
            self.get(_day_of(queue, stored.minute))
        self.get(_day_of(queue, minute))

    def tally_minute(self, queue: str, **steps: int) -> None:
        """Add to the statistics of the current minute, and to the queue's totals of the same names."""
        for field, step in steps.items():
            self.tally(queue, self.minute, field, step)

    def next_sequence(self) -> int:
        """The place of a job that becomes available now."""
        self.sequence += 1
        return self.sequence

    def forget_queue(self, name: str) -> None:
        """The queue's record goes; what the round has counted for it goes with it."""
        for key in [key for key in self._tallies if key[0] == name]:
            self._forget_tally(key)
        self.put(("queue", name), None)

    def forget_minutes(self, name: str) -> None:
        """What happened in the queue minute by minute and hour by hour goes."""
        slots: list[Key] = [("minute", name, str(slot)) for slot in range(MINUTE_SLOTS)]
        slots += [("day", name, str(slot)) for slot in range(DAY_SLOTS)]
        self.require(slots)
        for counter in [key for key in self._tallies if key[0] == name and key[1].isdigit()]:
            step = self._forget_tally(counter)
            if counter[2] in _TOTALS:
                self.tally(name, "totals", counter[2], step)
        for key in slots:
            if self.get(key) is not None:
                self.put(key, None)

    def _forget_tally(self, key: tuple[str, str, str]) -> int:
        step = self._tallies.pop(key)
        self._journal.append((self._tallies, key, step))
        return step

    # -- effects ------------------------------------------------------------------------------------------

    def emit(self, kind: str, subject: str, data: EventData, job: JobRecord | None = None) -> None:
        """An event happened. Its id is derived from (log, home, number): a replay gives the same."""
        self.event_number += 1
        event = Event(
            specversion="1.0",
            id=event_id(self.log_id, self.home, self.event_number, self.now),
            type=kind,
            source=f"ojs://ojs-stream/home/{self.home}",
            time=iso(self.now),
            subject=subject,
            datacontenttype="application/json",
            data=data,
        )
        self.events.append(
            NumberedEvent(self.event_number, kind, subject, data.queue or "", job, _encoder.encode(event))
        )

    def effect(self, effect: Effect) -> None:
        """Something for another topic."""
        self.effect_number += 1
        self.effects.append(NumberedEffect(self.effect_number, effect))

    def reply(self, submit: str, outcome: Outcome) -> None:
        """Answer the view that waits for ``submit``."""
        if submit:
            self.replies.append((submit, outcome))

    def message(self, destination: int, command: Command) -> None:
        """Send a command to another home (or to this one, later)."""
        name = str(destination)
        number = self.sent.get(name, 0) + 1
        self.sent = {**self.sent, name: number}
        sealed = msgspec.structs.replace(
            command,
            v=max(command.v, version_of(command)),
            source=str(self.home),
            number=number,
            at=command.at or self.origin,
            epoch=self.epoch,
        )
        self.messages.append(Message(destination, number, _encoder.encode(sealed)))

    def last_message(self, destination: int) -> tuple[int, int, int] | None:
        """The last message to another home: when it is folded, everything sent there before is."""
        number = self.sent.get(str(destination), 0)
        return (self.home, destination, number) if number and destination != self.home else None

    def await_messages(self, since: Savepoint) -> None:
        """Whoever is answered now waits for the other homes that its command has caused something at."""
        if len(self.messages) == since.messages:
            return
        awaits = tuple(
            (self.home, message.destination, message.number)
            for message in self.messages[since.messages :]
            if message.destination != self.home
        )
        if not awaits:
            return
        for place in range(since.replies, len(self.replies)):
            submit, outcome = self.replies[place]
            self.replies[place] = submit, msgspec.structs.replace(outcome, awaits=(*outcome.awaits, *awaits))

    def observe(self, watcher: Watcher, note: JobNote) -> None:
        """Tell a watcher: before the present command ends if it is of this home, else by a message."""
        if watcher.home == self.home:
            self.observations.append((watcher, note))
        else:
            self.message(watcher.home, system_command(Watched, watcher=watcher, note=note))

    def needs_release(self, version: int) -> None:
        """From now on the home's records say what only releases of this ``STATE_VERSION`` can read."""
        self.version = max(self.version, version)

    def mark(self, source: str, number: int) -> None:
        """A message of ``source`` is folded."""
        self.marks = {**self.marks, source: number}

    def home_of(self, name: str) -> int:
        """The home that owns ``name``."""
        return home_of(name, self.homes)

    # -- the end of a round -------------------------------------------------------------------------------

    def wipe(self) -> None:
        """Forget every record (a reset). Needs the names of all keys first."""
        if self.all_keys is None:
            needs = Needs()
            needs.everything = True
            raise NeedMore(needs)
        self.wiped = self.all_keys
        self.forgotten = self.event_number
        self.blank = True
        for container in (self._records, self.indexes, self.changed, self._tallies):
            container.clear()
        self._journal.clear()
        self.epoch += 1
        self.watched = 0
        self.maintenance = None
        self.version = 1

    def finish(self) -> None:
        """Write the counters of the round into the queues' records."""
        groups: dict[tuple[str, str], dict[str, int]] = {}
        for (queue, group, field), step in self._tallies.items():
            _add(groups.setdefault((queue, group), {}), field, step)
            if group.isdigit() and field in _TOTALS:
                _add(groups.setdefault((queue, "totals"), {}), field, step)
        self._tallies.clear()
        for (queue, group), steps in groups.items():
            if group in ("counts", "totals"):
                self._finish_queue(queue, group, steps)
            elif group == "held":
                self._finish_held(queue, steps["jobs"])
            else:
                self._finish_minute(queue, int(group), steps)
        self._journal.clear()

    def _finish_queue(self, name: str, group: str, steps: dict[str, int]) -> None:
        queue = self.queue(name)
        if queue is None:
            return
        old: Counts | Totals = queue.counts if group == "counts" else queue.totals
        new = msgspec.structs.replace(old, **{field: getattr(old, field) + n for field, n in steps.items()})
        self.put(("queue", name), msgspec.structs.replace(queue, **{group: new}))

    def _finish_held(self, name: str, step: int) -> None:
        queue = self.queue(name)
        if queue is not None:
            self.put(("queue", name), msgspec.structs.replace(queue, held=queue.held + step))

    def _finish_minute(self, name: str, minute: int, steps: dict[str, int]) -> None:
        key = _record_of(name, str(minute))
        stored = self.get(key)
        if not isinstance(stored, Minute) or stored.minute < minute:
            if isinstance(stored, Minute):
                self._add_to_day(name, stored)
            stored = Minute(minute=minute)
        if stored.minute > minute:
            # The clock has stepped back by more than an hour: its slot is taken, its hour is not.
            self._add_to_day(name, Minute(minute=minute, **steps))
            return
        new = {field: getattr(stored, field) + n for field, n in steps.items()}
        self.put(key, msgspec.structs.replace(stored, **new))

    def _add_to_day(self, name: str, past: Minute) -> None:
        """A minute that has no slot any more: its hour remembers it."""
        key = _day_of(name, past.minute)
        number = past.minute // MINUTES_A_DAY
        stored = self.get(key)
        if not isinstance(stored, Day) or stored.day < number:
            stored = Day(day=number)
        if stored.day > number:
            return
        hour = past.minute // 60 % 24
        known = stored.hours.get(hour, Minute(minute=past.minute - past.minute % 60))
        self.put(key, Day(day=number, hours={**stored.hours, hour: added(known, past)}))

    def state(self) -> HomeState:
        """What the home knows of itself after the round."""
        return HomeState(
            home=self.home,
            v=self.version if self.version > 1 else UNSET,
            log_id=self.log_id,
            epoch=self.epoch,
            sequence=self.sequence,
            events=self.event_number,
            effects=self.effect_number,
            watched=self.watched,
            last=self.last,
            grace=self.grace,
            sent=self.sent,
            marks=self.marks,
            importing=self.importing or UNSET,
            maintenance=UNSET if self.maintenance is None else self.maintenance,
        )


def spans_of(queue: str, now: int) -> tuple[Key, Key]:
    """The records of a queue that have the minute and the day of ``now`` (ms)."""
    minute = now // 60_000
    return _record_of(queue, str(minute)), _day_of(queue, minute)


def _day_of(queue: str, minute: int) -> Key:
    """The record that has the day of a minute."""
    return ("day", queue, str(minute // MINUTES_A_DAY % DAY_SLOTS))


def added(one: Minute, other: Minute) -> Minute:
    """What happened in two spans of time; it keeps the first one's name."""
    return Minute(
        minute=one.minute,
        completed=one.completed + other.completed,
        failed=one.failed + other.failed,
        started=one.started + other.started,
        duration_ms=one.duration_ms + other.duration_ms,
        wait_ms=one.wait_ms + other.wait_ms,
        enqueued=one.enqueued + other.enqueued,
    )


def _add(counters: dict[str, int], field: str, step: int) -> None:
    counters[field] = counters.get(field, 0) + step


def _record_of(queue: str, group: str) -> Key:
    """The record that has the counters of a group."""
    if group.isdigit():
        return ("minute", queue, str(int(group) % MINUTE_SLOTS))
    return ("queue", queue)


def system_command(kind: type[Command], **fields: Any) -> Any:
    """A command that no client asked for."""
    return kind(v=COMMAND_VERSION, actor=SYSTEM, **fields)


def raw(value: Any) -> Raw:
    """``value`` as raw JSON."""
    return Raw(_encoder.encode(value))
