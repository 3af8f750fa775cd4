"""Two releases in one cluster: today's code, and one that is newer by a command and a field.

The newer release knows a command ``touch`` of the next version, which it also sends from home to home. In some
runs it counts touches in a field of the queue's record, and then its records are of the next state version; in
others only an event tells of one. Which release runs is a matter of the worker whose code it is: everything else
of the two is the same code.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from ojs_stream.agents import owner
from ojs_stream.agents.owner import Owner
from ojs_stream.core import commands as c
from ojs_stream.core import fold, records
from ojs_stream.core.fold import ticks
from ojs_stream.core.fold.jobs import ensure_queue
from ojs_stream.core.outcomes import EventData, Outcome
from ojs_stream.core.records import STATE_VERSION, HomeState, QueueRecord
from ojs_stream.core.world import World, system_command
from ojs_stream.log import codec
from tests.support import builders

TODAY, NEWER = STATE_VERSION, STATE_VERSION + 1
whose: contextvars.ContextVar[Any] = contextvars.ContextVar("whose", default=None)
"""The worker whose code runs; nobody's (a replay, an audit) is of the newer release."""


class Touch(c.Command, frozen=True, kw_only=True, omit_defaults=True, tag="touch"):
    """Tell that a queue was touched; ``far`` says so at the next home, too, by a message."""

    queue: str
    tag: str
    far: bool = False


class NewerQueueRecord(QueueRecord, frozen=True, kw_only=True, omit_defaults=True):
    """As the newer release stores it."""

    touched: int = 0


class _ByRelease:
    """Reads a queue's record as the release of the present worker would: it knows the new field, or drops it."""

    def __init__(self) -> None:
        self._today = msgspec.json.Decoder(QueueRecord)
        self._newer = msgspec.json.Decoder(NewerQueueRecord)

    def decode(self, data: bytes) -> QueueRecord:
        return self._newer.decode(data) if release() == NEWER else self._today.decode(data)


_touch_decoder = msgspec.json.Decoder(Touch)


def release() -> int:
    """Of the worker whose code runs."""
    worker = whose.get()
    return NEWER if worker is None else int(worker.release)


def _decode_pack(value: bytes) -> list[Any]:
    """As the release of the present worker does it."""
    if release() == TODAY or b'"kind":"touch"' not in value:
        return codec.decode_pack(value)
    pack = codec._pack_decoder.decode(value)
    return [
        _touch_decoder.decode(raw) if b'"kind":"touch"' in bytes(raw)[:40] else codec._decode(raw)
        for raw in pack.commands
    ]


def _touch(world: World, command: Touch, *, counted: bool) -> Outcome:
    queue = ensure_queue(world, command.queue)
    if counted:
        stored = msgspec.structs.asdict(queue)
        stored["touched"] = stored.get("touched", 0) + 1
        world.put(("queue", queue.name), NewerQueueRecord(**stored))
    world.emit("queue.touched", queue.name, EventData(queue=queue.name, reason=command.tag))
    if command.far:
        far: Touch = system_command(Touch, queue=f"far-{world.home}", tag=f"{command.tag}-far")
        world.message((world.home + 1) % world.homes, msgspec.structs.replace(far, v=NEWER))
    return Outcome()


@contextmanager
def two_releases(*, counted: bool) -> Iterator[None]:
    """Meanwhile workers of the newer release know what is new in it. ``counted``: so do their records."""
    real_state, real_check = World.state, Owner._check_version

    def state(world: World) -> HomeState:
        made = real_state(world)
        return msgspec.structs.replace(made, v=NEWER) if counted and release() == NEWER else made

    def check(self: Owner, stored: HomeState) -> None:
        if release() == TODAY:
            real_check(self, stored)

    with ExitStack() as stack:
        stack.enter_context(patch.object(owner, "decode_pack", _decode_pack))
        stack.enter_context(patch.object(builders, "decode_pack", _decode_pack))
        stack.enter_context(patch.object(World, "state", state))
        stack.enter_context(patch.object(Owner, "_check_version", check))
        stack.enter_context(patch.dict(records._DECODERS, {"queue": _ByRelease()}))
        stack.enter_context(patch.dict(records._ENTRIES, {NewerQueueRecord: records._ENTRIES[QueueRecord]}))
        stack.enter_context(patch.dict(ticks.DUE, {NewerQueueRecord: ticks.DUE[QueueRecord]}))
        touch: Any = lambda world, command: _touch(world, command, counted=counted)  # noqa: E731
        stack.enter_context(patch.dict(fold.HANDLERS, {Touch: touch}))
        yield
