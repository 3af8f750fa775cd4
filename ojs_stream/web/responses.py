"""Answers: media type, headers, and job bodies spliced from raw bytes (never decoded and encoded again)."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from ojs_stream import __version__
from ojs_stream.web.problems import Problem

MEDIA_TYPE = "application/openjobspec+json"
MEDIA_TYPE_SDK = 'application/openjobspec+json; profile="application/json"'
"""For clients that send ``OJS-Version``: the SDKs look for ``application/json`` in it (CLIENTS.md trap 1)."""
OJS_VERSION = "1.0"
API = "/ojs/v1"

_COMMON = {
    "OJS-Version": OJS_VERSION,
    "X-OJS-Version": __version__,
    "X-Content-Type-Options": "nosniff",
}
_PLAIN = CIMultiDict({"Content-Type": MEDIA_TYPE, **_COMMON})
_SDK = CIMultiDict({"Content-Type": MEDIA_TYPE_SDK, **_COMMON})


def respond(body: bytes, request_id: str, *, sdk: bool, status: int = 200) -> web.Response:
    """A JSON answer. ``sdk``: the request had an ``OJS-Version`` header (DESIGN.md section 13)."""
    headers = (_SDK if sdk else _PLAIN).copy()
    headers["X-Request-Id"] = request_id
    return web.Response(body=body, status=status, headers=headers)


def respond_problem(problem: Problem, request_id: str, *, sdk: bool) -> web.Response:
    """An error answer."""
    response = respond(problem.body, request_id, sdk=sdk, status=problem.status)
    response.headers.update(problem.headers)
    return response


def job_body(raw: bytes, **more: Any) -> bytes:
    """``{"job": J, "id", "type", "state", "queue"}``: the CLI reads the twins at the top (CLIENTS.md 4)."""
    job = with_fields(raw, **more) if more else raw
    return b'{"job":' + job + b"," + head_of(raw) + b"}"


def with_fields(raw: bytes, **more: Any) -> bytes:
    """A raw object with further fields at its end."""
    return raw[:-1] + b"," + msgspec.json.encode(more)[1:]


def head_of(raw: bytes) -> bytes:
    """``"id":...,"type":...,"state":...,"queue":...`` of a whole job: its first fields, ordered as ``Job``.

    None of them can hold a quote, so the first ``,"args":`` is the real one.
    """
    return raw[raw.index(b'"id":') : raw.index(b',"args":')]


def id_of(raw: bytes) -> str:
    """The id of a whole job."""
    start = raw.index(b'"id":"') + 6
    return raw[start : raw.index(b'"', start)].decode()


def jobs_body(raws: list[bytes], *, counted: bool = False) -> bytes:
    """``{"jobs": [...]}``, with ``count`` if asked."""
    tail = b'],"count":' + str(len(raws)).encode() + b"}" if counted else b"]}"
    return b'{"jobs":[' + b",".join(raws) + tail


def page_body(name: str, raws: list[bytes], fields: dict[str, Any]) -> bytes:
    """``{"<name>": [...], ...fields}``."""
    return b'{"' + name.encode() + b'":[' + b",".join(raws) + b"]," + msgspec.json.encode(fields)[1:]
