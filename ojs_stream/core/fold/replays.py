"""What an ``Idempotency-Key`` was answered: the safe repeat after a lost answer or a 503 (OJS.md 2.1).

A handler that creates something looks first (``look``) and keeps what it answers (``keep``). A refusal is not
kept: it has changed nothing, and the same request may succeed later.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec
from msgspec import Raw, Struct, structs

from ojs_stream.core.outcomes import Awaited, Outcome
from ojs_stream.core.records import ReplayRecord
from ojs_stream.core.world import World, raw
from ojs_stream.errors import RefusedError

REPLAY_MS = 86_400_000
"""So long a key is remembered."""
WAITING_MAX = 1_000
"""So many repeats may wait for what a stage decides."""
NULL = b"null"
NO_JOB = Raw(NULL)
"""In the place of a job that is not stored."""
_ARGS = b',"args":'


class Repeatable(Protocol):
    """A command that may carry a client's key: it is sent to the home that is hash(``replay``)."""

    @property
    def replay(self) -> str:
        """The key, or nothing."""

    @property
    def body(self) -> str:
        """A hash of the request."""

    @property
    def submit(self) -> str:
        """Who waits for the outcome."""


class Known(NamedTuple):
    """The command came before. No outcome yet: it is answered together with the first one."""

    outcome: Outcome | None


class _Head(Struct):
    """Of a job what says where it is."""

    queue: str


_outcomes = msgspec.json.Decoder(Outcome)
_heads = msgspec.json.Decoder(_Head | None)


def look(world: World, command: Repeatable) -> Known | None:
    """What was answered to this key, ``None`` if it is new. ``RefusedError`` if it came with another request."""
    record = _record(world, command)
    if record is None or record.until <= world.now:
        return None
    if record.body != command.body:
        raise RefusedError(
            "idempotency_mismatch",
            "This Idempotency-Key came with another request before; a key belongs to one request for 24 hours.",
        )
    if record.stage:
        _wait(world, record, command)
        return Known(None)
    assert isinstance(record.outcome, Raw)
    outcome = _outcomes.decode(record.outcome)
    return Known(structs.replace(_replayed(outcome), awaits=_awaits(world, outcome)))


def undecided(world: World, command: Repeatable, stage: str) -> None:
    """The command waits for other homes: repeats wait with it."""
    if command.replay:
        until = world.now + REPLAY_MS
        record = ReplayRecord(key=command.replay, body=command.body, until=until, stage=stage)
        world.put(("replay", command.replay), record)


def keep(world: World, command: Repeatable, outcome: Outcome) -> Outcome:
    """Remember what the command is answered, and answer the repeats that waited for it; gives ``outcome``."""
    if not command.replay:
        return outcome
    key = ("replay", command.replay)
    before = _record(world, command)
    for submit in before.waiting if before is not None else ():
        world.reply(submit, _replayed(outcome))
    if _created(outcome):
        lean = structs.replace(outcome, jobs=tuple(_head(job) for job in outcome.jobs))
        until = world.now + REPLAY_MS
        world.put(key, ReplayRecord(key=command.replay, body=command.body, until=until, outcome=raw(lean)))
    elif before is not None:
        world.put(key, None)
    return outcome


def _record(world: World, command: Repeatable) -> ReplayRecord | None:
    return world.find(("replay", command.replay), ReplayRecord) if command.replay else None


def _wait(world: World, record: ReplayRecord, command: Repeatable) -> None:
    if len(record.waiting) >= WAITING_MAX:
        message = f"{WAITING_MAX} repeats of this request wait already; repeat it later."
        raise RefusedError("backend_error", message)
    waiting = (*record.waiting, command.submit)
    world.put(("replay", record.key), structs.replace(record, waiting=waiting))


def _replayed(outcome: Outcome) -> Outcome:
    return structs.replace(outcome, data={**outcome.data, "replayed": True})


def _created(outcome: Outcome) -> bool:
    """Whether there is anything that a repeat would create again. No job of a partial one: there is not."""
    if outcome.code:
        return False
    return not outcome.jobs or "existing" in outcome.data or any(bytes(job) != NULL for job in outcome.jobs)


def _head(job: Raw) -> Raw:
    """A job without what is large: the repeat's view reads it as it is by then."""
    whole = bytes(job)
    end = whole.find(_ARGS)
    return job if end < 0 else Raw(whole[:end] + b"}")


def _awaits(world: World, outcome: Outcome) -> tuple[Awaited, ...]:
    """The homes of the jobs may not have them yet: wait for whatever was sent there."""
    found = [_heads.decode(job) for job in outcome.jobs]
    homes = {world.home_of(head.queue) for head in found if head is not None} - {world.home}
    return tuple((world.home, home, world.sent.get(str(home), 0)) for home in sorted(homes))
