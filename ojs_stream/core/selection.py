"""Which jobs a bulk cancel, retry or delete is for (OJS.md 5.7): ids, or a filter. Pure."""

from __future__ import annotations

from typing import Any

import orjson
from msgspec import Struct

from ojs_stream.core.commands import BulkAction
from ojs_stream.core.config_body import length_of
from ojs_stream.core.envelope import Values, bad_field, load_object
from ojs_stream.core.names import check_queue
from ojs_stream.core.records import PRIORITY_MAX, JobRecord
from ojs_stream.core.states import STATES, TRANSITIONS, State
from ojs_stream.core.times import parse_duration, parse_timestamp
from ojs_stream.core.validation import check_batch_size

DEFAULT_STATES: dict[BulkAction, tuple[State, ...]] = {
    "cancel": ("available", "scheduled"),
    "retry": ("discarded",),
    "delete": ("completed", "cancelled", "discarded"),
}
"""What a filter without states is about."""
REASON_CHARS_MAX = 1_000
_FIELDS = ("queue", "state", "states", "type", "priority", "older_than", "enqueued_before", "meta")


class Filter(Struct, frozen=True, kw_only=True):
    """All that is given must fit. ``type`` may end in ``*``; ``before``: created before this instant (ms)."""

    states: tuple[State, ...]
    queue: str = ""
    type: str = ""
    priority: int | None = None
    before: int | None = None
    meta: dict[str, Any] | None = None

    @property
    def needs_records(self) -> bool:
        """Whether the indexes alone cannot answer it."""
        return bool(self.type or self.meta) or self.priority is not None or self.before is not None

    def fits(self, record: JobRecord) -> bool:
        """Whether a job of a wanted queue and state is meant."""
        job = record.job
        if self.priority is not None and job.priority != self.priority:
            return False
        if self.before is not None and record.ctl.created >= self.before:
            return False
        return self._fits_type(job.type) and self._fits_meta(bytes(job.meta))

    def _fits_type(self, name: str) -> bool:
        if self.type.endswith("*"):
            return name.startswith(self.type[:-1])
        return not self.type or name == self.type

    def _fits_meta(self, meta: bytes) -> bool:
        if not self.meta:
            return True
        values = orjson.loads(meta)
        return all(name in values and values[name] == value for name, value in self.meta.items())


class Selection(Struct, frozen=True, kw_only=True):
    """The ids, or the filter."""

    job_ids: tuple[str, ...]
    filter: Filter | None
    reason: str = ""


def parse_selection(body: bytes, action: BulkAction, *, ids_max: int, confirm: bool, now_ms: int) -> Selection:
    """``{"job_ids": [...]}`` or ``{"filter": {...}}``, one of them; with ``confirm`` also ``"confirm": true``."""
    values, _ = load_object(body)
    if confirm and values.get("confirm") is not True:
        raise bad_field("confirm", "must be true: this changes many jobs at once")
    if values.get("atomicity") not in (None, "partial"):
        raise bad_field("atomicity", "must be partial: each job is changed for itself")
    reason = values.get("reason")
    if reason is not None and type(reason) is not str:
        raise bad_field("reason", "must be a string")
    ids, wanted = values.get("job_ids"), values.get("filter")
    if (ids is None) == (wanted is None):
        raise bad_field("job_ids", "or filter must be given, and not both")
    return Selection(
        job_ids=() if ids is None else _ids(ids, ids_max),
        filter=None if wanted is None else _filter(wanted, action, now_ms),
        reason=(reason or "")[:REASON_CHARS_MAX],
    )


class DeadFilter(Struct, frozen=True, kw_only=True):
    """Which dead letters are meant; ``None``: all. ``until``: dead at this instant already (ms)."""

    queue: str | None = None
    type: str | None = None
    error_type: str | None = None
    until: int | None = None


_DEAD_FIELDS = ("queue", "type", "error_type", "older_than")


