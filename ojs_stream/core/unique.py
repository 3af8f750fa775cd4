"""What makes a job unique, as clients write it (OJS.md 5.3) to ``UniqueRule``. Pure.

``type`` is always part of the fingerprint, and by default nothing else is: then every job of one type is a
duplicate of every other, in whatever queue and with whatever args (the specification's default, surprising as
it is).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, Literal, get_args

from msgspec import Raw

from ojs_stream.core.canonical import canonical, load_exact
from ojs_stream.core.commands import NewJob
from ojs_stream.core.envelope import Values, bad_field
from ojs_stream.core.homes import home_of
from ojs_stream.core.records import UniqueRule
from ojs_stream.core.states import STATES, State
from ojs_stream.core.times import DURATION_MS_MAX, parse_duration

OnConflict = Literal["reject", "ignore", "replace", "replace_except_schedule"]
DIMENSIONS = ("type", "queue", "args", "meta")
DEFAULT_STATES: tuple[State, ...] = ("available", "active", "scheduled", "retryable", "pending")
CONFLICTS: dict[str, OnConflict] = {**{name: name for name in get_args(OnConflict)}, "use_existing": "ignore"}
_FIELDS = ("keys", "key", "args_keys", "meta_keys", "period", "period_ms", "within", "states", "on_conflict")
NAMES_MAX = 100
"""So many names one list of a rule may have."""
OWN_KEY_BYTES_MAX = 1_024
ARGS_TRIED_MAX, META_TRIED_MAX = 6, 4
"""So many members of each are tried in all combinations when a fingerprint is to be explained."""


def unique_rule(given: Values, draft: Values, homes: int) -> UniqueRule:
    """The rule of a job whose ``type``, ``queue``, ``args`` and ``meta`` are known; a violation is a 400."""
    unknown = sorted(given.keys() - set(_FIELDS))
    if unknown:
        raise bad_field("unique", f"has the unknown field {unknown[0]!r}, its fields are {', '.join(_FIELDS)}")
    dimensions = _dimensions(given, draft)
    key = _fingerprint(dimensions)
    return UniqueRule(
        key=key,
        # With the queue in it nobody else can want the fingerprint: its lock is where the job is.
        home=home_of(draft["queue"] if "queue" in dimensions else key, homes),
        states=_states(given.get("states")),
        period_ms=_period(given),
        on_conflict=_on_conflict(given.get("on_conflict")),
    )


def _fingerprint(dimensions: Values) -> str:
    return hashlib.sha256(canonical(dimensions).encode("utf-8", "surrogatepass")).hexdigest()


def has_queue(key: str, *, kind: str, queue: str, args: Raw, meta: Raw) -> bool:
    """Whether a job's fingerprint has this queue in it. A rule does not say: it is found out by trying.

    A rule that names more than a few members of ``args`` or ``meta`` is not found.
    """
    for some_args in _args_choices(load_exact(bytes(args))):
        for some_meta in _meta_choices(load_exact(bytes(meta))):
            if _fingerprint({"type": kind, "queue": queue, **some_args, **some_meta}) == key:
                return True
    return False


def _args_choices(args: list[Any]) -> Iterator[Values]:
    """What a rule may have taken of ``args``: nothing, all, or members of its objects."""
    yield {}
    yield {"args": args}
    objects = [item for item in args if isinstance(item, dict)]
    for wanted in _name_choices({name for item in objects for name in item}, ARGS_TRIED_MAX):
        chosen = [_members(item, wanted) for item in objects]
        yield {"args": [members for members in chosen if members]}


def _meta_choices(meta: Values) -> Iterator[Values]:
    yield {}
    for wanted in _name_choices(set(meta), META_TRIED_MAX):
        yield {"meta": _members(meta, wanted)}


def _name_choices(names: set[str], names_max: int) -> Iterator[list[str]]:
    first = sorted(names)[:names_max]
    for count in range(1, len(first) + 1):
        yield from map(list, combinations(first, count))


def deciding_home(jobs: Sequence[NewJob], homes: int) -> int:
    """Where an enqueue is decided with the fewest hops: home of a chosen id, else of a lock, else of a queue."""
    for job in jobs:
        if job.client_id:
            return home_of(job.id, homes)
    return next((job.unique.home for job in jobs if job.unique is not None), home_of(jobs[0].queue, homes))


# -- the fingerprint ------------------------------------------------------------------------------------------


def _dimensions(given: Values, draft: Values) -> Values:
    """What two duplicates have in common, by dimension."""
    wanted, args_keys, own = _wanted(given)
    found: Values = {"type": draft["type"]}
    if own:
        found["key"] = own
    if "queue" in wanted:
        found["queue"] = draft["queue"]
    if "args" in wanted:
        found["args"] = _args(draft["args"], args_keys)
    if "meta" in wanted:
        found["meta"] = _meta(draft["meta"], _names(given, "meta_keys"))
    return found


def _wanted(given: Values) -> tuple[set[str], list[str], str]:
    """(dimensions, names of args, the client's own key)."""
    args_keys = _names(given, "args_keys")
    named, own = _keys(given)
    args_keys += [name for name in named if name not in DIMENSIONS and name not in args_keys]
    wanted = {name for name in named if name in DIMENSIONS}
    # Whoever names members of args or meta means them.
    if args_keys:
        wanted.add("args")
    meta_keys = _names(given, "meta_keys")
    if meta_keys:
        wanted.add("meta")
    elif "meta" in wanted:
        raise bad_field("unique.meta_keys", "must name members of meta when unique.keys contains 'meta'")
    return wanted, args_keys, own


def _keys(given: Values) -> tuple[list[str], str]:
    """``keys`` names dimensions. ``key`` may also list args, or be a dimension or the client's own key as text."""
    if given.get("keys") is not None:
        names = _names(given, "keys")
        strange = [name for name in names if name not in DIMENSIONS]
        if strange:
            raise bad_field("unique.keys", f"has {strange[0]!r}, it may have {', '.join(DIMENSIONS)}")
        return names, ""
    key = given.get("key")
    if type(key) is not str:
        return _names(given, "key"), ""
    if key in DIMENSIONS:
        return [key], ""
    if not key or len(key.encode()) > OWN_KEY_BYTES_MAX:
        raise bad_field("unique.key", f"must be a list of names, or a string of 1 to {OWN_KEY_BYTES_MAX} bytes")
    return [], key


def _names(given: Values, field: str) -> list[str]:
    """A list of strings, each once; ``[]`` when it is not there."""
    names = given.get(field)
    if names is None:
        return []
    if type(names) is not list or any(type(name) is not str or not name for name in names):
        raise bad_field(f"unique.{field}", "must be an array of non-empty strings")
    if len(set(names)) < len(names):
        raise bad_field(f"unique.{field}", "must have no name twice")
    if len(names) > NAMES_MAX:
        raise bad_field(f"unique.{field}", f"has {len(names)} names, at most {NAMES_MAX} are accepted")
    return list(names)


def _args(raw: Raw, wanted: list[str]) -> Any:
    """All of ``args``, or the wanted members of the objects in it; each must be in one of them."""
    args = load_exact(bytes(raw))
    if not wanted:
        return args
    objects = [item for item in args if isinstance(item, dict)]
    missing = [name for name in wanted if not any(name in item for item in objects)]
    if missing:
        raise bad_field("unique.args_keys", f"names {missing[0]!r}, which no object in args has")
    chosen = [_members(item, wanted) for item in objects]
    return [members for members in chosen if members]


def _meta(raw: Raw, wanted: list[str]) -> Values:
    return _members(load_exact(bytes(raw)), wanted)


def _members(value: Values, wanted: list[str]) -> Values:
    return {name: value[name] for name in wanted if name in value}


# -- the rest of the rule -------------------------------------------------------------------------------------


def _states(names: Any) -> tuple[State, ...]:
    """The states in which a job stands against another; none given: all but the final ones."""
    if names is None or names == []:
        return DEFAULT_STATES
    if type(names) is not list or any(name not in STATES for name in names):
        raise bad_field("unique.states", f"must be an array of {', '.join(STATES)}")
    return tuple(state for state in STATES if state in names)


def _period(given: Values) -> int:
    """``period`` (ISO 8601), ``within`` (also ``1h``) or ``period_ms``, in this order; 0: no end."""
    for field in ("period", "within"):
        if given.get(field) is not None:
            return _duration(given[field], f"unique.{field}")
    period_ms = given.get("period_ms")
    if period_ms is None:
        return 0
    if type(period_ms) is not int or not 0 < period_ms <= DURATION_MS_MAX:
        raise bad_field("unique.period_ms", f"must be an integer of milliseconds from 1 to {DURATION_MS_MAX}")
    return period_ms


def _duration(text: Any, field: str) -> int:
    if type(text) is not str:
        raise bad_field(field, "must be an ISO 8601 duration such as PT1H")
    try:
        period_ms = parse_duration(text)
    except ValueError as error:
        raise bad_field(field, str(error)) from None
    if period_ms <= 0:
        raise bad_field(field, "must be longer than zero")
    return period_ms


def _on_conflict(name: Any) -> OnConflict:
    if name is None:
        return "reject"
    chosen = CONFLICTS.get(name) if type(name) is str else None
    if chosen is None:
        raise bad_field("unique.on_conflict", f"must be one of {', '.join(CONFLICTS)}")
    return chosen
