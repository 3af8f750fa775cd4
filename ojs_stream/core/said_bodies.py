"""Bodies of what a worker says of a job while it runs: progress and checkpoints. Pure parsers."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Raw, Struct, UnsetType

from ojs_stream.core.envelope import Raws, Values, bad_field, load_object, too_large
from ojs_stream.core.names import check_worker

CHECKPOINT_BYTES_MAX = 1024 * 1024
"""State and metadata together (ojs-durable-execution 7)."""
PROGRESS_BYTES_MAX = 64 * 1024
"""``data`` of a report; the specification recommends 4 KiB."""
MESSAGE_CHARS_MAX = 1_000
STEP_MAX = 2**53
PERCENT = 100


class ReportBody(Struct, frozen=True, kw_only=True):
    """A checked report; ``fraction`` is from 0 to 1, ``checkpoint`` a state to keep with it."""

    job_id: str
    worker_id: str
    fraction: float | None
    message: str | None
    data: Raw | UnsetType
    checkpoint: Raw | UnsetType


class CheckpointBody(Struct, frozen=True, kw_only=True):
    """A checked checkpoint."""

    state: Raw
    worker_id: str
    step_index: int | None
    metadata: Raw | UnsetType


def parse_report(body: bytes, *, job_id: str = "") -> ReportBody:
    """``{progress: 0-1}`` or ``{percentage: 0-100}``, with ``message?``, ``data?``, ``checkpoint?``.

    A number out of its range is clamped: a report must not fail a job (ojs-progress 5.1).
    """
    values, raws = load_object(body)
    if not any(values.get(name) is not None for name in ("progress", "percentage", "data", "message")):
        raise bad_field("progress", "or percentage, data or message must be given")
    return ReportBody(
        job_id=job_id or _job_id(values),
        worker_id=_worker(values),
        fraction=_fraction(values),
        message=_message(values),
        data=_object(values, raws, "data", PROGRESS_BYTES_MAX),
        checkpoint=_bounded(raws, "checkpoint") if "checkpoint" in raws else UNSET,
    )


def parse_checkpoint(body: bytes) -> CheckpointBody:
    """``{state: any JSON, step_index?, metadata?, worker_id?}``."""
    values, raws = load_object(body)
    if "state" not in raws:
        raise bad_field("state", "is required: any JSON value")
    metadata = _object(values, raws, "metadata", CHECKPOINT_BYTES_MAX)
    state = _bounded(raws, "state", beside=0 if metadata is UNSET else memoryview(metadata).nbytes)
    return CheckpointBody(state=state, worker_id=_worker(values), step_index=_step(values), metadata=metadata)


def _job_id(values: Values) -> str:
    given = values.get("job_id", values.get("id"))
    if type(given) is not str or not given:
        raise bad_field("job_id", "is required")
    return given


def _worker(values: Values) -> str:
    given = values.get("worker_id")
    return "" if given is None or given == "" else check_worker(given)


def _fraction(values: Values) -> float | None:
    for name, whole in (("progress", 1), ("percentage", PERCENT)):
        value = values.get(name)
        if value is not None:
            return min(1.0, max(0.0, _number(value, name) / whole))
    return None


def _number(value: Any, name: str) -> float:
    if type(value) not in (int, float):
        raise bad_field(name, "must be a number")
    return float(value)


def _message(values: Values) -> str | None:
    given = values.get("message")
    if given is not None and type(given) is not str:
        raise bad_field("message", "must be a string")
    return None if given is None else given[:MESSAGE_CHARS_MAX]


def _object(values: Values, raws: Raws, name: str, bytes_max: int) -> Raw | UnsetType:
    value = values.get(name)
    if value is None:
        return UNSET
    if type(value) is not dict:
        raise bad_field(name, "must be an object")
    size = memoryview(raws[name]).nbytes
    if size > bytes_max:
        raise too_large("PayloadTooLarge", name, size, bytes_max)
    return raws[name]


def _bounded(raws: Raws, name: str, *, beside: int = 0) -> Raw:
    size = memoryview(raws[name]).nbytes + beside
    if size > CHECKPOINT_BYTES_MAX:
        raise too_large("PayloadTooLarge", f"the checkpoint's {name}", size, CHECKPOINT_BYTES_MAX)
    return raws[name]


def _step(values: Values) -> int | None:
    value = values.get("step_index")
    if value is not None and (type(value) is not int or not 0 <= value <= STEP_MAX):
        raise bad_field("step_index", f"must be an integer from 0 to {STEP_MAX}")
    return value
