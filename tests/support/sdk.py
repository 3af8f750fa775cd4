"""The SDKs and the CLI as they are on the wire: their headers, their bodies' bytes, and how they read an answer.

Written from their sources (docs/clients.md names the versions). Whatever they choke on is an ``UnreadableError``.
"""

from __future__ import annotations

import http.client
import json
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

API = "/ojs/v1"
OJS = "application/openjobspec+json"
TIMEOUT_S = 30.0
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")

Shape = dict[str, Any]
"""What Go decodes into: field -> ``int``, ``str`` and so on, a word of ``_WORDS``, a shape, or ``[shape]``."""


class UnreadableError(AssertionError):
    """The client cannot read this answer."""


class RefusedByServerError(Exception):
    """The server said no, in words that the client understands."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(f"{status} {error}")
        self.status = status
        self.code = str(error["code"])
        self.error = error


class Got(NamedTuple):
    """An answer as bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Sdk:
    """What they share: one request, and an error envelope."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc

    def headers(self, data: bytes | None) -> dict[str, str]:
        raise NotImplementedError

    def read(self, got: Got) -> Any:
        raise NotImplementedError

    def encode(self, body: Any) -> bytes:
        return json.dumps(body).encode()

    def send(self, method: str, path: str, body: Any = None, *, root: bool = False) -> Got:
        """One request, byte for byte; http.client adds nothing but Host, Accept-Encoding and Content-Length."""
        data = body if isinstance(body, bytes | None) else self.encode(body)
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)
        try:
            connection.request(method, path if root else API + path, data, self.headers(data))
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Got(answer.status, headers, answer.read())
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: Any = None, *, root: bool = False) -> Any:
        """The answer as the client reads it."""
        got = self.send(method, path, body, root=root)
        if got.status >= 400:
            raise RefusedByServerError(got.status, envelope(got))
        return self.read(got)

    def refused(self, method: str, path: str, body: Any = None) -> RefusedByServerError:
        """The error that the client raises."""
        try:
            answer = self.ask(method, path, body)
        except RefusedByServerError as refusal:
            return refusal
        raise AssertionError(f"{method} {path} was not refused: {answer}")


def envelope(got: Got) -> dict[str, Any]:
    """The error of an answer; each client looks at its code."""
    try:
        error = json.loads(got.body)["error"]
    except (ValueError, KeyError, TypeError) as problem:
        raise UnreadableError(f"{got.status} without an error envelope: {got.body[:200]!r}") from problem
    if not isinstance(error.get("code"), str) or not isinstance(error.get("message"), str):
        raise UnreadableError(f"an error envelope without code and message: {error}")
    return dict(error)


class Python(Sdk):
    """``ojs`` for Python: httpx with default headers; only what says ``application/json`` is JSON to it."""

    def headers(self, data: bytes | None) -> dict[str, str]:
        return {
            "Accept": OJS,
            "Content-Type": OJS,
            "OJS-Version": "1.0",
            "X-Request-ID": str(uuid.uuid4()),
            "User-Agent": "python-httpx/0.28.1",
        }

    def encode(self, body: Any) -> bytes:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()

    def read(self, got: Got) -> Any:
        if got.status == 204:
            return {}
        if "application/json" not in got.headers.get("content-type", ""):
            return {"_raw": got.body.decode()}
        return json.loads(got.body)


class JavaScript(Sdk):
    """``@openjobspec/sdk``: fetch; whatever is not a 204 must be JSON."""

    def headers(self, data: bytes | None) -> dict[str, str]:
        return {
            "Content-Type": OJS,
            "Accept": OJS,
            "OJS-Version": "1.0",
            "X-Request-ID": str(uuid.uuid4()),
            "User-Agent": "node",
        }

    def encode(self, body: Any) -> bytes:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()

    def read(self, got: Got) -> Any:
        if got.status == 204:
            return {}
        try:
            return json.loads(got.body)
        except ValueError as problem:
            raise UnreadableError(f"OJSConnectionError: invalid JSON response {got.body[:200]!r}") from problem


class Go(Sdk):
    """The Go SDK: no Content-Type without a body, and a decoder that knows types."""

    def headers(self, data: bytes | None) -> dict[str, str]:
        sent = {"Accept": OJS, "OJS-Version": "1.0.0-rc.1", "User-Agent": "Go-http-client/1.1"}
        return {**sent, "Content-Type": OJS} if data is not None else sent

    def read(self, got: Got) -> Any:
        return json.loads(got.body)

    def decode(self, shape: Shape, method: str, path: str, body: Any = None, *, root: bool = False) -> Any:
        """As ``ask``; a value of another type than the struct's field is an error."""
        answer = self.ask(method, path, body, root=root)
        check(answer, shape)
        return answer


