"""Answers: media type, headers, and job bodies spliced from raw bytes (never decoded and encoded again)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from ojs_stream.web.answer import Answer
from ojs_stream.web.problems import Problem

API = "/ojs/v1"
_NONE: Mapping[str, str] = MappingProxyType({})


def respond(
    body: bytes, request_id: str, *, sdk: bool, status: int = 200, headers: Mapping[str, str] = _NONE
) -> Answer:
    """A JSON answer. ``sdk``: the request had an ``OJS-Version`` header (DESIGN.md section 13).

    ``headers`` are further ones: plain ASCII of our own making.
    """
    return Answer(body, {"X-Request-Id": request_id, **headers}, sdk=sdk, status=status)


def respond_problem(problem: Problem, request_id: str, *, sdk: bool, headers: Mapping[str, str] = _NONE) -> Answer:
    """An error answer."""
    more = {**problem.headers, **headers}
    return respond(problem.body, request_id, sdk=sdk, status=problem.status, headers=more)


def job_body(raw: bytes, **more: Any) -> bytes:
    """``{"job": J, "id", "type", "state", "queue"}``: the CLI reads the twins at the top (CLIENTS.md 4)."""
    job = with_fields(raw, **more) if more else raw
    return b'{"job":' + job + b"," + head_of(raw) + b"}"


def with_fields(raw: bytes, **more: Any) -> bytes:
    """A raw object with further fields at its end."""
    return raw[:-1] + b"," + msgspec.json.encode(more)[1:]


def head_of(raw: bytes) -> bytes:
    """``"id":...,"type":...,"state":...,"queue":...`` of a whole job: its first fields, ordered as ``Job``.

    None of them can hold a quote, so the first ``,"args":`` is the real one. A job that is gone may have no more.
    """
    end = raw.find(b',"args":')
    return raw[raw.index(b'"id":') : end if end >= 0 else -1]


def id_of(raw: bytes) -> str:
    """The id of a whole job."""
    start = raw.index(b'"id":"') + 6
    return raw[start : raw.index(b'"', start)].decode()


def jobs_body(raws: list[bytes], *, counted: bool = False) -> bytes:
    """``{"jobs": [...]}``; of a batch also ``count``, and ``enqueued`` and ``failed`` for the CLI."""
    count = str(len(raws)).encode()
    tail = b'],"count":' + count + b',"enqueued":' + count + b',"failed":0}' if counted else b"]}"
    return b'{"jobs":[' + b",".join(raws) + tail


def page_body(name: str, raws: list[bytes], fields: dict[str, Any]) -> bytes:
    """``{"<name>": [...], ...fields}``."""
    return b'{"' + name.encode() + b'":[' + b",".join(raws) + b"]," + msgspec.json.encode(fields)[1:]
