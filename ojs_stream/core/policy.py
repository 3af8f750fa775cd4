"""Retry policies as clients write them (OJS.md 3.1) to ``RetryPolicy``, and their normalised echo.

A partial policy is merged over the defaults field by field. Every violation is a 422 ``validation_error``
that names its field. Unknown keys are kept in the echo.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
import orjson
from msgspec import Raw

from ojs_stream.core.envelope import Raws, Values, encode_object, raw_object
from ojs_stream.core.retry import DEFAULT_POLICY, Exhaustion, RetryPolicy, Strategy
from ojs_stream.core.times import DURATION_MS_MAX, format_duration, parse_duration
from ojs_stream.errors import RefusedError

T = TypeVar("T")

ATTEMPTS_MAX = 1_000_000
COEFFICIENT_MAX = 1_000_000.0
_CACHED_BYTES_MAX = 1_024

_STRATEGIES: dict[str, Strategy] = {
    "exponential": "exponential",
    "linear": "linear",
    "constant": "constant",
    "none": "constant",
    "fixed": "constant",
    "polynomial": "polynomial",
}
_EXHAUSTION: dict[str, Exhaustion] = {"discard": "discard", "dead_letter": "dead_letter"}
_KNOWN = {
    "max_attempts": "max_attempts",
    "initial_interval": "initial_ms",
    "initial_interval_ms": "initial_ms",
    "initial_delay_ms": "initial_ms",
    "backoff_coefficient": "coefficient",
    "max_interval": "max_ms",
    "max_interval_ms": "max_ms",
    "jitter": "jitter",
    "non_retryable_errors": "non_retryable",
    "on_exhaustion": "on_exhaustion",
    "backoff_strategy": "strategy",
    "backoff_type": "strategy",
    "strategy": "strategy",
}
"""What clients write -> the field of ``RetryPolicy``."""


def bad_policy(field: str, rule: str, *, prefix: str = "retry.") -> RefusedError:
    """422 ``validation_error``: a field of the retry policy breaks its rule."""
    name = prefix + field
    return RefusedError("invalid_request", f"{name} {rule}", details={"field": name}, kind="validation_error")


def parse_policy(raw: Raw, default: RetryPolicy = DEFAULT_POLICY) -> tuple[RetryPolicy, Raw]:
    """The policy of a raw JSON object (known to be valid JSON), and its echo."""
    data = bytes(raw)
    if len(data) <= _CACHED_BYTES_MAX:
        return _parse_cached(data, default)
    return _parse(data, default)


@lru_cache(maxsize=1024)
def fields_in(data: bytes) -> tuple[str, ...]:
    """Which fields of ``RetryPolicy`` a valid raw policy sets itself."""
    values = _values(data)
    return tuple(dict.fromkeys(field for name, field in _KNOWN.items() if values.get(name) is not None))


def attempts_of(value: Any, *, prefix: str = "retry.") -> int:
    """A checked ``max_attempts``."""
    if type(value) is not int or not 0 <= value <= ATTEMPTS_MAX:
        raise bad_policy(
            "max_attempts", f"must be a non-negative integer of at most {ATTEMPTS_MAX}", prefix=prefix
        )
    return value


def _parse(data: bytes, default: RetryPolicy) -> tuple[RetryPolicy, Raw]:
    values = _values(data)
    attempts = values.get("max_attempts")
    initial = _interval(values, "initial_interval", ("initial_interval_ms", "initial_delay_ms"))
    coefficient = _coefficient(values.get("backoff_coefficient"), default.coefficient)
    initial_ms = default.initial_ms if initial is None else initial
    policy = RetryPolicy(
        max_attempts=default.max_attempts if attempts is None else attempts_of(attempts),
        initial_ms=initial_ms,
        coefficient=coefficient,
        max_ms=_max_interval(values, initial_ms, default.max_ms),
        jitter=_flag(values.get("jitter"), "jitter", default=default.jitter),
        strategy=_strategy(values, coefficient),
        on_exhaustion=_choice(values.get("on_exhaustion"), "on_exhaustion", _EXHAUSTION, default.on_exhaustion),
        non_retryable=_names(values.get("non_retryable_errors")),
    )
    return policy, _echo(policy, raw_object(data))


_parse_cached = lru_cache(maxsize=1024)(_parse)


def _values(data: bytes) -> Values:
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError:
        # Valid JSON, yet a number beyond a double: no field of a policy can be that large.
        raise bad_policy("", "has a number that is out of range", prefix="retry") from None
    if type(values) is not dict:
        raise bad_policy("", "must be an object", prefix="retry")
    return values


def policy_fields(policy: RetryPolicy) -> dict[str, Any]:
    """The policy as clients read it."""
    return {
        "max_attempts": policy.max_attempts,
        "initial_interval": format_duration(policy.initial_ms),
        "backoff_coefficient": policy.coefficient,
        "max_interval": format_duration(policy.max_ms),
        "jitter": policy.jitter,
        "backoff_strategy": policy.strategy,
        "on_exhaustion": policy.on_exhaustion,
        "non_retryable_errors": policy.non_retryable,
    }


def echo_of(policy: RetryPolicy, raw: Raw) -> Raw:
    """``policy`` as clients read it, with the keys of theirs that no rule knows."""
    return _echo(policy, raw_object(raw))


def _echo(policy: RetryPolicy, raws: Raws) -> Raw:
    merged = {name: Raw(msgspec.json.encode(value)) for name, value in policy_fields(policy).items()}
    merged.update((name, raw) for name, raw in raws.items() if name not in _KNOWN)
    return encode_object(merged)


def _interval(values: Values, name: str, aliases: tuple[str, ...]) -> int | None:
    text = values.get(name)
    if text is not None:
        return _duration(text, name)
    for alias in aliases:
        value = values.get(alias)
        if value is not None:
            if type(value) is not int or not 0 < value <= DURATION_MS_MAX:
                raise bad_policy(alias, "must be a positive integer of milliseconds")
            return value
    return None


def _duration(value: Any, name: str) -> int:
    if type(value) is not str:
        raise bad_policy(name, "must be an ISO 8601 duration such as PT1S")
    try:
        duration_ms = parse_duration(value)
    except ValueError as error:
        raise bad_policy(name, str(error)) from None
    if duration_ms <= 0:
        raise bad_policy(name, "must be longer than zero")
    return duration_ms


def _max_interval(values: Values, initial_ms: int, default_ms: int) -> int:
    given = _interval(values, "max_interval", ("max_interval_ms",))
    if given is None:
        return max(default_ms, initial_ms)
    if given < initial_ms:
        raise bad_policy("max_interval", f"must not be shorter than initial_interval ({initial_ms} ms)")
    return given


def _coefficient(value: Any, default: float) -> float:
    if value is None:
        return default
    if type(value) not in (int, float) or not math.isfinite(value) or not 1.0 <= value <= COEFFICIENT_MAX:
        raise bad_policy("backoff_coefficient", f"must be a number from 1.0 to {COEFFICIENT_MAX:.0f}")
    return float(value)


def _strategy(values: Values, coefficient: float) -> Strategy:
    inferred: Strategy = "constant" if coefficient == 1.0 else "exponential"
    for name in ("backoff_strategy", "backoff_type", "strategy"):
        if values.get(name) is not None:
            return _choice(values[name], name, _STRATEGIES, inferred)
    return inferred


def _choice(value: Any, name: str, choices: dict[str, T], default: T) -> T:
    if value is None:
        return default
    chosen = choices.get(value) if type(value) is str else None
    if chosen is None:
        raise bad_policy(name, f"must be one of {', '.join(choices)}")
    return chosen


def _flag(value: Any, name: str, *, default: bool) -> bool:
    if value is None:
        return default
    if type(value) is not bool:
        raise bad_policy(name, "must be true or false")
    return value


def _names(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if type(value) is not list or any(type(item) is not str or not item for item in value):
        raise bad_policy("non_retryable_errors", "must be an array of non-empty strings")
    return tuple(value)
