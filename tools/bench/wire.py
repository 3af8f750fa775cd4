"""HTTP/1.1 bytes: requests built once before a measurement, and a response reader that does very little.

The client shares its cores with the server it measures, so it parses only what it needs: status and
`Content-Length`. Chunked answers are refused, the server under test never sends them.
"""

from __future__ import annotations

from typing import NamedTuple

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\ncontent-length:"
_FAST_LENGTH = b"\r\nContent-Length: "
_STATUS_LINE_BYTES_MIN = 12
_BODILESS = frozenset({204, 304})


class WireError(Exception):
    """The peer sent something that this reader does not take for an HTTP/1.1 response with a length."""


class Answer(NamedTuple):
    """One response: its status, where its body starts and where it ends in the buffer it was read from."""

    status: int
    body_start: int
    end: int
    closes: bool


def post(path: str, body: bytes, *, host: str) -> bytes:
    """Return the bytes of a keep-alive POST with a JSON body."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nOJS-Version: 1.0\r\n"
        f"Content-Type: application/openjobspec+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def read_answer(data: bytes) -> Answer | None:
    """Return the response that `data` starts with, or None while it is incomplete."""
    head_end = data.find(_HEAD_END)
    if head_end < 0:
        return None
    status = _status(data)
    body_start = head_end + len(_HEAD_END)
    end = body_start + _length(data, head_end, status)
    if len(data) < end:
        return None
    closes = data.find(b"\r\nConnection: close", 0, head_end) >= 0
    return Answer(status, body_start, end, closes)


def _status(data: bytes) -> int:
    digits = data[9:_STATUS_LINE_BYTES_MIN]
    if not data.startswith(b"HTTP/1.") or not digits.isdigit():
        raise WireError(f"not an HTTP/1.x status line: {data[:60]!r}")
    return int(digits)


def _length(data: bytes, head_end: int, status: int) -> int:
    start = data.find(_FAST_LENGTH, 0, head_end)
    if start >= 0:
        start += len(_FAST_LENGTH)
    else:
        start = data[:head_end].lower().find(_LENGTH)
        if start < 0:
            return _without_length(data[:head_end], status)
        start += len(_LENGTH)
    line_end = data.find(b"\r\n", start)
    digits = data[start:line_end].strip()
    if not digits.isdigit():
        raise WireError(f"Content-Length is not a number: {digits[:40]!r}")
    return int(digits)


def _without_length(head: bytes, status: int) -> int:
    if status in _BODILESS:
        return 0
    raise WireError(f"a response without Content-Length cannot be measured: {head[:200]!r}")
