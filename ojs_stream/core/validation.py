"""Bytes of an enqueue request to ``NewJob``: every rule of OJS.md 1.2, each with its own code.

Settings may stand at the top level or under ``options`` (which wins). Only fields that are present cost
anything: one table maps a field's name to the function that checks it. ``null`` means absent for an
optional field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw

from ojs_stream.core.commands import NewJob
from ojs_stream.core.envelope import (
    JSON_DEPTH_MAX,
    Raws,
    Values,
    bad_field,
    bad_payload,
    check_depth,
    encode_object,
    load_object,
    raw_array,
    raw_object,
    too_large,
)
from ojs_stream.core.names import check_id, check_queue, check_specversion, check_type
from ojs_stream.core.policy import attempts_of, bad_policy, parse_policy
from ojs_stream.core.records import EMPTY_OBJECT, PRIORITY_MAX, Retention
from ojs_stream.core.retry import DEFAULT_POLICY, RetryPolicy
from ojs_stream.core.times import DURATION_MS_MAX, parse_duration, parse_timestamp
from ojs_stream.errors import RefusedError

SECOND_MS = 1_000
TIMEOUT_MS = 1_800_000
VISIBILITY_MS = 1_800_000
KEEP_FOREVER = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the settings say about jobs: bounds and defaults."""

    retention: Retention
    retry: RetryPolicy = DEFAULT_POLICY
    json_depth_max: int = JSON_DEPTH_MAX
    envelope_bytes_max: int = 1024 * 1024 + 64 * 1024
    meta_bytes_max: int = 65_536
    batch_jobs_max: int = 1_000


NewId = Callable[[str], str]
"""queue -> an id that carries the queue's home"""


class _Layer:
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


def parse_job(body: bytes, rules: Rules, new_id: NewId) -> NewJob:
    """The job of a single enqueue. ``RefusedError`` names what is wrong with it."""
    if len(body) > rules.envelope_bytes_max:
        raise too_large("PayloadTooLarge", "the job", len(body), rules.envelope_bytes_max)
    values, raws = load_object(body, rules.json_depth_max)
    return _job(values, raws, rules, new_id)


def parse_batch(body: bytes, rules: Rules, new_id: NewId) -> tuple[NewJob, ...]:
    """The jobs of ``{"jobs": [...]}``, in order; a bad one refuses all and is named by ``details.index``."""
    values, raws = load_object(body, 0)
    jobs = values.get("jobs")
    if type(jobs) is not list or not jobs:
        raise bad_field("jobs", "must be a non-empty array of jobs")
    if len(jobs) > rules.batch_jobs_max:
        raise RefusedError(
            "BATCH_SIZE_EXCEEDED",
            f"jobs has {len(jobs)} entries, at most {rules.batch_jobs_max} are accepted",
            details={"size": len(jobs), "max": rules.batch_jobs_max},
        )
    slices = raw_array(raws["jobs"])
    made = tuple(_batch_job(index, item, slices[index], rules, new_id) for index, item in enumerate(jobs))
    _refuse_twins(made)
    return made


def _batch_job(index: int, values: Any, raw: Raw, rules: Rules, new_id: NewId) -> NewJob:
    try:
        if type(values) is not dict:
            raise bad_payload(f"jobs[{index}] must be a JSON object")
        size = memoryview(raw).nbytes
        if size > rules.envelope_bytes_max:
            raise too_large("PayloadTooLarge", f"jobs[{index}]", size, rules.envelope_bytes_max)
        check_depth(bytes(raw), rules.json_depth_max)
        return _job(values, raw_object(raw), rules, new_id)
    except RefusedError as error:
        error.details.setdefault("index", index)
        raise


def _refuse_twins(jobs: tuple[NewJob, ...]) -> None:
    seen: set[str] = set()
    for index, job in enumerate(jobs):
        if not job.client_id:
            continue
        if job.id in seen:
            raise RefusedError(
                "duplicate",
                f"the id {job.id} stands twice in this batch",
                details={"existing_job_id": job.id, "index": index},
            )
        seen.add(job.id)


