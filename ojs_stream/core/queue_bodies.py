"""Bodies of a purge and of the deletion of a queue. Pure parsers."""

from __future__ import annotations

from types import NoneType
from typing import Any, Literal

from msgspec import Struct

from ojs_stream.core.config_body import length_of
from ojs_stream.core.envelope import bad_field, load_object
from ojs_stream.core.names import check_queue
from ojs_stream.core.states import STATES, TERMINAL, State
from ojs_stream.core.times import parse_timestamp

Strategy = Literal["reject", "discard", "move"]
_STRATEGIES: dict[str, Strategy] = {"reject": "reject", "discard": "discard", "move": "move"}


class PurgeBody(Struct, frozen=True, kw_only=True):
    """A checked purge: which states, and before which instant (ms) they were entered; 0: at any time."""

    states: tuple[State, ...]
    before: int


PURGED_BY_DEFAULT: tuple[State, ...] = ("available", "scheduled", "retryable", "pending")
"""Without ``states`` a purge empties the queue of what waits: never of what runs, nor of its history."""


def parse_purge(body: bytes, now_ms: int, *, careful: bool) -> PurgeBody:
    """``{states?, older_than?, confirm?}``. ``careful``: states and ``confirm: true`` must be there."""
    values = load_object(body)[0] if body and not body.isspace() else {}
    if careful and values.get("confirm") is not True:
        raise bad_field("confirm", "must be true: the jobs are removed for good")
    states = _states(values.get("states"), careful=careful)
    before = 0
    if values.get("older_than") is not None:
        before = _before(values["older_than"], now_ms)
        if not TERMINAL.issuperset(states):
            raise bad_field("older_than", f"needs states of finished jobs: {', '.join(sorted(TERMINAL))}")
    return PurgeBody(states=states, before=before)


def _states(value: Any, *, careful: bool) -> tuple[State, ...]:
    if value is None and not careful:
        return PURGED_BY_DEFAULT
    if type(value) is not list or not value or any(each not in STATES for each in value):
        raise bad_field("states", f"must be a non-empty array of {', '.join(STATES)}")
    return tuple(dict.fromkeys(value))


def _before(value: Any, now_ms: int) -> int:
    if type(value) is not str:
        raise bad_field("older_than", "must be a timestamp, or a duration such as P7D or 7d")
    try:
        return max(1, parse_timestamp(value))
    except (ValueError, OverflowError):
        return max(1, now_ms - length_of(value, "older_than"))


class DeleteBody(Struct, frozen=True, kw_only=True):
    """A checked deletion of a queue."""

    strategy: Strategy
    target: str


def parse_delete(name: str, body: bytes) -> DeleteBody:
    """``{strategy: reject|discard|move, target_queue?}``; without a body ``reject``."""
    values = load_object(body)[0] if body and not body.isspace() else {}
    given = values.get("strategy")
    strategy = _STRATEGIES.get("reject" if given is None else given) if type(given) in (str, NoneType) else None
    if strategy is None:
        raise bad_field("strategy", "must be reject, discard or move")
    if strategy != "move":
        return DeleteBody(strategy=strategy, target="")
    target = check_queue(values.get("target_queue"), "target_queue")
    if target == name:
        raise bad_field("target_queue", "must be another queue than the one that is deleted")
    return DeleteBody(strategy=strategy, target=target)
