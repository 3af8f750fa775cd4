"""Bodies of worker and operator requests: claim, ack, nack, heartbeat, dead-letter retry. Pure parsers.

A wrong type is a 400 ``invalid_request`` that names the field; what is not JSON is ``invalid_payload``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from ojs_stream.core.envelope import (
    JSON_DEPTH_MAX,
    bad_field,
    bad_payload,
    check_object,
    load_object,
    raw_object,
    too_large,
)
from ojs_stream.core.limits import parse_until
from ojs_stream.core.names import check_queue, check_worker
from ojs_stream.core.policy import parse_policy
from ojs_stream.core.records import PRIORITY_MAX
from ojs_stream.core.retry import RetryPolicy
from ojs_stream.core.times import DURATION_MS_MAX
from ojs_stream.errors import RefusedError

QUEUES_MAX = 256
"""So many queues one fetch may name."""
EXTEND_JOBS_MAX = 10_000
"""So many job ids one heartbeat may name."""
FAILURE_BYTES_MAX = 262_144
"""Bound on the ``error`` of a nack: a job remembers its last failures."""

LABELS_BYTES_MAX = 65_536
_WORD = re.compile(r"[a-z][a-z_]{0,31}")

Body = TypeVar("Body", bound=Struct)
Whole = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
Short = Annotated[str, msgspec.Meta(max_length=255)]


class _ClaimBody(Struct):
    queues: list[str] | UnsetType = UNSET
    count: Whole | None = None
    worker_id: str | None = None
    visibility_timeout_ms: Whole | None = None
    visibility_timeout: Whole | None = None
    wait_ms: Whole | None = None


class _BeatBody(Struct):
    worker_id: str | None = None
    active_jobs: list[str] | Whole | None = None
    active_job_ids: list[str] | None = None
    job_id: str | None = None
    id: str | None = None
    visibility_timeout_ms: Whole | None = None
    visibility_timeout: Whole | None = None
    state: Short | None = None
    hostname: Short | None = None
    pid: Whole | None = None
    concurrency: Whole | None = None
    queues: list[str] | None = None
    labels: Raw | UnsetType = UNSET
    version: Short | None = None


class _NackBody(Struct):
    job_id: str | None = None
    id: str | None = None
    worker_id: str | None = None
    requeue: bool | None = None
    error: Raw | UnsetType = UNSET


class _AckBody(Struct):
    job_id: str | None = None
    id: str | None = None
    worker_id: str | None = None
    result: Raw | UnsetType = UNSET


class _FailureBody(Struct):
    code: Short | None = None
    type: Short | None = None
    message: str | None = None
    retryable: bool | None = None
    details: Raw | UnsetType = UNSET
    backtrace: Raw | UnsetType = UNSET
    rate_limit_until: str | None = None


class ClaimRequest(Struct, frozen=True, kw_only=True):
    """A checked fetch. ``count`` and ``wait_ms`` are within their bounds; 0 = not given."""

    queues: tuple[str, ...]
    count: int
    worker_id: str
    visibility_ms: int
    wait_ms: int


class AckRequest(Struct, frozen=True, kw_only=True):
    """A checked ack; ``result`` is raw JSON."""

    job_id: str
    worker_id: str
    result: Raw | UnsetType


class Failure(Struct, frozen=True, kw_only=True):
    """What went wrong, as a nack tells it; ``error_class`` is found in ``details``."""

    code: str = "handler_error"
    type: str = "handler_error"
    message: str = ""
    retryable: bool | None = None
    details: Raw | UnsetType = UNSET
    backtrace: Raw | UnsetType = UNSET
    error_class: str = ""
    limit_until: int = 0
    """``rate_limit_until`` in ms since the epoch; 0: not given."""


class NackRequest(Struct, frozen=True, kw_only=True):
    """A checked nack."""

    job_id: str
    worker_id: str
    requeue: bool
    failure: Failure


class BeatRequest(Struct, frozen=True, kw_only=True):
    """A checked heartbeat or registration. ``active`` is the number the worker says, or that of its ids."""

    worker_id: str
    job_ids: tuple[str, ...]
    active: int
    visibility_ms: int
    state: str
    hostname: str | None
    pid: int | None
    concurrency: int | None
    queues: tuple[str, ...]
    labels: Raw | UnsetType
    version: str | None


class ReviveRequest(Struct, frozen=True, kw_only=True):
    """A checked dead-letter retry: what to change in the job."""

    queue: str = ""
    args: Raw | UnsetType = UNSET
    meta: Raw | UnsetType = UNSET
    priority: int | None = None
    retry: RetryPolicy | None = None


_claim = msgspec.json.Decoder(_ClaimBody)
_beat = msgspec.json.Decoder(_BeatBody)
_nack = msgspec.json.Decoder(_NackBody)
_ack = msgspec.json.Decoder(_AckBody)
_failure = msgspec.json.Decoder(_FailureBody)


def parse_claim(body: bytes, *, jobs_max: int, wait_ms_max: int) -> ClaimRequest:
    """``{queues[>=1], count?, worker_id?, visibility_timeout_ms?, wait_ms?}``; too high is clamped."""
    given = _decode(_claim, body)
    if given.queues is UNSET or not given.queues:
        raise bad_field("queues", "must be a non-empty array of queue names")
    if len(given.queues) > QUEUES_MAX:
        raise bad_field("queues", f"must have at most {QUEUES_MAX} names")
    count = 1 if given.count is None else given.count
    wait_ms = given.wait_ms or 0
    if count < 1:
        raise bad_field("count", "must be a positive integer")
    if wait_ms < 0:
        raise bad_field("wait_ms", "must be a non-negative integer of milliseconds")
    return ClaimRequest(
        queues=tuple(dict.fromkeys(check_queue(name, "queues") for name in given.queues)),
        count=min(count, jobs_max),
        worker_id=_worker(given.worker_id),
        visibility_ms=_visibility(given.visibility_timeout_ms, given.visibility_timeout),
        wait_ms=min(wait_ms, wait_ms_max),
    )


def parse_ack(body: bytes, *, result_bytes_max: int, job_id: str = "") -> AckRequest:
    """``{job_id (or id), worker_id?, result?}``; with ``job_id`` from the path the body may be empty."""
    given = _decode(_ack, body, optional=bool(job_id))
    result = given.result
    if result is not UNSET:
        size = memoryview(result).nbytes
        if size > result_bytes_max:
            raise too_large("RESULT_TOO_LARGE", "result", size, result_bytes_max)
    return AckRequest(
        job_id=job_id or _job_id(given.job_id, given.id), worker_id=_worker(given.worker_id), result=result
    )


def parse_nack(body: bytes, *, job_id: str = "") -> NackRequest:
    """``{job_id, worker_id?, error: {code, type?, message, ...} or text, requeue?}``."""
    given = _decode(_nack, body, optional=bool(job_id))
    return NackRequest(
        job_id=job_id or _job_id(given.job_id, given.id),
        worker_id=_worker(given.worker_id),
        requeue=bool(given.requeue),
        failure=_failure_of(given.error),
    )


def parse_beat(body: bytes, *, worker_id: str = "") -> BeatRequest:
    """A heartbeat: ``active_jobs`` is a list of ids, or a number beside ``active_job_ids``."""
    given = _decode(_beat, body, optional=bool(worker_id))
    name = given.worker_id or worker_id
    listed = isinstance(given.active_jobs, list)
    ids = _active_ids(given, registering=not given.worker_id and bool(given.id))
    active = len(ids) if listed or given.active_jobs is None else given.active_jobs
    if not isinstance(active, int) or active < 0:
        raise bad_field("active_jobs", "must be an array of job ids or a non-negative integer")
    _bounded(given)
    return BeatRequest(
        worker_id=check_worker(name or given.id),
        job_ids=ids,
        active=active,
        visibility_ms=_visibility(given.visibility_timeout_ms, given.visibility_timeout),
        state=given.state or "",
        hostname=given.hostname,
        pid=given.pid,
        concurrency=given.concurrency,
        queues=tuple(given.queues or ()),
        labels=given.labels,
        version=given.version,
    )


def parse_revive(body: bytes) -> ReviveRequest:
    """``{}`` or ``{"override": {queue, args, meta, priority, retry}}``."""
    if not body or body.isspace():
        return ReviveRequest()
    values, raws = load_object(body)
    override = values.get("override")
    if override is None:
        return ReviveRequest()
    if type(override) is not dict:
        raise bad_field("override", "must be an object")
    slices = raw_object(raws["override"])
    return ReviveRequest(
        queue=check_queue(override["queue"], "override.queue") if override.get("queue") is not None else "",
        args=_shaped(override, slices, "args", list),
        meta=_shaped(override, slices, "meta", dict),
        priority=_priority(override.get("priority"), "override.priority"),
        retry=parse_policy(slices["retry"])[0] if override.get("retry") is not None else None,
    )


def parse_reason(body: bytes) -> str:
    """The optional ``reason`` of a cancel."""
    if not body or body.isspace():
        return ""
    reason = load_object(body)[0].get("reason")
    if reason is not None and type(reason) is not str:
        raise bad_field("reason", "must be a string")
    return reason or ""


def parse_priority(body: bytes) -> int:
    """``{"priority": 5}``: all of a job that may be changed after it was enqueued."""
    values, _ = load_object(body)
    for name in values:
        if name != "priority":
            raise bad_field(name, "cannot be changed, only priority can")
    priority = _priority(values.get("priority"), "priority")
    if priority is None:
        raise bad_field("priority", "is required")
    return priority


_DIRECTIVES = {"quiet": "quiet", "resume": "running", "running": "running", "terminate": "terminate"}
DIRECTED_MAX = 1_000


def parse_directive(body: bytes) -> tuple[str, tuple[str, ...]]:
    """``{directive: quiet|resume|terminate, worker_ids?}`` -> what workers are asked to be, and which."""
    values, _ = load_object(body)
    given, ids = values.get("directive"), values.get("worker_ids")
    directive = _DIRECTIVES.get(given) if type(given) is str else None
    if directive is None:
        raise bad_field("directive", f"must be one of {', '.join(_DIRECTIVES)}")
    if ids is not None and (type(ids) is not list or not 0 < len(ids) <= DIRECTED_MAX):
        raise bad_field("worker_ids", f"must be an array of 1 to {DIRECTED_MAX} worker ids")
    return directive, tuple(check_worker(one, "worker_ids") for one in ids or ())


def parse_object_or_nothing(body: bytes) -> dict[str, Any]:
    """An action without arguments: an empty body or any JSON object."""
    return load_object(body)[0] if body and not body.isspace() else {}


def _decode(decoder: msgspec.json.Decoder[Body], body: bytes, *, optional: bool = False) -> Body:
    if optional and (not body or body.isspace()):
        body = b"{}"
    check_object(body, JSON_DEPTH_MAX)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _translated(error) from None
    except msgspec.DecodeError as error:
        raise bad_payload(f"the body is not valid JSON: {error}") from None


def _translated(error: msgspec.ValidationError) -> RefusedError:
    """``Expected `int`, got `str` - at `$.count``` becomes ``count: expected int, got str``."""
    text, _, path = str(error).replace("`", "").partition(" - at $")
    name = path.lstrip(".")
    return bad_field(name or "body", f"is wrong: {text[:1].lower()}{text[1:]}")


def _worker(name: str | None) -> str:
    return check_worker(name) if name else ""


def _job_id(*names: str | None) -> str:
    for name in names:
        if name:
            return name
    raise bad_field("job_id", "is required")


def _visibility(ms: int | None, seconds: int | None) -> int:
    given = ms if ms is not None else None if seconds is None else seconds * 1_000
    if given is None:
        return 0
    if not 0 < given <= DURATION_MS_MAX:
        name = "visibility_timeout" if ms is None else "visibility_timeout_ms"
        raise bad_field(name, "must be a positive integer of at most 100 years")
    return given


def _failure_of(raw: Raw | UnsetType) -> Failure:
    if raw is UNSET or bytes(raw) == b"null":
        return Failure()
    size = memoryview(raw).nbytes
    if size > FAILURE_BYTES_MAX:
        raise too_large("PayloadTooLarge", "error", size, FAILURE_BYTES_MAX)
    data = bytes(raw)
    try:
        if data[:1] == b'"':
            return Failure(message=msgspec.json.decode(data, type=str))
        given = _failure.decode(data)
    except msgspec.ValidationError as error:
        refused = _translated(error)
        raise bad_field(f"error.{refused.details['field']}", refused.message.partition(" ")[2]) from None
    return _failure_from(given)


def _failure_from(given: _FailureBody) -> Failure:
    error_class = _error_class(given.details)
    code = given.code or "handler_error"
    return Failure(
        code=code,
        type=given.type or error_class or code,
        message=given.message or "",
        retryable=given.retryable,
        details=given.details,
        backtrace=given.backtrace,
        error_class=error_class,
        limit_until=parse_until(given.rate_limit_until, "error.rate_limit_until"),
    )


def _error_class(details: Raw | UnsetType) -> str:
    if details is UNSET or bytes(details) == b"null":
        return ""
    if not bytes(details).startswith(b"{"):
        raise bad_field("error.details", "must be an object")
    name = raw_object(details).get("error_class")
    if name is None or not bytes(name).startswith(b'"'):
        return ""
    return msgspec.json.decode(name, type=str)


def _bounded(given: _BeatBody) -> None:
    if given.state and not _WORD.fullmatch(given.state):
        raise bad_field("state", "must be a word such as running, quiet, terminate or drain")
    if given.queues is not None and len(given.queues) > QUEUES_MAX:
        raise bad_field("queues", f"must have at most {QUEUES_MAX} names")
    if given.labels is not UNSET:
        size = memoryview(given.labels).nbytes
        if size > LABELS_BYTES_MAX:
            raise too_large("MetadataTooLarge", "labels", size, LABELS_BYTES_MAX)


def _active_ids(given: _BeatBody, *, registering: bool) -> tuple[str, ...]:
    ids: list[str] = list(given.active_jobs) if isinstance(given.active_jobs, list) else []
    ids.extend(given.active_job_ids or ())
    ids.extend(one for one in (given.job_id, None if registering else given.id) if one)
    if len(ids) > EXTEND_JOBS_MAX:
        raise bad_field("active_jobs", f"must have at most {EXTEND_JOBS_MAX} ids")
    return tuple(dict.fromkeys(ids))


def _shaped(values: dict[str, Any], raws: dict[str, Raw], name: str, shape: type) -> Raw | UnsetType:
    value = values.get(name)
    if value is None:
        return UNSET
    if type(value) is not shape:
        raise bad_payload(f"override.{name} must be a JSON {'array' if shape is list else 'object'}")
    return raws[name]


def _priority(value: Any, name: str) -> int | None:
    if value is not None and (type(value) is not int or not -PRIORITY_MAX <= value <= PRIORITY_MAX):
        raise bad_field(name, f"must be an integer from -{PRIORITY_MAX} to {PRIORITY_MAX}")
    return value