def _job(values: Values, raws: Raws, rules: Rules, new_id: NewId) -> NewJob:
    draft: Values = {"queue": "default", "priority": 0, "visibility_timeout_ms": VISIBILITY_MS}
    extra: Raws = {}
    _required(values, raws, draft)
    _collect(_Layer(values, raws, draft, extra))
    if values.get("options") is not None:
        _collect(_options(values["options"], raws["options"], draft, extra))
    _policy_of(draft, extra, rules.retry)
    _times_of(draft, rules.retention)
    draft["meta"] = _meta_of(draft, rules.meta_bytes_max)
    if "id" not in draft:
        draft["id"] = new_id(draft["queue"])
    if extra:
        draft["extra"] = encode_object(extra)
    return NewJob(**draft)


def _required(values: Values, raws: Raws, draft: Values) -> None:
    if "type" not in values:
        raise bad_field("type", "is required")
    draft["type"] = check_type(values["type"])
    if "args" not in values:
        raise bad_field("args", "is required")
    if type(values["args"]) is not list:
        raise bad_payload("args must be a JSON array")
    draft["args"] = raws["args"]


def _options(options: Any, raw: Raw, draft: Values, extra: Raws) -> _Layer:
    if type(options) is not dict:
        raise bad_field("options", "must be an object")
    return _Layer(options, raw_object(raw), draft, extra, options=True)


def _collect(layer: _Layer) -> None:
    for name, value in layer.values.items():
        check = _CHECKS.get(name, _keep)
        if check is _keep:
            layer.extra[name] = layer.raws[name]
        elif check is not None and value is not None:
            check(layer, value)
            if name in _ECHOED:
                layer.extra[name] = layer.raws[name]


def _policy_of(draft: Values, extra: Raws, default: RetryPolicy) -> None:
    """``max_attempts`` beside the policy is the default of the one inside it."""
    attempts: int | None = draft.pop("attempts", None)
    raw: Raw | None = draft.pop("policy", None)
    if attempts is not None:
        default = msgspec.structs.replace(default, max_attempts=attempts)
    if raw is None:
        draft["retry"] = default
    else:
        draft["retry"], extra["retry"] = parse_policy(raw, default)


def _times_of(draft: Values, retention: Retention) -> None:
    timeout_ms = draft.get("timeout_ms")
    total_ms = draft.get("total_timeout_ms")
    if total_ms and timeout_ms and total_ms < timeout_ms:
        raise bad_field("total_timeout", "must not be shorter than timeout")
    draft["timeout_ms"] = timeout_ms or min(TIMEOUT_MS, total_ms or TIMEOUT_MS)
    draft["retention"] = _retention(retention, draft.pop("result_ttl_ms", None))


def _meta_of(draft: Values, bytes_max: int) -> Raw:
    meta: Raw = draft.get("meta", EMPTY_OBJECT)
    more: Raw | None = draft.pop("metadata", None)
    if more is not None:
        meta = encode_object({**raw_object(meta), **raw_object(more)})
    size = memoryview(meta).nbytes
    if size > bytes_max:
        raise too_large("MetadataTooLarge", "meta", size, bytes_max)
    return meta


def _retention(default: Retention, result_ttl_ms: int | None) -> Retention:
    """``result_ttl`` only ever prolongs: a shorter one would take the job's history away with its result."""
    if result_ttl_ms is None or default.completed_ms < 0:
        return default
    keep = result_ttl_ms if result_ttl_ms < 0 else max(default.completed_ms, result_ttl_ms)
    return msgspec.structs.replace(default, completed_ms=keep)


# ------------------------------------------------------------------ one function a field


def _specversion(_layer: _Layer, value: Any) -> None:
    check_specversion(value)


def _queue(layer: _Layer, value: Any) -> None:
    layer.draft["queue"] = check_queue(value)


def _priority(layer: _Layer, value: Any) -> None:
    if type(value) is not int or not -PRIORITY_MAX <= value <= PRIORITY_MAX:
        raise bad_field("priority", f"must be an integer from -{PRIORITY_MAX} to {PRIORITY_MAX}")
    layer.draft["priority"] = value


def _meta_field(layer: _Layer, value: Any) -> None:
    if type(value) is not dict:
        raise bad_payload("meta must be a JSON object")
    if not layer.options:
        layer.draft["meta"] = layer.raws["meta"]
        return
    _merge_metadata(layer, "meta")


def _metadata(layer: _Layer, value: Any) -> None:
    if not layer.options:
        layer.extra["metadata"] = layer.raws["metadata"]
        return
    if type(value) is not dict:
        raise bad_payload("options.metadata must be a JSON object")
    _merge_metadata(layer, "metadata")