class Cli(Sdk):
    """``ojs``: no OJS-Version, a Content-Type even without a body; it ignores what does not fit."""

    def headers(self, data: bytes | None) -> dict[str, str]:
        return {"Content-Type": OJS, "Accept": OJS, "User-Agent": "Go-http-client/1.1"}

    def read(self, got: Got) -> Any:
        return json.loads(got.body) if got.body else None


def check(value: Any, shape: Any, path: str = "$") -> None:
    """Go's ``encoding/json``: absent and null are zero values, another type is an error."""
    if value is None:
        return
    if isinstance(shape, list):
        _must(isinstance(value, list), path, value, "array")
        for place, one in enumerate(value):
            check(one, shape[0], f"{path}[{place}]")
    elif isinstance(shape, dict):
        _must(isinstance(value, dict), path, value, "object")
        for name, inner in shape.items():
            check(value.get(name), inner, f"{path}.{name}")
    elif isinstance(shape, str):
        _must(_WORDS[shape](value), path, value, shape)
    else:
        _must(type(value) is shape or (shape is float and type(value) is int), path, value, str(shape))


def _map_of(kind: type, value: Any) -> bool:
    return isinstance(value, dict) and all(type(one) is kind for one in value.values())


_WORDS: dict[str, Callable[[Any], bool]] = {
    "time": lambda value: isinstance(value, str) and bool(_TIME.fullmatch(value)),
    "map of bool": lambda value: _map_of(bool, value),
    "map of string": lambda value: _map_of(str, value),
}


def _must(fits: bool, path: str, value: Any, kind: str) -> None:
    if not fits:
        raise UnreadableError(f"json: cannot unmarshal {value!r} at {path} into {kind}")


TIMES = ("created_at", "enqueued_at", "started_at", "completed_at", "cancelled_at", "discarded_at")
JOB: Shape = {
    **dict.fromkeys(("id", "type", "state", "queue", "previous_state"), str),
    **dict.fromkeys(("priority", "attempt", "max_attempts", "timeout_ms"), int),
    **dict.fromkeys((*TIMES, "scheduled_at", "expires_at"), "time"),
    "tags": [str],
    "meta": dict,
    "result": dict,
    "error": {"code": str, "message": str, "retryable": bool, "details": dict},
}
PAGINATION: Shape = {"total": int, "limit": int, "offset": int, "has_more": bool}
MANIFEST: Shape = {
    "ojs_version": str,
    "implementation": {"name": str, "version": str, "language": str, "homepage": str},
    "conformance_level": int,
    "protocols": [str],
    "backend": str,
    "capabilities": "map of bool",
    "extensions": [str],
    "endpoints": "map of string",
}
HEALTH: Shape = {
    "status": str,
    "version": str,
    "uptime_seconds": int,
    "backend": {"type": str, "status": str, "latency_ms": int, "error": str},
}
COUNTS = ("available", "active", "scheduled", "retryable", "discarded", "completed_last_hour", "failed_last_hour")
QUEUE_STATS: Shape = {
    "queue": str,
    "status": str,
    "stats": {
        **dict.fromkeys(COUNTS, int),
        **dict.fromkeys(("avg_duration_ms", "avg_wait_ms", "throughput_per_second"), float),
    },
    "computed_at": str,
}
CRON: Shape = {
    **dict.fromkeys(("name", "cron", "timezone", "type", "status"), str),
    **dict.fromkeys(("last_run_at", "next_run_at", "created_at"), "time"),
    "options": dict,
    "meta": dict,
}
STEP: Shape = {
    **dict.fromkeys(("id", "type", "state", "job_id"), str),
    "depends_on": [str],
    "started_at": "time",
    "completed_at": "time",
    "result": dict,
}
WORKFLOW: Shape = {
    **dict.fromkeys(("id", "name", "state"), str),
    "created_at": "time",
    "cancelled_at": "time",
    "steps": [STEP],
    "steps_cancelled": int,
    "steps_already_completed": int,
}
