"""Whatever a client sends becomes a job, or is refused in words: no parser ever fails in another way."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ojs_stream.core.bodies import parse_ack, parse_beat, parse_claim, parse_nack, parse_reason, parse_revive
from ojs_stream.core.fields import CHECKS
from ojs_stream.core.records import Retention
from ojs_stream.core.validation import Rules, parse_batch, parse_job
from ojs_stream.errors import RefusedError

RULES = Rules(retention=Retention(1, 2, 3, 4))
NAMES = sorted({*CHECKS, "queues", "count", "error", "override", "active_jobs", "job_id", "jobs", "x_new"})
TEXTS = ["+PT2S", "PT1S", "2030-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "P" + "9" * 400 + "D", "1.0"]

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars | st.sampled_from(TEXTS),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=10,
)

patient = settings(suppress_health_check=[HealthCheck.too_slow])
"""On a fresh machine the first text makes Hypothesis' table of all characters: that took 2 s once."""

PARSERS: list[Callable[[bytes], Any]] = [
    lambda body: parse_job(body, RULES, str),
    lambda body: parse_batch(b'{"jobs":[%s]}' % body, RULES, str),
    lambda body: parse_claim(body, jobs_max=5, wait_ms_max=5),
    lambda body: parse_ack(body, result_bytes_max=50),
    parse_nack,
    parse_beat,
    parse_revive,
    parse_reason,
]


def offer(body: bytes) -> None:
    for parser in PARSERS:
        refusal: RefusedError | None = None
        try:
            parser(body)
        except RefusedError as error:
            refusal = error
        assert refusal is None or (refusal.code and refusal.message)


@patient
@given(st.dictionaries(st.sampled_from(NAMES), values, max_size=6))
def test_any_object_is_accepted_or_refused_in_words(fields: dict[str, Any]) -> None:
    offer(json.dumps(fields).encode())
    offer(json.dumps({"type": "a", "args": [], **fields}).encode())


@given(st.binary(max_size=80))
def test_any_bytes_are_accepted_or_refused_in_words(body: bytes) -> None:
    offer(body)


@patient
@given(st.lists(values, max_size=5), st.dictionaries(st.text(), values, max_size=5))
def test_args_and_meta_come_through_byte_for_byte(args: list[Any], meta: dict[str, Any]) -> None:
    raw_args, raw_meta = json.dumps(args, indent=1).encode(), json.dumps(meta).encode()
    try:
        orjson.loads(raw_args + b"\n"), orjson.loads(raw_meta)
    except orjson.JSONDecodeError:
        return
    job = parse_job(b'{"args":%s,"type":"a","meta":%s}' % (raw_args, raw_meta), RULES, str)
    assert (bytes(job.args), bytes(job.meta)) == (raw_args, raw_meta)
    assert bytes(msgspec.json.decode(msgspec.json.encode(job), type=type(job)).args) == raw_args