def _merge_metadata(layer: _Layer, name: str) -> None:
    before = layer.draft.get("metadata")
    more = layer.raws[name]
    layer.draft["metadata"] = more if before is None else encode_object({**raw_object(before), **raw_object(more)})


def _whole(value: Any, name: str, *, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        kind = "a positive integer" if low == 1 else f"an integer of at least {low}"
        raise bad_field(name, f"must be {kind}, at most {high}")
    return value


def _ms(name: str, target: str) -> Callable[[_Layer, Any], None]:
    def check(layer: _Layer, value: Any) -> None:
        layer.draft[target] = _whole(value, name, low=1, high=DURATION_MS_MAX)

    return check


def _seconds(name: str, target: str, *, low: int = 1, unless: str = "") -> Callable[[_Layer, Any], None]:
    def check(layer: _Layer, value: Any) -> None:
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
        return None, max(parse_timestamp(value), 1)
    except (ValueError, OverflowError) as error:
        raise bad_field(name, str(error)) from None


def _schedule(name: str, *preferred: str) -> Callable[[_Layer, Any], None]:
    def check(layer: _Layer, value: Any) -> None:
        length, instant = _instant(value, name)
        if any(layer.overridden(better) for better in preferred):
            return
        draft = layer.draft
        draft.update(delay_ms=length or 0, scheduled=instant, scheduled_at=value if length is None else None)

    return check


def _delay(layer: _Layer, value: Any) -> None:
    length = _length_ms(value, "delay")
    if not (layer.overridden("scheduled_at") or layer.overridden("delay_until")):
        layer.draft.update(delay_ms=length, scheduled=0, scheduled_at=None)


def _expires_at(layer: _Layer, value: Any) -> None:
    length, instant = _instant(value, "expires_at")
    layer.draft.update(
        expires_in_ms=0 if length is None else max(length, 1),
        expires=instant,
        expires_at=value if length is None else None,
    )


def _ttl(name: str, *preferred: str) -> Callable[[_Layer, Any], None]:
    def check(layer: _Layer, value: Any) -> None:
        if type(value) is str:
            length = max(_length_ms(value, name), 1)
        else:
            length = _whole(value, name, low=1, high=DURATION_MS_MAX // SECOND_MS) * SECOND_MS
        if not any(layer.overridden(better) for better in preferred):
            layer.draft.update(expires_in_ms=length, expires=0, expires_at=None)

    return check


def _checked_only(name: str, *, low: int) -> Callable[[_Layer, Any], None]:
    def check(_layer: _Layer, value: Any) -> None:
        _whole(value, name, low=low, high=DURATION_MS_MAX // SECOND_MS)

    return check


def _policy(name: str, *preferred: str) -> Callable[[_Layer, Any], None]:
    def check(layer: _Layer, value: Any) -> None:
        if any(layer.overridden(better) for better in preferred):
            return
        if type(value) is not dict:
            raise bad_policy(name, "must be an object", prefix="")
        layer.draft["policy"] = layer.raws[name]

    return check


def _attempts(layer: _Layer, value: Any) -> None:
    layer.draft["attempts"] = attempts_of(value, prefix="")


def _pending(layer: _Layer, value: Any) -> None:
    if type(value) is not bool:
        raise bad_field("pending", "must be true or false")
    layer.draft["pending"] = value


def _tags(_layer: _Layer, value: Any) -> None:
    if type(value) is not list or any(type(item) is not str for item in value):
        raise bad_field("tags", "must be an array of strings")


def _object(name: str) -> Callable[[_Layer, Any], None]:
    def check(_layer: _Layer, value: Any) -> None:
        if type(value) is not dict:
            raise bad_field(name, "must be an object")

    return check


def _schema(_layer: _Layer, value: Any) -> None:
    if type(value) is not str or not value:
        raise bad_field("schema", "must be a URI")


def _version(_layer: _Layer, value: Any) -> None:
    if type(value) in (list, dict):
        raise bad_field("version", "must be a string or a number")


def _id(layer: _Layer, value: Any) -> None:
    if not layer.options:
        layer.draft.update(id=check_id(value), client_id=True)


Check = Callable[[_Layer, Any], None]


def _keep(_layer: _Layer, _value: Any) -> None:
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
_ECHOED = frozenset(
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
_CHECKS: dict[str, Check | None] = {
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
    "unique": _object("unique"),
    "rate_limit": _object("rate_limit"),
    "tags": _tags,
    "schema": _schema,
    "pending": _pending,
    "version": _version,
}
