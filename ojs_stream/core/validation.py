"""Bytes of an enqueue request to ``NewJob``: every rule of OJS.md 1.2, each with its own code.

Settings may stand at the top level or under ``options`` (which wins). Only fields that are present cost
anything: ``fields.py`` maps a field's name to the function that checks it. ``null`` means absent for an
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
from ojs_stream.core.fields import CHECKS, ECHOED, Layer, keep
from ojs_stream.core.limits import parse_rule
from ojs_stream.core.names import check_type
from ojs_stream.core.policy import fields_in, parse_policy
from ojs_stream.core.records import EMPTY_OBJECT, Retention
from ojs_stream.core.retry import DEFAULT_POLICY, RetryPolicy
from ojs_stream.core.unique import unique_rule
from ojs_stream.errors import RefusedError

TIMEOUT_MS = 1_800_000
VISIBILITY_MS = 1_800_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the settings say about jobs: bounds and defaults."""

    retention: Retention
    homes: int = 1
    retry: RetryPolicy = DEFAULT_POLICY
    json_depth_max: int = JSON_DEPTH_MAX
    envelope_bytes_max: int = 1024 * 1024 + 64 * 1024
    meta_bytes_max: int = 65_536
    batch_jobs_max: int = 1_000


NewId = Callable[[str], str]
"""queue -> an id that carries the queue's home"""


def parse_job(body: bytes, rules: Rules, new_id: NewId) -> NewJob:
    """The job of a single enqueue. ``RefusedError`` names what is wrong with it."""
    if len(body) > rules.envelope_bytes_max:
        raise too_large("PayloadTooLarge", "the job", len(body), rules.envelope_bytes_max)
    values, raws = load_object(body, rules.json_depth_max)
    return _job(values, raws, rules, new_id)


def parse_batch(body: bytes, rules: Rules, new_id: NewId) -> tuple[NewJob, ...]:
    """The jobs of ``{"jobs": [...]}``, in order; a bad one refuses all and is named by ``details.index``."""
    values, raws = load_object(body, 0)
    slices = _slices(values, raws, rules)
    made = tuple(
        _batch_job(index, item, slices[index], rules, new_id) for index, item in enumerate(values["jobs"])
    )
    _refuse_twins(made)
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkJobs:
    """A bulk enqueue: each job for itself, or (``atomic``) all or none. ``rejected`` is by place."""

    atomic: bool
    key: str
    """The ``idempotency_key`` of the body."""
    jobs: dict[int, NewJob]
    rejected: dict[int, RefusedError]


def parse_bulk(body: bytes, rules: Rules, new_id: NewId) -> BulkJobs:
    """``{"jobs": [...], "atomicity"?: partial or atomic, "idempotency_key"?}``; a bad job is rejected alone."""
    values, raws = load_object(body, 0)
    atomicity = values.get("atomicity") or "partial"
    if atomicity not in ("partial", "atomic"):
        raise bad_field("atomicity", "must be partial or atomic")
    key = values.get("idempotency_key")
    if key is not None and type(key) is not str:
        raise bad_field("idempotency_key", "must be a string")
    slices = _slices(values, raws, rules)
    jobs: dict[int, NewJob] = {}
    rejected: dict[int, RefusedError] = {}
    seen: set[str] = set()
    for index, item in enumerate(values["jobs"]):
        try:
            job = _batch_job(index, item, slices[index], rules, new_id)
            _refuse_twin(index, job, seen)
        except RefusedError as error:
            rejected[index] = error
        else:
            jobs[index] = job
    return BulkJobs(atomic=atomicity == "atomic", key=key or "", jobs=jobs, rejected=rejected)


def _slices(values: Values, raws: Raws, rules: Rules) -> list[Raw]:
    """The raw forms of ``jobs``, which is a non-empty array within its bound."""
    jobs = values.get("jobs")
    if type(jobs) is not list or not jobs:
        raise bad_field("jobs", "must be a non-empty array of jobs")
    check_batch_size("jobs", len(jobs), rules.batch_jobs_max)
    return raw_array(raws["jobs"])


