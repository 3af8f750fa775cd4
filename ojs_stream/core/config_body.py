"""Bodies of queue configurations (OJS.md 5.6, 6.3): JSON to ``ConfigRecord``.

A field that no rule knows is a 400 that names it; one of the specification that this server cannot keep to is a
422 ``unsupported`` with a sentence. ``null`` takes a field back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from msgspec import Struct

from ojs_stream.core.config_shown import RETAINED
from ojs_stream.core.envelope import Raws, Values, bad_field, load_object, raw_object
from ojs_stream.core.names import TYPE_BYTES_MAX, check_queue
from ojs_stream.core.policy import fields_in, parse_policy
from ojs_stream.core.records import ConfigRecord, RetryDefaults, Window
from ojs_stream.core.times import DURATION_MS_MAX, parse_duration
from ojs_stream.errors import RefusedError

SIZE_MAX = 1_000_000_000
"""A bound of a queue beyond this is a mistake."""
TYPES_MAX = 1_000
"""So many patterns ``allowed_job_types`` may have."""


class ConfigBody(Struct, frozen=True, kw_only=True):
    """A checked configuration: the values, and the names of the fields that the body sets or takes back."""

    config: ConfigRecord
    names: tuple[str, ...]


class _Draft:
    """What the body says so far."""

    def __init__(self, raws: Raws) -> None:
        self.raws = raws
        self.fields: dict[str, Any] = {}

    def set(self, **fields: Any) -> None:
        self.fields.update(fields)


def parse_config(name: str, values: Values, raws: Raws) -> ConfigBody:
    """The configuration of a JSON object that is already known to be valid."""
    draft = _Draft(raws)
    for field, value in values.items():
        rule = _RULES.get(field)
        if rule is None:
            known = ", ".join(sorted(_RULES))
            raise bad_field(field[:64], f"is not a field of a queue's configuration: use one of {known}")
        rule(draft, value)
    return ConfigBody(config=ConfigRecord(name=name, **draft.fields), names=tuple(draft.fields))


def parse_config_body(name: str, body: bytes) -> ConfigBody:
    """As ``parse_config``, from the bytes; the fields may stand under ``config``."""
    values, raws = load_object(body)
    values, raws = _unwrapped(values, raws)
    return parse_config(name, values, raws)


def parse_new_queue(body: bytes) -> tuple[str, ConfigBody]:
    """``{name, config: {...}}`` or ``{name, ...config}``."""
    values, raws = load_object(body)
    if "name" not in values:
        raise bad_field("name", "is required")
    name = check_queue(values.pop("name"), "name")
    values, raws = _unwrapped(values, raws)
    return name, parse_config(name, values, raws)


def _unwrapped(values: Values, raws: Raws) -> tuple[Values, Raws]:
    inner = values.get("config")
    if inner is None:
        values.pop("config", None)
        return values, raws
    if type(inner) is not dict:
        raise bad_field("config", "must be an object")
    if len(values) > 1:
        raise bad_field("config", "must stand alone: put every field of the configuration into it")
    return inner, raw_object(raws["config"])


# -- the rules ------------------------------------------------------------------------------------------------

_Rule = Callable[[_Draft, Any], None]


def _whole(value: Any, name: str, *, high: int, low: int = 0) -> int:
    if type(value) is not int or not low <= value <= high:
        raise bad_field(name, f"must be an integer from {low} to {high}")
    return value


def _number(name: str, target: str, *, low: int, high: int, unit: int = 1, none: int | None = None) -> _Rule:
    def check(draft: _Draft, value: Any) -> None:
        given = none if value is None else _whole(value, name, low=low, high=high) * unit
        draft.set(**{target: given})

    return check


def _unsupported(name: str, why: str) -> NoReturn:
    raise RefusedError("unsupported", f"{name} is not supported: {why}", details={"field": name})


def _refused(name: str, why: str, *neutral: Any) -> _Rule:
    """A field of the specification that this server cannot keep to; ``null`` and neutral values are fine."""

    def check(_draft: _Draft, value: Any) -> None:
        if value is not None and value not in neutral:
            _unsupported(name, why)

    return check


_BYTES = "jobs are counted, not weighed; use max_size"
_STRATEGIES = (
    "a full queue rejects jobs (429 QUEUE_FULL with Retry-After), it neither drops old ones nor holds requests"
)


def _strategy(name: str) -> _Rule:
    def check(_draft: _Draft, value: Any) -> None:
        if value in ("block", "drop_oldest"):
            _unsupported(f"{name} {value}", _STRATEGIES)
        if value not in (None, "reject"):
            raise bad_field(name, "must be reject")

    return check


def _backpressure(draft: _Draft, value: Any) -> None:
    if value is None:
        draft.set(max_size=None, warning_threshold=None)
        return
    for field, inner in _object(value, "backpressure").items():
        rule = _BACKPRESSURE.get(field)
        if rule is None:
            raise bad_field(f"backpressure.{field[:64]}", f"is unknown: use one of {', '.join(_BACKPRESSURE)}")
        rule(draft, inner)


def _threshold(draft: _Draft, value: Any) -> None:
    if value is not None and (type(value) not in (int, float) or not 0 <= value <= 1):
        raise bad_field("backpressure.warning_threshold", "must be a number from 0.0 to 1.0")
    draft.set(warning_threshold=None if value is None else float(value))


def _object(value: Any, name: str) -> Values:
    if type(value) is not dict:
        raise bad_field(name, "must be an object")
    return value


def _rate_limit(draft: _Draft, value: Any) -> None:
    if value is None:
        draft.set(rate_limit=None)
        return
    given = _object(value, "rate_limit")
    strange = given.keys() - {"limit", "period", "period_ms"}
    if strange:
        raise bad_field(f"rate_limit.{min(strange)[:64]}", "is unknown: use limit and period")
    limit = _whole(given.get("limit"), "rate_limit.limit", low=1, high=SIZE_MAX)
    if given.get("period_ms") is not None:
        period_ms = _whole(given["period_ms"], "rate_limit.period_ms", low=1, high=DURATION_MS_MAX)
    else:
        period_ms = length_of(given.get("period"), "rate_limit.period")
    draft.set(rate_limit=Window(limit=limit, period_ms=period_ms))


def length_of(value: Any, name: str) -> int:
    """A duration that is longer than zero, in ms."""
    if type(value) is not str:
        raise bad_field(name, "must be a duration such as P7D, PT1H or 7d")
    try:
        length = parse_duration(value)
    except ValueError as error:
        raise bad_field(name, str(error)) from None
    if not length:
        raise bad_field(name, "must be longer than zero")
    return length


def _retention(draft: _Draft, value: Any) -> None:
    if value is None:
        draft.set(**dict.fromkeys(RETAINED.values()))
        return
    if type(value) is str:
        # One length for every finished job; dead letters wait for a person and keep theirs.
        length = length_of(value, "retention")
        draft.set(completed_ms=length, cancelled_ms=length, discarded_ms=length)
        return
    for state, inner in _object(value, "retention").items():
        if state not in RETAINED:
            raise bad_field(f"retention.{state[:64]}", f"is unknown: use one of {', '.join(RETAINED)}")
        draft.set(**{RETAINED[state]: None if inner is None else length_of(inner, f"retention.{state}")})


def _dead_letter_ttl(draft: _Draft, value: Any) -> None:
    draft.set(dead_ms=None if value is None else length_of(value, "dead_letter_ttl"))


def _default_retry(draft: _Draft, value: Any) -> None:
    if value is None:
        draft.set(retry=None)
        return
    _object(value, "default_retry")
    policy, _ = parse_policy(draft.raws["default_retry"])
    given = fields_in(bytes(draft.raws["default_retry"]))
    draft.set(retry=RetryDefaults(**{name: getattr(policy, name) for name in given}))


def _types(draft: _Draft, value: Any) -> None:
    if value is None or value == ["*"]:
        draft.set(allowed_job_types=None)
        return
    if type(value) is not list or len(value) > TYPES_MAX or not all(_is_pattern(each) for each in value):
        rule = f"must be an array of at most {TYPES_MAX} job types such as email.send or email.*"
        raise bad_field("allowed_job_types", rule)
    draft.set(allowed_job_types=tuple(value))


def _is_pattern(value: Any) -> bool:
    return type(value) is str and 0 < len(value.encode()) <= TYPE_BYTES_MAX and "*" not in value[:-1]


_SECONDS_MAX = DURATION_MS_MAX // 1_000
_size = _number("max_size", "max_size", low=0, high=SIZE_MAX)
_BACKPRESSURE: dict[str, _Rule] = {
    "max_depth": _number("backpressure.max_depth", "max_size", low=0, high=SIZE_MAX),
    "max_size_bytes": _refused("backpressure.max_size_bytes", _BYTES, 0),
    "strategy": _strategy("backpressure.strategy"),
    "warning_threshold": _threshold,
}
_RULES: dict[str, _Rule] = {
    "max_size": _size,
    "max_size_bytes": _refused("max_size_bytes", _BYTES, 0),
    "overflow_policy": _strategy("overflow_policy"),
    "backpressure": _backpressure,
    "concurrency": _number("concurrency", "concurrency", low=0, high=SIZE_MAX, none=0),
    "rate_limit": _rate_limit,
    "visibility_timeout": _number(
        "visibility_timeout", "visibility_timeout_ms", low=1, high=_SECONDS_MAX, unit=1_000
    ),
    "visibility_timeout_ms": _number(
        "visibility_timeout_ms", "visibility_timeout_ms", low=1, high=DURATION_MS_MAX
    ),
    "default_timeout": _number("default_timeout", "default_timeout_ms", low=1, high=_SECONDS_MAX, unit=1_000),
    "default_timeout_ms": _number("default_timeout_ms", "default_timeout_ms", low=1, high=DURATION_MS_MAX),
    "default_retry": _default_retry,
    "retention": _retention,
    "dead_letter_ttl": _dead_letter_ttl,
    "allowed_job_types": _types,
    "dead_letter_queue": _refused(
        "dead_letter_queue", "dead letters stay with their queue, under /ojs/v1/dead-letter?queue=<name>"
    ),
    "dead_letter_max_size": _refused("dead_letter_max_size", "dead letters are bounded by retention.dead_letter"),
    "producers": _refused("producers", "who may enqueue is not checked by queue", ["*"]),
    "attest_policy": _refused("attest_policy", "this server issues no attestations"),
}
