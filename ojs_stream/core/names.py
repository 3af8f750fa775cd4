"""Rules for names a client chooses: job types, queues, ids, workers (OJS.md 1.2)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from ojs_stream.core.envelope import bad_field
from ojs_stream.errors import RefusedError

TYPE_BYTES_MAX = 255
QUEUE_BYTES_MAX = 128
WORKER_BYTES_MAX = 255
DEFAULT_CONFIG = "_default"
"""The template that every queue's configuration is laid over; no queue can have this name."""
MAINTENANCE = "_maintenance"
"""Who decides on maintenance is the home of this name."""
_TYPE = re.compile(r"[a-z][a-z0-9_\-]*(?:\.[a-z][a-z0-9_\-]*)*(?:@[A-Za-z0-9][A-Za-z0-9_.+\-]*)?")
_QUEUE = re.compile(r"[a-z0-9][a-z0-9.\-]*")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_SPECVERSION = re.compile(r"1(?:\.(?:x|\d{1,4}))?(?:\.\d{1,4})?(?:-[0-9A-Za-z.\-]{1,32})?")


def is_job_id(text: str) -> bool:
    """Whether ``text`` is a lower-case UUIDv7, the only form a job id has."""
    return _ID.fullmatch(text) is not None


def check_id(value: Any, name: str = "id") -> str:
    """A client-supplied job id."""
    if type(value) is not str or not is_job_id(value):
        raise bad_field(name, "must be a UUIDv7 in lower case")
    return value


def check_type(value: Any) -> str:
    """A job type, such as ``email.send`` or ``email.send@2``."""
    if type(value) is not str:
        raise bad_field("type", "must be a string")
    return _checked_type(value)


@lru_cache(maxsize=4096)
def _checked_type(text: str) -> str:
    if len(text.encode()) > TYPE_BYTES_MAX:
        raise RefusedError("JobTypeTooLong", f"type must be at most {TYPE_BYTES_MAX} bytes")
    if not _TYPE.fullmatch(text):
        raise bad_field("type", "must be lower-case words joined by dots, such as email.send")
    return text


def check_queue(value: Any, name: str = "queue") -> str:
    """A queue name."""
    if type(value) is not str:
        raise bad_field(name, "must be a string")
    return _checked_queue(value, name)


@lru_cache(maxsize=4096)
def _checked_queue(text: str, name: str) -> str:
    if len(text.encode()) > QUEUE_BYTES_MAX:
        raise RefusedError("QueueNameTooLong", f"{name} must be at most {QUEUE_BYTES_MAX} bytes")
    if not _QUEUE.fullmatch(text):
        raise bad_field(name, "must start with a-z or 0-9 and go on with a-z, 0-9, '.' or '-'")
    return text


def check_worker(value: Any, name: str = "worker_id") -> str:
    """A worker's name for itself: any non-empty text within its bound."""
    if type(value) is not str or not value:
        raise bad_field(name, "must be a non-empty string")
    if len(value.encode()) > WORKER_BYTES_MAX:
        raise bad_field(name, f"must be at most {WORKER_BYTES_MAX} bytes")
    return value


def speaks(version: str) -> bool:
    """Whether this server speaks a version of the specification: every 1.x."""
    return version == "1.0" or _SPECVERSION.fullmatch(version) is not None


def check_specversion(value: Any) -> None:
    """Every 1.x is spoken here; anything else is ``unsupported``."""
    if type(value) is not str:
        raise bad_field("specversion", "must be a string")
    if not speaks(value):
        raise RefusedError(
            "unsupported",
            f"specversion {value[:32]!r} is not supported, this server speaks 1.0",
            details={"supported": ["1.0"]},
        )
