"""Errors as HTTP: the only place that knows which code has which status, and the error envelope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from ojs_stream.core.outcomes import Outcome
from ojs_stream.errors import RefusedError, UnavailableError

DOCS = "docs/errors.md"


RETRY_AFTER_S = "1"


class _Rule(NamedTuple):
    status: int
    hint: str


_RULES: dict[str, _Rule] = {
    "invalid_payload": _Rule(400, "Send one JSON object in UTF-8; args is an array, meta an object."),
    "invalid_request": _Rule(400, "Correct the field, header or query parameter that the message names."),
    "schema_validation": _Rule(400, "Make args fit the schema registered for this job type."),
    "QueueNameTooLong": _Rule(400, "Use a queue name of at most 128 bytes."),
    "JobTypeTooLong": _Rule(400, "Use a job type of at most 255 bytes."),
    "not_found": _Rule(404, "Check the id and the path; the manifest at /ojs/manifest lists the endpoints."),
    "method_not_allowed": _Rule(405, "Use one of the methods in the Allow header."),
    "timeout": _Rule(408, "Ask again: the job goes on."),
    "conflict": _Rule(409, "Read the job or workflow: its state does not allow this any more."),
    "duplicate": _Rule(409, "The job exists already: use existing_job_id, or another id."),
    "idempotency_mismatch": _Rule(409, "Use a new Idempotency-Key for another request."),
    "PayloadTooLarge": _Rule(413, "Send less, or store the data elsewhere and enqueue a reference to it."),
    "MetadataTooLarge": _Rule(413, "Move large values from meta to args, or store them elsewhere."),
    "BATCH_SIZE_EXCEEDED": _Rule(413, "Split the batch."),
    "RESULT_TOO_LARGE": _Rule(413, "Store the result elsewhere and acknowledge with a reference to it."),
    "UnsupportedCompression": _Rule(415, "Compress with gzip, or do not compress."),
    "unsupported": _Rule(422, "Use version 1.0 of the specification, and what the manifest says this server can."),
    "bulk_failed": _Rule(422, "Correct the jobs that items names, then send them again."),
    "queue_draining": _Rule(422, "Use another queue, or resume this one."),
    "JOB_TYPE_NOT_ALLOWED": _Rule(422, "Use a queue that takes this type, or change its allowed_job_types."),
    "rate_limited": _Rule(429, "Wait for the seconds in Retry-After, then repeat."),
    "QUEUE_FULL": _Rule(429, "Wait for the seconds in Retry-After, then repeat."),
    "internal_error": _Rule(500, "This is a defect of the server: report it with the request id."),
    "backend_error": _Rule(503, "Repeat after the seconds in Retry-After, with the same job id if you chose one."),
}
_UNKNOWN_RULE = _Rule(422, "See the message.")
_RETRYABLE = frozenset(("backend_error", "rate_limited", "QUEUE_FULL", "internal_error"))
_PARSER_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "PayloadTooLarge",
    415: "UnsupportedCompression",
}

CODES = tuple(_RULES)
"""Every code this server can answer; each is an anchor of ``docs/errors.md``."""


class Problem(NamedTuple):
    """An error answer: status, envelope, and headers beside the usual ones."""

    status: int
    body: bytes
    headers: dict[str, str]


def status_of(code: str, kind: str | None = None) -> int:
    """The HTTP status of an OJS error code; a ``validation_error`` is a 422."""
    return 422 if kind == "validation_error" else _RULES.get(code, _UNKNOWN_RULE).status


def raise_if_refused(outcome: Outcome) -> Outcome:
    """The outcome itself, unless the fold said no."""
    if outcome.code:
        raise RefusedError(outcome.code, outcome.message, details=outcome.details)
    return outcome


def not_found(kind: str, name: str) -> RefusedError:
    """404 for a resource: the message and the details name it."""
    return RefusedError(
        "not_found",
        f"{kind} {name[:255]!r} does not exist",
        details={"resource_type": kind, "resource_id": name[:255]},
    )


def problem_of(error: Exception, request_id: str) -> Problem:
    """What a client is told about an exception; what is not ours is a 500 that shows nothing."""
    if isinstance(error, RefusedError):
        status = status_of(error.code, error.kind)
        headers = {"Retry-After": RETRY_AFTER_S} if status in (429, 503) else {}
        if error.code == "QUEUE_FULL":
            headers |= depth_headers(error.details)
        return Problem(status, _envelope(error, request_id), headers)
    if isinstance(error, UnavailableError):
        details: dict[str, Any] = {"unknown": True} if error.unknown else {}
        refused = RefusedError("backend_error", str(error), details=details)
        return Problem(503, _envelope(refused, request_id), {"Retry-After": str(error.retry_after_s)})
    if isinstance(error, web.HTTPException):
        return _from_aiohttp(error, request_id)
    refused = RefusedError("internal_error", "the server failed while it handled this request")
    return Problem(500, _envelope(refused, request_id), {})


def depth_headers(about: Mapping[str, Any]) -> dict[str, str]:
    """How full a bounded queue is (OJS.md 6.3)."""
    names = {"depth": "X-OJS-Queue-Depth", "bound": "X-OJS-Queue-Bound", "pressure": "X-OJS-Queue-Pressure"}
    return {header: str(about[name]) for name, header in names.items() if name in about}


def parser_problem(status: int, message: str, request_id: str) -> Problem:
    """What a client is told whose bytes are not an HTTP request."""
    code = "internal_error" if status >= 500 else _PARSER_CODES.get(status, "invalid_request")
    return Problem(status, _envelope(RefusedError(code, message), request_id), {})


def unknown_route(path: str) -> RefusedError:
    """404 for a path that no route has."""
    return RefusedError("not_found", f"there is nothing at {path[:255]}", details={"resource_type": "route"})


def wrong_method(method: str, path: str, allowed: tuple[str, ...]) -> RefusedError:
    """405 for a path that has other methods."""
    return RefusedError(
        "method_not_allowed",
        f"{path[:255]} does not accept {method}, but {', '.join(allowed)}",
        details={"allowed": list(allowed)},
    )


def _from_aiohttp(error: web.HTTPException, request_id: str) -> Problem:
    code = _PARSER_CODES.get(error.status, "invalid_request" if error.status < 500 else "internal_error")
    allow = error.headers.get("Allow")
    refused = RefusedError(code, error.text or error.reason)
    return Problem(error.status, _envelope(refused, request_id), {"Allow": allow} if allow else {})


def _envelope(error: RefusedError, request_id: str) -> bytes:
    content: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "retryable": error.code in _RETRYABLE,
        "request_id": request_id,
        "hint": _RULES.get(error.code, _UNKNOWN_RULE).hint,
        "docs_url": f"{DOCS}#{error.code.lower()}",
    }
    if error.kind:
        content["type"] = error.kind
    if error.details:
        content["details"] = error.details
    return msgspec.json.encode({"error": content})
