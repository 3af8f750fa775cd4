"""Products that are broken in one place: the auditor must find each of them out.

A mutation replaces one function of the product while it is entered. They are what the design forbids: a fence that
lets everybody in, a mark that nobody looks at, an outbox that forgets too early ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import msgspec

from ojs_stream.agents import owner
from ojs_stream.agents.bulk import BulkAgent
from ojs_stream.agents.owner import Owner
from ojs_stream.core import commands as c
from ojs_stream.core import fold
from ojs_stream.core.fold import cron, leases, limits, queues
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import JobRecord
from ojs_stream.core.world import World
from ojs_stream.errors import UnavailableError
from ojs_stream.log import codec
from ojs_stream.log.gateway import Gateway
from ojs_stream.log.intake import BulkRecord
from ojs_stream.log.outbox import Outbox
from ojs_stream.store.commit import effect_field, message_field
from ojs_stream.store.memory import MemoryStore
from ojs_stream.timers.ticker import Ticker

Mutation = Callable[[], AbstractContextManager[None]]


@contextmanager
def replaced(holder: Any, name: str, new: Any) -> Iterator[None]:
    """Another function in its place."""
    real = getattr(holder, name)
    setattr(holder, name, new)
    try:
        yield
    finally:
        setattr(holder, name, real)


def fence_off() -> AbstractContextManager[None]:
    """Whoever commits is let in, whatever offset he expects."""
    return replaced(MemoryStore, "_is_fenced", lambda *_: False)


def mark_ignored() -> AbstractContextManager[None]:
    """A message that comes again is folded again."""
    real: Any = fold._fold

    def again(world: World, command: Any, offset: int) -> None:
        mark = world.marks.get(command.source, 0)
        if not command.source or command.number > mark:
            real(world, command, offset)
            return
        world.marks = {**world.marks, command.source: command.number - 1}
        real(world, command, offset)
        world.marks = {**world.marks, command.source: mark}

    return replaced(fold, "_fold", again)


def trimmed_too_early() -> AbstractContextManager[None]:
    """What is to be sent is taken for sent as soon as it is queued."""
    real = Outbox.add

    def add(self: Any, events: Any = (), effects: Any = (), messages: Any = ()) -> None:
        events, effects, messages = list(events), list(effects), list(messages)
        real(self, events, effects, messages)
        self._trimmed.extend(effect_field(effect.number) for effect in effects)
        self._trimmed.extend(message_field(each.destination, each.number) for each in messages)
        if events:
            self._events_sent = events[-1].number

    return replaced(Outbox, "add", add)


def record_applied_twice() -> AbstractContextManager[None]:
    """Some records of the log are folded two times."""
    real = owner.entry_of

    def entry_of(record: Any) -> Any:
        entry = real(record)
        return msgspec.structs.replace(entry, commands=entry.commands * (2 if record.offset % 11 == 5 else 1))

    return replaced(owner, "entry_of", entry_of)


def event_not_sent() -> AbstractContextManager[None]:
    """Some events never come to their topic."""
    real = Outbox._send_events

    async def send(self: Outbox, batch: list[Any]) -> None:
        await real(self, [event for event in batch if event.number % 50 != 7])

    return replaced(Outbox, "_send_events", send)


def event_not_made() -> AbstractContextManager[None]:
    """A transition says nothing."""
    real = World.emit

    def emit(self: World, kind: str, *arguments: Any) -> None:
        if kind != "job.expired":
            real(self, kind, *arguments)

    return replaced(World, "emit", emit)


def event_made_anew() -> AbstractContextManager[None]:
    """An event that is sent again has another id."""
    real: Any = owner.stored_event

    def stored(number: int, data: bytes) -> Any:
        return real(number, data.replace(b'"evt_0', b'"evt_1'))

    return replaced(owner, "stored_event", stored)


def leased_twice() -> AbstractContextManager[None]:
    """A job that was leased stays at the head of its queue."""
    real: Any = leases._lease

    def lease(world: World, record: JobRecord, command: c.Claim) -> JobRecord:
        leased: JobRecord = real(world, record, command)
        if not record.job.attempt and record.job.id[-5] in "05":
            job = msgspec.structs.replace(record.job, attempt=1)
            world.put(("job", record.job.id), msgspec.structs.replace(record, job=job))
        return leased

    return replaced(leases, "_lease", lease)


def false_success() -> AbstractContextManager[None]:
    """A view that knows nothing says yes."""
    real = Gateway.submit

    async def submit(self: Gateway, home: int, command: Any, **options: Any) -> Outcome:
        try:
            return await real(self, home, command, **options)
        except UnavailableError as error:
            if error.unknown and isinstance(command, c.Enqueue):
                return Outcome()
            raise

    return replaced(Gateway, "submit", submit)


def asked_again() -> AbstractContextManager[None]:
    """A view that knows nothing submits the same command once more."""
    real = Gateway.submit

    async def submit(self: Gateway, home: int, command: Any, **options: Any) -> Outcome:
        try:
            return await real(self, home, command, **options)
        except UnavailableError as error:
            if error.unknown and isinstance(command, c.Claim):
                return await real(self, home, command, **options)
            raise

    return replaced(Gateway, "submit", submit)


def counter_off() -> AbstractContextManager[None]:
    """Some transitions are not counted."""
    real = World.tally

    def tally(self: World, queue: str, group: str, field: str, step: int) -> None:
        if (group, field) != ("counts", "retryable"):
            real(self, queue, group, field, step)

    return replaced(World, "tally", tally)


def second_first() -> AbstractContextManager[None]:
    """Claims pass by the head of a queue."""
    real = World.head

    def head(self: World, index: Any, count: int, **options: Any) -> list[tuple[int, str]]:
        if index[0] != "state" or index[2] != "available":
            return real(self, index, count, **options)
        found = real(self, index, count + 1, **options)
        return found[1:] if len(found) > 1 else found

    return replaced(World, "head", head)


def limit_open() -> AbstractContextManager[None]:
    """There is always a slot."""
    return replaced(limits, "room", lambda *_: 5)


def cron_twice() -> AbstractContextManager[None]:
    """An instant of a schedule fires again."""
    real: Any = cron.fire

    def fire(world: World, command: c.Fire) -> Outcome:
        outcome: Outcome = real(world, command)
        entry: Any = world.get(("cron", command.name))
        if outcome.data["moved"]:
            world.put(("cron", command.name), msgspec.structs.replace(entry, next_at=command.tick, last_tick=0))
            outcome = real(world, command)
        return outcome

    return replaced_handler(c.Fire, fire)


@contextmanager
def replaced_handler(kind: type[c.Command], new: Any) -> Iterator[None]:
    """Another handler of a command."""
    real = fold.HANDLERS[kind]
    fold.HANDLERS[kind] = new
    try:
        yield
    finally:
        fold.HANDLERS[kind] = real


def bulk_too_early() -> AbstractContextManager[None]:
    """Records of the bulk topic are acknowledged before they are applied."""

    async def insist(self: BulkAgent, records: Sequence[BulkRecord]) -> None:
        self.background = asyncio.ensure_future(self.take(records))  # type: ignore[attr-defined]

    return replaced(BulkAgent, "_insist", insist)


def nobody_polls() -> AbstractContextManager[None]:
    """A view whose reply was lost waits for its deadline."""

    async def poll(_self: Gateway, _late: Any) -> None:
        return None

    return replaced(Gateway, "_poll", poll)


def nobody_ticks() -> AbstractContextManager[None]:
    """What is due stays where it is."""
    return replaced(Ticker, "_is_due", lambda *_: False)


def newer_command_buried() -> AbstractContextManager[None]:
    """What a newer release has written is put aside as garbage."""

    def unknown(what: str, have: int, known: int) -> str:
        return f"{what} version {have} is unknown, this release reads 1 to {known}"

    return replaced(codec, "_unknown_version", unknown)


def newer_records_rewritten() -> AbstractContextManager[None]:
    """An older worker goes on with the records of a newer one."""
    return replaced(Owner, "_check_version", lambda *_: None)


def extension_forgotten() -> AbstractContextManager[None]:
    """A heartbeat is answered and extends nothing."""
    return replaced(leases, "_extend", lambda *_: None)


def pause_forgotten() -> AbstractContextManager[None]:
    """A pause is told and not kept."""
    real: Any = queues.pause

    def pause(world: World, command: c.Pause) -> Outcome:
        before = world.queue(command.queue)
        outcome: Outcome = real(world, command)
        if before is not None:
            world.put(("queue", command.queue), before)
        return outcome

    return replaced_handler(c.Pause, pause)
