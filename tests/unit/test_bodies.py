"""Bodies of worker requests: what is accepted, and what is refused with which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ojs_stream.core.bodies import parse_ack, parse_beat, parse_claim, parse_nack, parse_revive
from ojs_stream.errors import RefusedError

Parser = Callable[[bytes], Any]


def claim(body: bytes) -> Any:
    return parse_claim(body, jobs_max=100, wait_ms_max=20_000)


def ack(body: bytes) -> Any:
    return parse_ack(body, result_bytes_max=100)


BAD: list[tuple[Parser, bytes, str, str]] = [
    (claim, b"", "invalid_payload", "empty"),
    (claim, b"[]", "invalid_payload", "object"),
    (claim, b"{}", "invalid_request", "queues"),
    (claim, b'{"queues":[]}', "invalid_request", "queues"),
    (claim, b'{"queues":"a"}', "invalid_request", "queues"),
    (claim, b'{"queues":[1]}', "invalid_request", "queues[0]"),
    (claim, b'{"queues":["A"]}', "invalid_request", "queues"),
    (claim, b'{"queues":["a"],"count":0}', "invalid_request", "count"),
    (claim, b'{"queues":["a"],"count":"1"}', "invalid_request", "count"),
    (claim, b'{"queues":["a"],"count":true}', "invalid_request", "count"),
    (claim, b'{"queues":["a"],"wait_ms":-1}', "invalid_request", "wait_ms"),
    (claim, b'{"queues":["a"],"visibility_timeout_ms":0}', "invalid_request", "visibility_timeout_ms"),
    (claim, b'{"queues":["a"],"worker_id":7}', "invalid_request", "worker_id"),
    (claim, b'{"queues":["a"],"worker_id":"%s"}' % (b"w" * 256), "invalid_request", "255"),
    (ack, b"{}", "invalid_request", "job_id"),
    (ack, b'{"job_id":1}', "invalid_request", "job_id"),
    (ack, b'{"job_id":"a","result":"%s"}' % (b"r" * 100), "RESULT_TOO_LARGE", "result"),
    (ack, b'{"job_id":"a","result":"\\ud800"}', "invalid_payload", "surrogate"),
    (parse_nack, b'{"error":{}}', "invalid_request", "job_id"),
    (parse_nack, b'{"job_id":"a","error":[]}', "invalid_request", "error"),
    (parse_nack, b'{"job_id":"a","error":{"code":1}}', "invalid_request", "error.code"),
    (parse_nack, b'{"job_id":"a","error":{"message":{}}}', "invalid_request", "error.message"),
    (parse_nack, b'{"job_id":"a","error":{"retryable":"no"}}', "invalid_request", "error.retryable"),
    (parse_nack, b'{"job_id":"a","error":{"details":[]}}', "invalid_request", "error.details"),
    (parse_nack, b'{"job_id":"a","requeue":"yes"}', "invalid_request", "requeue"),
    (parse_nack, b'{"job_id":"a","error":"%s"}' % (b"x" * 300_000), "PayloadTooLarge", "error"),
    (parse_beat, b"{}", "invalid_request", "worker_id"),
    (parse_beat, b'{"worker_id":""}', "invalid_request", "worker_id"),
    (parse_beat, b'{"worker_id":"w","active_jobs":-1}', "invalid_request", "active_jobs"),
    (parse_beat, b'{"worker_id":"w","active_jobs":"x"}', "invalid_request", "active_jobs"),
    (parse_beat, b'{"worker_id":"w","active_jobs":[1]}', "invalid_request", "active_jobs"),
    (parse_beat, b'{"worker_id":"w","state":"a b"}', "invalid_request", "state"),
    (parse_beat, b'{"worker_id":"w","pid":%d}' % 2**60, "invalid_request", "pid"),
    (parse_revive, b"[]", "invalid_payload", "object"),
    (parse_revive, b'{"override":1}', "invalid_request", "override"),
    (parse_revive, b'{"override":{"queue":"A"}}', "invalid_request", "override.queue"),
    (parse_revive, b'{"override":{"args":{}}}', "invalid_payload", "override.args"),
    (parse_revive, b'{"override":{"meta":[]}}', "invalid_payload", "override.meta"),
    (parse_revive, b'{"override":{"priority":101}}', "invalid_request", "override.priority"),
]


@pytest.mark.parametrize(("parser", "body", "code", "words"), BAD, ids=lambda value: str(value)[:60])
def test_a_bad_body_is_refused(parser: Parser, body: bytes, code: str, words: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parser(body)
    assert caught.value.code == code
    assert words in caught.value.message


def test_a_claim_is_clamped_and_names_each_queue_once() -> None:
    wanted = claim(b'{"queues":["b","a","b"],"count":5000,"wait_ms":99999,"worker_id":null,"runtime":{}}')
    assert (wanted.queues, wanted.count, wanted.wait_ms, wanted.worker_id) == (("b", "a"), 100, 20_000, "")


def test_a_request_visibility_in_seconds_or_milliseconds() -> None:
    assert claim(b'{"queues":["a"],"visibility_timeout":2}').visibility_ms == 2_000
    assert claim(b'{"queues":["a"],"visibility_timeout":2,"visibility_timeout_ms":5}').visibility_ms == 5


def test_an_ack_keeps_the_bytes_of_its_result() -> None:
    given = ack(b'{"id":"a","result":{"n":12345678901234567890123, "e":1e400}}')
    assert given.job_id == "a"
    assert bytes(given.result) == b'{"n":12345678901234567890123, "e":1e400}'
    assert ack(b'{"job_id":"a"}').result is msgspec.UNSET
    assert bytes(ack(b'{"job_id":"a","result":null}').result) == b"null"


FAILURES: list[tuple[bytes, dict[str, Any]]] = [
    (b"null", {"code": "handler_error", "type": "handler_error", "message": ""}),
    (b'"it broke"', {"code": "handler_error", "message": "it broke"}),
    (b'{"message":"m"}', {"code": "handler_error", "type": "handler_error", "message": "m"}),
    (b'{"code":"c"}', {"code": "c", "type": "c"}),
    (b'{"code":"c","type":"T"}', {"code": "c", "type": "T"}),
    (b'{"code":"c","details":{"error_class":"E"}}', {"code": "c", "type": "E", "error_class": "E"}),
    (b'{"code":"c","details":{"error_class":5}}', {"code": "c", "type": "c", "error_class": ""}),
    (b'{"code":"c","retryable":false,"details":null}', {"retryable": False, "error_class": ""}),
]


@pytest.mark.parametrize(("error", "expected"), FAILURES)
def test_the_forms_of_an_error(error: bytes, expected: dict[str, Any]) -> None:
    failure = parse_nack(b'{"job_id":"a","error":%s}' % error).failure
    assert {name: getattr(failure, name) for name in expected} == expected


def test_a_path_id_makes_the_body_optional() -> None:
    assert parse_nack(b"", job_id="j").job_id == "j"
    assert parse_ack(b"", result_bytes_max=9, job_id="j").job_id == "j"


BEATS: list[tuple[bytes, tuple[str, ...], int]] = [
    (b'{"worker_id":"w"}', (), 0),
    (b'{"worker_id":"w","active_jobs":["a","b"]}', ("a", "b"), 2),
    (b'{"worker_id":"w","active_jobs":2,"active_job_ids":["a","b"]}', ("a", "b"), 2),
    (b'{"worker_id":"w","active_jobs":["a"],"job_id":"a","id":"c"}', ("a", "c"), 2),
    (b'{"id":"w"}', (), 0),
]


@pytest.mark.parametrize(("body", "ids", "active"), BEATS)
def test_the_forms_of_a_heartbeat(body: bytes, ids: tuple[str, ...], active: int) -> None:
    beat = parse_beat(body)
    assert (beat.worker_id, beat.job_ids, beat.active) == ("w", ids, active)


def test_an_override_keeps_raw_bytes() -> None:
    given = parse_revive(b'{"override":{"queue":"q","args":[1e400],"priority":5,"retry":{"max_attempts":1}}}')
    assert (given.queue, given.priority) == ("q", 5)
    assert isinstance(given.args, msgspec.Raw)
    assert bytes(given.args) == b"[1e400]"
    assert given.retry is not None
    assert given.retry.max_attempts == 1
    assert parse_revive(b"") == parse_revive(b"{}")
