"""Every field a client may set in a job (OJS.md 1.2): one function each, and the table that names them.

Settings may stand at the top level or under ``options``; the same functions check both. What is checked goes
into a draft of ``NewJob``; what must be given back unchanged stays raw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ojs_stream.core.envelope import Raws, Values, bad_field, bad_payload, encode_object, raw_object
from ojs_stream.core.names import check_id, check_queue, check_specversion
from ojs_stream.core.policy import attempts_of, bad_policy
from ojs_stream.core.records import PRIORITY_MAX
from ojs_stream.core.times import DURATION_MS_MAX, parse_duration, parse_timestamp

SECOND_MS = 1_000
KEEP_FOREVER = -1
LAST_INSTANT_MS = 253_402_300_799_000
"""The end of the year 9999 in UTC: beyond it there is no four-digit timestamp."""


class Layer:
    """The top level of a job or its ``options``: the same fields may stand in both."""

    __slots__ = ("draft", "extra", "options", "raws", "values")

    def __init__(self, values: Values, raws: Raws, draft: Values, extra: Raws, *, options: bool = False) -> None:
        self.values = values
        self.raws = raws
        self.draft = draft
        self.extra = extra
        self.options = options

    def overridden(self, name: str) -> bool:
        """Whether a preferred spelling of the same setting stands beside this one."""
        return self.values.get(name) is not None


def _specversion(_layer: Layer, value: Any) -> None:
    check_specversion(value)


def _queue(layer: Layer, value: Any) -> None:
    layer.draft["queue"] = check_queue(value)


def _priority(layer: Layer, value: Any) -> None:
    if type(value) is not int or not -PRIORITY_MAX <= value <= PRIORITY_MAX:
        raise bad_field("priority", f"must be an integer from -{PRIORITY_MAX} to {PRIORITY_MAX}")
    layer.draft["priority"] = value


def _meta_field(layer: Layer, value: Any) -> None:
    if type(value) is not dict:
        raise bad_payload("meta must be a JSON object")
    if not layer.options:
        layer.draft["meta"] = layer.raws["meta"]
        return
    _merge_metadata(layer, "meta")


def _metadata(layer: Layer, value: Any) -> None:
    if not layer.options:
        layer.extra["metadata"] = layer.raws["metadata"]
        return
    if type(value) is not dict:
        raise bad_payload("options.metadata must be a JSON object")
    _merge_metadata(layer, "metadata")


def _merge_metadata(layer: Layer, name: str) -> None:
    before = layer.draft.get("metadata")
    more = layer.raws[name]
    layer.draft["metadata"] = more if before is None else encode_object({**raw_object(before), **raw_object(more)})


def _whole(value: Any, name: str, *, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        kind = "a positive integer" if low == 1 else f"an integer of at least {low}"
        raise bad_field(name, f"must be {kind}, at most {high}")
    return value


def _ms(name: str, target: str) -> Callable[[Layer, Any], None]:
    def check(layer: Layer, value: Any) -> None:
        layer.draft[target] = _whole(value, name, low=1, high=DURATION_MS_MAX)

    return check


def _seconds(name: str, target: str, *, low: int = 1, unless: str = "") -> Callable[[Layer, Any], None]:
    def check(layer: Layer, value: Any) -> None:
        seconds = _whole(value, name, low=low, high=DURATION_MS_MAX // SECOND_MS)
        if not unless or not layer.overridden(unless):
            layer.draft[target] = seconds * SECOND_MS if seconds >= 0 else KEEP_FOREVER

    return check


def _length_ms(value: Any, name: str) -> int:
    if type(value) is not str:
        raise bad_field(name, "must be an ISO 8601 duration such as PT30S")
    try:
        return parse_duration(value)
    except ValueError as error:
        raise bad_field(name, str(error)) from None


def _instant(value: Any, name: str) -> tuple[int | None, int]:
    """(length from now, 0) of ``+PT2S``, (None, instant) of a timestamp. Before 1970 counts as just past."""
    if type(value) is not str:
        raise bad_field(name, "must be a string with an RFC 3339 timestamp or +<ISO 8601 duration>")
    if value.startswith("+"):
        return _length_ms(value[1:], name), 0
    try:
        instant = parse_timestamp(value)
    except (ValueError, OverflowError) as error:
        raise bad_field(name, str(error)) from None
    if instant > LAST_INSTANT_MS:
        raise bad_field(name, "must be before the year 10000")
    return None, max(instant, 1)


def _schedule(name: str, *preferred: str) -> Callable[[Layer, Any], None]:
    def check(layer: Layer, value: Any) -> None:
        length, instant = _instant(value, name)
        if any(layer.overridden(better) for better in preferred):
            return
        draft = layer.draft
        draft.update(delay_ms=length or 0, scheduled=instant, scheduled_at=value if length is None else None)

    return check


def _delay(layer: Layer, value: Any) -> None:
    length = _length_ms(value, "delay")
    if not (layer.overridden("scheduled_at") or layer.overridden("delay_until")):
        layer.draft.update(delay_ms=length, scheduled=0, scheduled_at=None)


def _expires_at(layer: Layer, value: Any) -> None:
    length, instant = _instant(value, "expires_at")
    layer.draft.update(
        expires_in_ms=0 if length is None else max(length, 1),
        expires=instant,
        expires_at=value if length is None else None,
    )


def _ttl(name: str, *preferred: str) -> Callable[[Layer, Any], None]:
    def check(layer: Layer, value: Any) -> None:
        if type(value) is str:
            length = max(_length_ms(value, name), 1)
        else:
            length = _whole(value, name, low=1, high=DURATION_MS_MAX // SECOND_MS) * SECOND_MS
        if not any(layer.overridden(better) for better in preferred):
            layer.draft.update(expires_in_ms=length, expires=0, expires_at=None)

    return check


def _checked_only(name: str, *, low: int) -> Callable[[Layer, Any], None]:
    def check(_layer: Layer, value: Any) -> None:
        _whole(value, name, low=low, high=DURATION_MS_MAX // SECOND_MS)

    return check


def _policy(name: str, *preferred: str) -> Callable[[Layer, Any], None]:
    def check(layer: Layer, value: Any) -> None:
        if any(layer.overridden(better) for better in preferred):
            return
        if type(value) is not dict:
            raise bad_policy(name, "must be an object", prefix="")
        layer.draft["policy"] = layer.raws[name]

    return check


def _attempts(layer: Layer, value: Any) -> None:
    layer.draft["attempts"] = attempts_of(value, prefix="")


def _pending(layer: Layer, value: Any) -> None:
    if type(value) is not bool:
        raise bad_field("pending", "must be true or false")
    layer.draft["pending"] = value


def _tags(_layer: Layer, value: Any) -> None:
    if type(value) is not list or any(type(item) is not str for item in value):
        raise bad_field("tags", "must be an array of strings")


def _object(name: str) -> Callable[[Layer, Any], None]:
    def check(_layer: Layer, value: Any) -> None:
        if type(value) is not dict:
            raise bad_field(name, "must be an object")

    return check


def _unique(layer: Layer, value: Any) -> None:
    if type(value) is not dict:
        raise bad_field("unique", "must be an object")
    # Its fingerprint needs the fields of both layers: ``core/unique.py`` looks at it when they are known.
    layer.draft["unique"] = value


def _schema(_layer: Layer, value: Any) -> None:
    if type(value) is not str or not value:
        raise bad_field("schema", "must be a URI")


def _rate_limit(layer: Layer, value: Any) -> None:
    if type(value) is not dict:
        raise bad_field("rate_limit", "must be an object")
    layer.draft["limit"] = value


def _version(_layer: Layer, value: Any) -> None:
    if type(value) in (list, dict):
        raise bad_field("version", "must be a string or a number")


def _id(layer: Layer, value: Any) -> None:
    if not layer.options:
        layer.draft.update(id=check_id(value), client_id=True)


Check = Callable[[Layer, Any], None]


def keep(_layer: Layer, _value: Any) -> None:
    """The mark of a field that no rule knows: it is given back unchanged."""


_SYSTEM_MANAGED = (
    # OJS.md 1.3: what a client sends here is ignored and never echoed, else it could forge a history.
    "activated_at",
    "attempt",
    "cancelled_at",
    "checkpoint",
    "completed_at",
    "created_at",
    "discarded_at",
    "enqueued_at",
    "error",
    "errors",
    "last_checkpoint",
    "next_attempt_at",
    "next_retry_at",
    "parent_id",
    "parent_results",
    "previous_state",
    "progress",
    "progress_data",
    "re_enqueued_at",
    "result",
    "retry_delay_ms",
    "root_id",
    "started_at",
    "state",
    "worker_id",
    "workflow_id",
    "workflow_step",
)
ECHOED = frozenset(
    (
        "enqueue_ttl",
        "grace_period",
        "heartbeat_timeout",
        "rate_limit",
        "result_ttl",
        "schema",
        "tags",
        "total_timeout",
        "ttl",
        "unique",
        "version",
    )
)
CHECKS: dict[str, Check | None] = {
    **dict.fromkeys(_SYSTEM_MANAGED),
    "type": None,
    "args": None,
    "options": None,
    "specversion": _specversion,
    "id": _id,
    "meta": _meta_field,
    "metadata": _metadata,
    "queue": _queue,
    "priority": _priority,
    "timeout": _seconds("timeout", "timeout_ms", unless="timeout_ms"),
    "timeout_ms": _ms("timeout_ms", "timeout_ms"),
    "visibility_timeout": _seconds("visibility_timeout", "visibility_timeout_ms", unless="visibility_timeout_ms"),
    "visibility_timeout_ms": _ms("visibility_timeout_ms", "visibility_timeout_ms"),
    "scheduled_at": _schedule("scheduled_at"),
    "delay_until": _schedule("delay_until", "scheduled_at"),
    "delay": _delay,
    "expires_at": _expires_at,
    "enqueue_ttl": _ttl("enqueue_ttl", "expires_at"),
    "ttl": _ttl("ttl", "expires_at", "enqueue_ttl"),
    "total_timeout": _seconds("total_timeout", "total_timeout_ms"),
    "grace_period": _checked_only("grace_period", low=0),
    "heartbeat_timeout": _checked_only("heartbeat_timeout", low=1),
    "result_ttl": _seconds("result_ttl", "result_ttl_ms", low=-1),
    "retry": _policy("retry"),
    "retry_policy": _policy("retry_policy", "retry"),
    "max_attempts": _attempts,
    "unique": _unique,
    "rate_limit": _rate_limit,
    "tags": _tags,
    "schema": _schema,
    "pending": _pending,
    "version": _version,
}