def check_batch_size(name: str, size: int, size_max: int) -> None:
    """413 for more entries than one request may have."""
    if size > size_max:
        raise RefusedError(
            "BATCH_SIZE_EXCEEDED",
            f"{name} has {size} entries, at most {size_max} are accepted",
            details={"size": size, "max": size_max, "max_batch_size": size_max},
        )


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


Defaults = tuple[Values, Raws]
"""Options that hold for a job unless it says otherwise, as values and as raw slices."""


def parse_member(values: Values, raws: Raws, rules: Rules, new_id: NewId, defaults: Defaults | None) -> NewJob:
    """A job inside of something larger, a workflow; its own fields win over the ``defaults``."""
    size = sum(memoryview(part).nbytes for part in raws.values())
    if size > rules.envelope_bytes_max:
        raise too_large("PayloadTooLarge", "the job", size, rules.envelope_bytes_max)
    return _job(values, raws, rules, new_id, defaults)


def _refuse_twins(jobs: tuple[NewJob, ...]) -> None:
    seen: set[str] = set()
    for index, job in enumerate(jobs):
        _refuse_twin(index, job, seen)


def _refuse_twin(index: int, job: NewJob, seen: set[str]) -> None:
    if not job.client_id:
        return
    if job.id in seen:
        raise RefusedError(
            "duplicate",
            f"the id {job.id} stands twice in this batch",
            details={"existing_job_id": job.id, "index": index},
        )
    seen.add(job.id)


def _job(values: Values, raws: Raws, rules: Rules, new_id: NewId, defaults: Defaults | None = None) -> NewJob:
    draft: Values = {"queue": "default", "priority": 0}
    extra: Raws = {}
    _required(values, raws, draft)
    if defaults is not None:
        _collect(Layer(*defaults, draft, extra, options=True))
    _collect(Layer(values, raws, draft, extra))
    if values.get("options") is not None:
        _collect(_options(values["options"], raws["options"], draft, extra))
    given = _given_of(draft)
    if given:
        draft["given"] = given
    _policy_of(draft, extra, rules.retry)
    _times_of(draft, rules.retention)
    draft["meta"] = _meta_of(draft, rules.meta_bytes_max)
    if "limit" in draft:
        draft["limit"] = parse_rule(draft["limit"], queue=draft["queue"], homes=rules.homes)
    if "id" not in draft:
        draft["id"] = new_id(draft["queue"])
    if "unique" in draft:
        draft["unique"] = unique_rule(draft["unique"], draft, rules.homes)
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


def _options(options: Any, raw: Raw, draft: Values, extra: Raws) -> Layer:
    if type(options) is not dict:
        raise bad_field("options", "must be an object")
    return Layer(options, raw_object(raw), draft, extra, options=True)


def _collect(layer: Layer) -> None:
    for name, value in layer.values.items():
        check = CHECKS.get(name, keep)
        if check is keep:
            layer.extra[name] = layer.raws[name]
        elif check is not None and value is not None:
            check(layer, value)
            if name in ECHOED:
                layer.extra[name] = layer.raws[name]


def _given_of(draft: Values) -> tuple[str, ...]:
    """Which fields that a queue's configuration may fill in the client has set itself."""
    given: list[str] = [name for name in ("timeout_ms", "visibility_timeout_ms") if name in draft]
    if "result_ttl_ms" in draft:
        given.append("retention.completed_ms")
    policy = draft.get("policy")
    fields: set[str] = set(fields_in(bytes(policy))) if policy is not None else set()
    if "attempts" in draft:
        fields.add("max_attempts")
    given.extend(f"retry.{name}" for name in sorted(fields))
    return tuple(given)


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
    draft.setdefault("visibility_timeout_ms", VISIBILITY_MS)
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
