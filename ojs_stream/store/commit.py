"""What one round writes for one home: absolute values only, with the offset it expects to find."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct, field

from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import stored_json
from ojs_stream.core.world import World
from ojs_stream.store import keys

EVENTS_MAX = 10_000
"""Slots of a home's event ring: what ``GET /events`` can show, and what may be unsent at most."""
OUTCOME_S = 60
_encoder = msgspec.json.Encoder()


class Acked(Struct, frozen=True, omit_defaults=True):
    """How far what leaves a home is known to be in its topics.

    It is written beside the home's state, not in it: it is not folded, a replay knows nothing of it.
    """

    events: int = 0
    """The number of the last event; the topic itself forgets it with its retention."""


class Trim(Struct, frozen=True):
    """What a commit says of that: fields that leave the outbox, and how far everything is acked then."""

    acked: Acked
    fields: list[str]


class Commit(Struct, kw_only=True):
    """All writes of a round. Applying it twice gives the same as once."""

    home: int
    expected: int | None
    """The applied offset that must be found; ``None``: no offset at all (an empty home)."""
    deletes: list[str] = field(default_factory=list)
    """Whole keys; done before everything else."""
    strings: dict[str, bytes | None] = field(default_factory=dict)
    zsets: dict[str, dict[str, int | None]] = field(default_factory=dict)
    hashes: dict[str, dict[str, bytes | None]] = field(default_factory=dict)
    expiring: dict[str, bytes] = field(default_factory=dict)
    """Outcomes for views of other workers; gone after ``OUTCOME_S``."""


def commit_of(
    world: World,
    *,
    namespace: str,
    expected: int | None,
    applied: int,
    trim: Trim | None = None,
    keep_outcome: Callable[[str], bool] = bool,
) -> Commit:
    """The writes of a finished round."""
    commit = Commit(home=world.home, expected=expected, deletes=sorted(world.wiped))
    strings = commit.strings
    for key, record in world.changed.items():
        strings[keys.record(namespace, world.home, key)] = None if record is None else stored_json(record)
    strings[keys.home_state(namespace, world.home)] = _encoder.encode(world.state())
    if trim is not None:
        strings[keys.acked(namespace, world.home)] = _encoder.encode(trim.acked)
    strings[keys.applied(namespace, world.home)] = b"%d" % applied
    for index, view in world.indexes.items():
        if view.changes:
            commit.zsets[keys.record(namespace, world.home, index)] = view.changes
    _add_effects(commit, world, namespace, trim.fields if trim is not None else ())
    for submit, outcome in world.replies:
        if keep_outcome(submit):
            commit.expiring[keys.outcome(namespace, world.home, submit)] = encode_outcome(outcome)
    return commit


def _add_effects(commit: Commit, world: World, namespace: str, trimmed: Iterable[str]) -> None:
    kept = [event for event in world.events if event.number > world.forgotten]
    if kept:
        ring: dict[str, bytes | None] = {str(e.number % EVENTS_MAX): e.data for e in kept}
        commit.hashes[keys.events(namespace, world.home)] = ring
    outbox: dict[str, bytes | None] = dict.fromkeys(trimmed)
    for effect in world.effects:
        outbox[effect_field(effect.number)] = _encoder.encode(effect)
    for message in world.messages:
        outbox[message_field(message.destination, message.number)] = message.data
    if outbox:
        commit.hashes[keys.outbox(namespace, world.home)] = outbox


def effect_field(number: int) -> str:
    """The outbox field of an effect."""
    return f"e:{number}"


def message_field(destination: int, number: int) -> str:
    """The outbox field of a message."""
    return f"m:{destination}:{number}"


def encode_outcome(outcome: Outcome) -> bytes:
    """An outcome on its way to another worker."""
    return _encoder.encode(outcome)
