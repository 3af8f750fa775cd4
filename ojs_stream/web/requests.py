"""Requests: headers, body and query as checked values; whatever is wrong is a ``RefusedError``."""

from __future__ import annotations

import re

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ojs_stream import stamp
from ojs_stream.core.envelope import bad_field, bad_payload, too_large
from ojs_stream.core.names import speaks
from ojs_stream.core.states import STATES, State
from ojs_stream.core.times import parse_timestamp
from ojs_stream.errors import RefusedError
from ojs_stream.store.scans import Page

MEDIA_TYPES = frozenset(("application/json", "application/openjobspec+json", ""))
ENCODINGS = frozenset(("gzip", "deflate", "identity", ""))
OFFSET_MAX = 1_000_000_000
_INTEGER = re.compile(r"[+-]?\d{1,100}")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def request_id_of(request: web.BaseRequest) -> str:
    """The client's ``X-Request-Id`` if it is a plain word, else a new one."""
    given = request.headers.get("X-Request-Id")
    if given and _REQUEST_ID.fullmatch(given):
        return given
    return new_request_id()


def new_request_id() -> str:
    """An id for a request that brought none."""
    return f"req_{stamp.new_uuid()}"


def check_version(value: str) -> None:
    """The ``OJS-Version`` header: every 1.x is spoken here."""
    if not speaks(value):
        raise RefusedError(
            "unsupported",
            f"OJS-Version {value[:32]!r} is not supported, this server speaks 1.0",
            details={"supported": ["1.0"]},
        )


async def read_body(request: web.Request, bytes_max: int) -> bytes:
    """The body, decompressed, within its bound; its type and encoding are checked if there is one."""
    content = request.content
    if content.at_eof():
        return b""
    _check_encoding(request)
    length = request.content_length
    if length is not None and length > bytes_max:
        raise too_large("PayloadTooLarge", "the body", length, bytes_max)
    try:
        body = await content.readany()
        if not content.at_eof():
            body = await _read_rest(request, body, bytes_max)
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise bad_payload(f"the body cannot be read: {error}") from None
    if len(body) > bytes_max:
        raise too_large("PayloadTooLarge", "the body", len(body), bytes_max)
    if body:
        _check_type(request)
    return body


async def _read_rest(request: web.Request, first: bytes, bytes_max: int) -> bytes:
    chunks, size = [first], len(first)
    while chunk := await request.content.readany():
        size += len(chunk)
        if size > bytes_max:
            raise too_large("PayloadTooLarge", "the body", size, bytes_max)
        chunks.append(chunk)
    return b"".join(chunks)


def _check_encoding(request: web.Request) -> None:
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ENCODINGS:
        raise RefusedError(
            "UnsupportedCompression",
            f"Content-Encoding {encoding[:32]!r} is not supported",
            details={"supported": ["gzip", "deflate"]},
        )


def _check_type(request: web.Request) -> None:
    given = request.headers.get("Content-Type", "")
    if given.partition(";")[0].strip().lower() not in MEDIA_TYPES:
        raise RefusedError(
            "invalid_request",
            f"Content-Type {given[:100]!r} is not accepted, send application/openjobspec+json",
            details={"header": "Content-Type"},
        )


# ------------------------------------------------------------------ query


def whole_of(request: web.Request, name: str, default: int, *, low: int, high: int) -> int:
    """An integer of the query, clamped to its bounds, not refused (OJS.md 2.3)."""
    text = request.query.get(name)
    if text is None or text == "":
        return default
    if not _INTEGER.fullmatch(text):
        raise bad_field(name, "must be an integer")
    return max(low, min(int(text), high))


def page_of(request: web.Request, *, default: int = 50, limit_max: int = 200) -> Page:
    """``limit``/``cursor``/``offset``, or ``page``/``per_page``."""
    query = request.query
    if "per_page" in query or "page" in query:
        limit = whole_of(request, "per_page", default, low=1, high=limit_max)
        number = whole_of(request, "page", 1, low=1, high=OFFSET_MAX // limit_max)
        return Page(limit=limit, offset=(number - 1) * limit)
    return Page(
        limit=whole_of(request, "limit", default, low=1, high=limit_max),
        offset=whole_of(request, "offset", 0, low=0, high=OFFSET_MAX),
        cursor=query.get("cursor", ""),
    )


def states_of(request: web.Request) -> tuple[State, ...]:
    """``state=available,active``: one or several of the eight."""
    text = request.query.get("state", "")
    names = [name for name in text.split(",") if name]
    chosen = tuple(state for state in STATES if state in names)
    if len(chosen) != len(set(names)):
        raise bad_field("state", f"must be one of {', '.join(STATES)}")
    return chosen


def instant_of(request: web.Request, name: str) -> int | None:
    """A timestamp of the query in ms since the epoch."""
    text = request.query.get(name)
    if not text:
        return None
    try:
        # A '+' of a zone that was not percent-encoded arrives as a space.
        return parse_timestamp(text[:10] + text[10:].replace(" ", "+"))
    except (ValueError, OverflowError) as error:
        raise bad_field(name, str(error)) from None


def words_of(request: web.Request, *names: str) -> frozenset[str]:
    """A comma-separated list of the query, under any of its names."""
    return frozenset(word for name in names for word in request.query.get(name, "").split(",") if word)