def parse_dead_filter(body: bytes, now_ms: int) -> DeadFilter:
    """``{"filter": {queue?, type?, error_type?, older_than?}, "confirm": true}``; an empty filter means all."""
    values, _ = load_object(body)
    if values.get("confirm") is not True:
        raise bad_field("confirm", "must be true: this changes many jobs at once")
    given = values.get("filter")
    if given is not None and type(given) is not dict:
        raise bad_field("filter", "must be an object")
    wanted = given or {}
    for name, value in wanted.items():
        if name not in _DEAD_FIELDS or (value is not None and type(value) is not str):
            raise bad_field(f"filter.{name}", f"must be a text under one of {', '.join(_DEAD_FIELDS)}")
    length = wanted.get("older_than")
    return DeadFilter(
        queue=wanted.get("queue") or None,
        type=wanted.get("type") or None,
        error_type=wanted.get("error_type") or None,
        until=now_ms - length_of(length, "filter.older_than") if length else None,
    )


def legal_states(action: BulkAction) -> tuple[State, ...]:
    """The states from which the action is possible."""
    return tuple(state for state in STATES if state in TRANSITIONS[action][0])


def _ids(ids: Any, ids_max: int) -> tuple[str, ...]:
    if type(ids) is not list or not ids or not all(type(one) is str for one in ids):
        raise bad_field("job_ids", "must be a non-empty array of job ids")
    check_batch_size("job_ids", len(ids), ids_max)
    return tuple(dict.fromkeys(ids))


def _filter(given: Any, action: BulkAction, now_ms: int) -> Filter:
    if type(given) is not dict or not any(value is not None for value in given.values()):
        raise bad_field("filter", f"must be an object with at least one of {', '.join(_FIELDS)}")
    for name in given:
        if name not in _FIELDS:
            # Whoever misspells a condition must not change more jobs than were meant.
            raise bad_field(f"filter.{name}", f"is unknown, use {', '.join(_FIELDS)}")
    queue = given.get("queue")
    return Filter(
        states=_states(given, action),
        queue="" if queue is None else check_queue(queue, "filter.queue"),
        type=_text(given, "type"),
        priority=_priority(given),
        before=_before(given, now_ms),
        meta=_meta(given),
    )


def _states(given: Values, action: BulkAction) -> tuple[State, ...]:
    wanted = given.get("state", given.get("states"))
    if wanted is None:
        return DEFAULT_STATES[action]
    names = wanted.split(",") if type(wanted) is str else wanted
    legal = legal_states(action)
    if type(names) is not list or not names or any(name not in legal for name in names):
        raise bad_field("filter.state", f"must be one or several of {', '.join(legal)}")
    return tuple(state for state in legal if state in names)


def _text(given: Values, name: str) -> str:
    value = given.get(name)
    if value is not None and type(value) is not str:
        raise bad_field(f"filter.{name}", "must be a string")
    return value or ""


def _priority(given: Values) -> int | None:
    value = given.get("priority")
    if value is not None and (type(value) is not int or abs(value) > PRIORITY_MAX):
        raise bad_field("filter.priority", f"must be an integer from -{PRIORITY_MAX} to {PRIORITY_MAX}")
    return value


def _meta(given: Values) -> dict[str, Any] | None:
    value = given.get("meta")
    if value is not None and type(value) is not dict:
        raise bad_field("filter.meta", "must be an object")
    return value


def _before(given: Values, now_ms: int) -> int | None:
    """The earlier of what ``older_than`` (a duration or a timestamp) and ``enqueued_before`` say."""
    ends: list[int] = []
    for name in ("older_than", "enqueued_before"):
        text = _text(given, name)
        if not text:
            continue
        try:
            is_length = name == "older_than" and not text[:4].isdigit()
            ends.append(now_ms - parse_duration(text) if is_length else parse_timestamp(text))
        except (ValueError, OverflowError) as error:
            raise bad_field(f"filter.{name}", str(error)) from None
    return min(ends, default=None)
