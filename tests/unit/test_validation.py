"""Every rule of OJS.md 1.2 as a row: a body, and the code and words of its refusal, or what becomes of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from ojs_stream.core.commands import NewJob
from ojs_stream.core.fields import CHECKS, ECHOED, keep
from ojs_stream.core.records import Job, Retention
from ojs_stream.core.validation import Rules, parse_batch, parse_job
from ojs_stream.errors import RefusedError

RETENTION = Retention(completed_ms=7, cancelled_ms=7, discarded_ms=30, dead_ms=180)
RULES = Rules(retention=RETENTION)
NEW_ID = "019461a8-1a2b-7c3d-8e4f-5a6b7c8d9e0f"


def parse(body: bytes | dict[str, Any], rules: Rules = RULES) -> NewJob:
    data = body if isinstance(body, bytes) else msgspec.json.encode({"type": "a.b", "args": []} | body)
    return parse_job(data, rules, lambda queue: f"new:{queue}")


def refused(body: bytes | dict[str, Any], rules: Rules = RULES) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        parse(body, rules)
    return caught.value


DEEP_OK = b'{"type":"a","args":' + b"[" * 63 + b"]" * 63 + b"}"
TOO_DEEP = b'{"type":"a","args":' + b"[" * 64 + b"]" * 64 + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  \n",
        b"{ invalid json }",
        b"[]",
        b'"text"',
        b"null",
        b"1",
        b'{"type":"a","args":[]',
        b'{"type":"a","args":[]}x',
        b'{"type":"a","args":[NaN]}',
        b'{"type":"a","args":[Infinity]}',
        b'{"type":"a","args":[1e400,NaN]}',
        b'{"type":"a","args":[01]}',
        b'{"type":"a","args":[1,]}',
        b'{"type":"a","args":["\xff"]}',
        b'{"type":"a","args":["\\ud800"]}',
        b'{"type":"a","args":[1e400,"\\ud800"]}',
        b'{"type":"a","args":["\x01"]}',
        b'\xef\xbb\xbf{"type":"a","args":[]}',
        b'{"type":"a","args":' + b"[" * 100_000,
        TOO_DEEP,
    ],
    ids=lambda body: repr(body[:40]),
)
def test_what_is_not_a_json_object_is_an_invalid_payload(body: bytes) -> None:
    assert refused(body).code == "invalid_payload"


def test_sixty_four_levels_are_accepted() -> None:
    assert len(parse(DEEP_OK).args) > 0


def test_depth_is_counted_for_each_job_of_a_batch() -> None:
    ok = b"[" * 63 + b"]" * 63
    body = b'{"jobs":[{"type":"a","args":%s},{"type":"a","args":%s}]}'
    assert len(parse_batch(body % (ok, ok), RULES, str)) == 2
    for deep in (b"[%s]" % ok, b"[" * 900 + b"]" * 900, b"[" * 100_000 + b"]" * 100_000):
        with pytest.raises(RefusedError) as caught:
            parse_batch(body % (b"[]", deep), RULES, str)
        assert caught.value.code == "invalid_payload"


def test_brackets_inside_strings_are_no_depth() -> None:
    assert parse({"args": ["[" * 500 + '"\\'] * 3}).type == "a.b"


BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    # args, meta: shape
    ({"args": None}, "invalid_payload", "args"),
    ({"args": {}}, "invalid_payload", "args"),
    ({"args": "x"}, "invalid_payload", "args"),
    ({"args": 1}, "invalid_payload", "args"),
    ({"args": True}, "invalid_payload", "args"),
    ({"meta": []}, "invalid_payload", "meta"),
    ({"meta": "x"}, "invalid_payload", "meta"),
    ({"options": {"metadata": []}}, "invalid_payload", "metadata"),
    # type
    ({"type": None}, "invalid_request", "type"),
    ({"type": 1}, "invalid_request", "type"),
    ({"type": ""}, "invalid_request", "type"),
    ({"type": "Email.Send"}, "invalid_request", "type"),
    ({"type": "email send"}, "invalid_request", "type"),
    ({"type": "1email.send"}, "invalid_request", "type"),
    ({"type": "email@send!"}, "invalid_request", "type"),
    ({"type": "email..send"}, "invalid_request", "type"),
    ({"type": "email.send\n"}, "invalid_request", "type"),
    ({"type": "a" * 256}, "JobTypeTooLong", "255"),
    # queue
    ({"queue": "Default"}, "invalid_request", "queue"),
    ({"queue": "my_queue!"}, "invalid_request", "queue"),
    ({"queue": "my_queue"}, "invalid_request", "queue"),
    ({"queue": "-invalid"}, "invalid_request", "queue"),
    ({"queue": "my queue"}, "invalid_request", "queue"),
    ({"queue": ""}, "invalid_request", "queue"),
    ({"queue": 3}, "invalid_request", "queue"),
    ({"queue": "q" * 129}, "QueueNameTooLong", "128"),
    ({"options": {"queue": "Bad"}}, "invalid_request", "queue"),
    # id
    ({"id": ""}, "invalid_request", "id"),
    ({"id": "text"}, "invalid_request", "id"),
    ({"id": 1}, "invalid_request", "id"),
    ({"id": NEW_ID.upper()}, "invalid_request", "id"),
    ({"id": "550e8400-e29b-41d4-a716-446655440000"}, "invalid_request", "id"),
    # priority
    ({"priority": 101}, "invalid_request", "priority"),
    ({"priority": -101}, "invalid_request", "priority"),
    ({"priority": 999999}, "invalid_request", "priority"),
    ({"priority": True}, "invalid_request", "priority"),
    ({"priority": 1.0}, "invalid_request", "priority"),
    ({"priority": "1"}, "invalid_request", "priority"),
    # specversion
    ({"specversion": "2.0"}, "unsupported", "2.0"),
    ({"specversion": "0.9"}, "unsupported", "0.9"),
    ({"specversion": 1}, "invalid_request", "specversion"),
    # durations and instants
    ({"timeout": 0}, "invalid_request", "timeout"),
    ({"timeout": True}, "invalid_request", "timeout"),
    ({"timeout_ms": -1}, "invalid_request", "timeout_ms"),
    ({"timeout_ms": 1.5}, "invalid_request", "timeout_ms"),
    ({"timeout_ms": 10**30}, "invalid_request", "timeout_ms"),
    ({"visibility_timeout": "30"}, "invalid_request", "visibility_timeout"),
    ({"visibility_timeout_ms": 0}, "invalid_request", "visibility_timeout_ms"),
    ({"scheduled_at": "tomorrow"}, "invalid_request", "scheduled_at"),
    ({"scheduled_at": "2030-01-01T00:00:00"}, "invalid_request", "zone"),
    ({"scheduled_at": "2030-02-31T00:00:00Z"}, "invalid_request", "scheduled_at"),
    ({"scheduled_at": "9999-12-31T23:59:59-23:59"}, "invalid_request", "10000"),
    ({"scheduled_at": 1}, "invalid_request", "scheduled_at"),
    ({"scheduled_at": "+2 seconds"}, "invalid_request", "scheduled_at"),
    ({"delay_until": "x"}, "invalid_request", "delay_until"),
    ({"delay": "x"}, "invalid_request", "delay"),
    ({"delay": 5}, "invalid_request", "delay"),
    ({"expires_at": "x"}, "invalid_request", "expires_at"),
    ({"enqueue_ttl": 0}, "invalid_request", "enqueue_ttl"),
    ({"ttl": -1}, "invalid_request", "ttl"),
    ({"total_timeout": 0}, "invalid_request", "total_timeout"),
    ({"total_timeout": 5, "timeout": 6}, "invalid_request", "total_timeout"),
    ({"grace_period": -1}, "invalid_request", "grace_period"),
    ({"heartbeat_timeout": 0}, "invalid_request", "heartbeat_timeout"),
    ({"result_ttl": -2}, "invalid_request", "result_ttl"),
    # the rest
    ({"options": []}, "invalid_request", "options"),
    ({"unique": "x"}, "invalid_request", "unique"),
    ({"rate_limit": []}, "invalid_request", "rate_limit"),
    ({"tags": "x"}, "invalid_request", "tags"),
    ({"tags": [1]}, "invalid_request", "tags"),
    ({"schema": 1}, "invalid_request", "schema"),
    ({"pending": "yes"}, "invalid_request", "pending"),
    ({"version": {}}, "invalid_request", "version"),
]


@pytest.mark.parametrize(("field", "code", "words"), BAD_FIELDS, ids=lambda value: str(value)[:40])
def test_a_bad_field_is_refused_with_its_code_and_its_name(field: dict[str, Any], code: str, words: str) -> None:
    error = refused(field)
    assert error.code == code
    assert words in error.message
    assert error.kind is None


@pytest.mark.parametrize("missing", ["type", "args"])
def test_a_required_field_is_missing(missing: str) -> None:
    body = {"type": "a", "args": []}
    del body[missing]
    error = refused(msgspec.json.encode(body))
    assert (error.code, error.message) == ("invalid_request", f"{missing} is required")


BAD_POLICIES: list[tuple[dict[str, Any], str]] = [
    ({"retry": []}, "retry"),
    ({"retry": {"max_attempts": -1}}, "retry.max_attempts must be a non-negative integer"),
    ({"retry": {"max_attempts": True}}, "max_attempts"),
    ({"retry": {"max_attempts": 1.0}}, "max_attempts"),
    ({"retry": {"backoff_coefficient": 0.5}}, "backoff_coefficient"),
    ({"retry": {"backoff_coefficient": "2"}}, "backoff_coefficient"),
    ({"retry": {"backoff_coefficient": True}}, "backoff_coefficient"),
    ({"retry": {"initial_interval": "PT0S"}}, "initial_interval"),
    ({"retry": {"initial_interval": "soon"}}, "initial_interval"),
    ({"retry": {"initial_interval": 5}}, "initial_interval"),
    ({"retry": {"initial_interval_ms": 0}}, "initial_interval_ms"),
    ({"retry": {"initial_interval": "PT10S", "max_interval": "PT5S"}}, "max_interval"),
    ({"retry": {"jitter": "true"}}, "jitter"),
    ({"retry": {"non_retryable_errors": "x"}}, "non_retryable_errors"),
    ({"retry": {"non_retryable_errors": [""]}}, "non_retryable_errors"),
    ({"retry": {"on_exhaustion": "keep"}}, "on_exhaustion"),
    ({"retry": {"backoff_strategy": "random"}}, "backoff_strategy"),
    ({"options": {"retry": {"max_attempts": -1}}}, "max_attempts"),
    ({"retry_policy": {"max_attempts": -1}}, "max_attempts"),
    ({"max_attempts": -1}, "max_attempts must be a non-negative integer"),
]


@pytest.mark.parametrize(("field", "words"), BAD_POLICIES, ids=lambda value: str(value)[:50])
def test_a_bad_retry_policy_is_a_validation_error(field: dict[str, Any], words: str) -> None:
    error = refused(field)
    assert (error.code, error.kind) == ("invalid_request", "validation_error")
    assert words in error.message


GOOD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"queue": "default", "priority": 0, "timeout_ms": 1_800_000, "visibility_timeout_ms": 1_800_000}),
    ({}, {"id": "new:default", "client_id": False, "pending": False, "extra": msgspec.UNSET}),
    ({"id": NEW_ID}, {"id": NEW_ID, "client_id": True}),
    ({"queue": "q-1.a"}, {"queue": "q-1.a", "id": "new:q-1.a"}),
    ({"queue": "top", "options": {"queue": "nested"}}, {"queue": "nested"}),
    ({"queue": None, "priority": None, "retry": None}, {"queue": "default", "priority": 0}),
    ({"priority": -100}, {"priority": -100}),
    ({"options": {"priority": 100}}, {"priority": 100}),
    ({"type": "dlq.test.list-first"}, {"type": "dlq.test.list-first"}),
    ({"type": "email.send@2.1.0"}, {"type": "email.send@2.1.0"}),
    ({"specversion": "1.0.0-rc.1"}, {"type": "a.b"}),
    ({"timeout": 5}, {"timeout_ms": 5_000}),
    ({"timeout": 5, "timeout_ms": 70}, {"timeout_ms": 70}),
    ({"timeout_ms": 70, "timeout": 5}, {"timeout_ms": 70}),
    ({"options": {"timeout": 5}, "timeout_ms": 70}, {"timeout_ms": 5_000}),
    ({"visibility_timeout": 5}, {"visibility_timeout_ms": 5_000}),
    ({"visibility_timeout_ms": 5}, {"visibility_timeout_ms": 5}),
    ({"scheduled_at": "+PT2S"}, {"delay_ms": 2_000, "scheduled": 0, "scheduled_at": None}),
    ({"delay": "PT0.5S"}, {"delay_ms": 500}),
    ({"delay": "5m"}, {"delay_ms": 300_000}),
    (
        {"delay_until": "2099-12-31T23:59:59Z"},
        {"scheduled": 4_102_444_799_000, "scheduled_at": "2099-12-31T23:59:59Z", "delay_ms": 0},
    ),
    ({"scheduled_at": "1960-01-01T00:00:00Z"}, {"scheduled": 1}),
    ({"delay_until": "2098-01-01T00:00:00Z", "scheduled_at": "+PT1S"}, {"delay_ms": 1_000, "scheduled": 0}),
    ({"expires_at": "+PT2S"}, {"expires_in_ms": 2_000, "expires": 0, "expires_at": None}),
    (
        {"expires_at": "2099-12-31T23:59:59Z"},
        {"expires": 4_102_444_799_000, "expires_at": "2099-12-31T23:59:59Z", "expires_in_ms": 0},
    ),
    ({"enqueue_ttl": 3}, {"expires_in_ms": 3_000}),
    ({"ttl": "PT3S"}, {"expires_in_ms": 3_000}),
    ({"total_timeout": 60}, {"total_timeout_ms": 60_000, "timeout_ms": 60_000}),
    ({"total_timeout": 60, "timeout": 60}, {"total_timeout_ms": 60_000, "timeout_ms": 60_000}),
    ({"pending": True}, {"pending": True}),
    ({"result_ttl": -1}, {"retention": Retention(-1, 7, 30, 180)}),
    ({"result_ttl": 0}, {"retention": RETENTION}),
    ({"result_ttl": 9}, {"retention": Retention(9_000, 7, 30, 180)}),
]


@pytest.mark.parametrize(("field", "expected"), GOOD, ids=lambda value: str(value)[:50])
def test_a_good_field_becomes_part_of_the_job(field: dict[str, Any], expected: dict[str, Any]) -> None:
    job = parse(field)
    assert {name: getattr(job, name) for name in expected} == expected


POLICIES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"max_attempts": 3, "initial_ms": 1_000, "coefficient": 2.0, "max_ms": 300_000, "jitter": True}),
    ({"retry": {"max_attempts": 0}}, {"max_attempts": 0, "initial_ms": 1_000, "jitter": True}),
    ({"retry": {"jitter": False}}, {"max_attempts": 3, "jitter": False}),
    ({"retry": {"initial_interval": "30s"}}, {"initial_ms": 30_000, "max_ms": 300_000}),
    ({"retry": {"initial_interval": "PT10M"}}, {"initial_ms": 600_000, "max_ms": 600_000}),
    ({"retry": {"initial_interval_ms": 250, "max_interval_ms": 900}}, {"initial_ms": 250, "max_ms": 900}),
    ({"retry": {"initial_delay_ms": 250}}, {"initial_ms": 250}),
    ({"retry": {"backoff_coefficient": 1.0}}, {"strategy": "constant"}),
    ({"retry": {"backoff_coefficient": 1, "backoff_strategy": "linear"}}, {"strategy": "linear"}),
    ({"retry": {"backoff_type": "fixed"}}, {"strategy": "constant", "coefficient": 2.0}),
    ({"retry": {"strategy": "polynomial"}}, {"strategy": "polynomial"}),
    ({"retry": {"on_exhaustion": "dead_letter"}}, {"on_exhaustion": "dead_letter"}),
    ({"retry": {"non_retryable_errors": ["A", "B.*"]}}, {"non_retryable": ("A", "B.*")}),
    ({"retry_policy": {"max_attempts": 7}}, {"max_attempts": 7}),
    ({"retry": {"max_attempts": 5}, "retry_policy": {"max_attempts": 7}}, {"max_attempts": 5}),
    ({"max_attempts": 9}, {"max_attempts": 9}),
    ({"max_attempts": 9, "retry": {"jitter": False}}, {"max_attempts": 9, "jitter": False}),
    ({"max_attempts": 9, "retry": {"max_attempts": 2}}, {"max_attempts": 2}),
    ({"options": {"retry": {"max_attempts": 5}}, "retry": {"max_attempts": 6}}, {"max_attempts": 5}),
]


@pytest.mark.parametrize(("field", "expected"), POLICIES, ids=lambda value: str(value)[:50])
def test_a_policy_is_merged_over_the_defaults(field: dict[str, Any], expected: dict[str, Any]) -> None:
    policy = parse(field).retry
    assert {name: getattr(policy, name) for name in expected} == expected


def test_the_echo_of_a_policy_is_normalised_and_keeps_unknown_keys() -> None:
    extra = parse({"max_attempts": 4, "retry": {"initial_interval_ms": 500, "x_new": {"a": [1]}}}).extra
    assert extra is not UNSET
    echo = msgspec.json.decode(extra)["retry"]
    assert echo["max_attempts"] == 4
    assert echo["initial_interval"] == "PT0.5S"
    assert echo["max_interval"] == "PT300S"
    assert echo["x_new"] == {"a": [1]}
    assert "initial_interval_ms" not in echo


# ------------------------------------------------------------------ raw bytes

RAW_VALUES = [
    b"123456789012345678901234567890",
    b"-0",
    b"1e400",
    b"1.10",
    b"1E5",
    b'"\\u00e9\\n\\/"',
    b'{"z":1,"a":2,"z2":[ 1 , 2 ]}',
    b'"\xf0\x9f\x98\x80"',
    b"18446744073709551616",
]


@pytest.mark.parametrize("value", RAW_VALUES, ids=repr)
def test_args_meta_and_unknown_fields_keep_every_byte(value: bytes) -> None:
    job = parse(b'{"x_new":%s,"type":"a","meta":{"m":%s},"args":[%s]}' % (value, value, value))
    assert bytes(job.args) == b"[%s]" % value
    assert bytes(job.meta) == b'{"m":%s}' % value
    assert job.extra is not UNSET
    assert bytes(job.extra) == b'{"x_new":%s}' % value


def test_merged_metadata_keeps_every_byte_of_its_values() -> None:
    options = b'{"metadata":{"b":12345678901234567890123,"c":-0}}'
    body = b'{"type":"a","args":[],"meta":{"a":1e400,"b":1},"options":%s}' % options
    assert bytes(parse(body).meta) == b'{"a":1e400,"b":12345678901234567890123,"c":-0}'


def test_top_level_metadata_is_an_unknown_field() -> None:
    job = parse({"metadata": {"a": 1}})
    assert bytes(job.meta) == b"{}"
    assert job.extra is not UNSET
    assert bytes(job.extra) == b'{"metadata":{"a":1}}'


@pytest.mark.parametrize(
    "name", ["tags", "unique", "rate_limit", "schema", "version", "x_a", "ext_attest", "future"]
)
def test_what_is_not_ours_is_echoed(name: str) -> None:
    values: dict[str, Any] = {"tags": ["a"], "unique": {"keys": []}, "rate_limit": {"key": "k"}, "schema": "urn:a"}
    value = values.get(name, 2)
    for body in ({name: value}, {"options": {name: value}}):
        extra = parse(body).extra
        assert extra is not UNSET
        assert msgspec.json.decode(extra) == {name: value}


FORGED = [name for name, check in CHECKS.items() if check is None and name not in ("type", "args", "options")]


@pytest.mark.parametrize("name", FORGED)
def test_a_client_cannot_forge_a_system_managed_field(name: str) -> None:
    assert parse({name: "forged", "options": {name: "forged"}}).extra is UNSET


def test_no_field_of_a_job_can_be_echoed() -> None:
    fields = set(Job.__struct_fields__)
    assert fields <= set(CHECKS)
    assert not fields & ECHOED
    assert all(CHECKS[name] is not keep for name in fields)


# ------------------------------------------------------------------ limits and batches


def test_limits_have_their_own_codes() -> None:
    small = Rules(retention=RETENTION, envelope_bytes_max=300, meta_bytes_max=50, batch_jobs_max=2)
    assert refused({"args": ["x" * 300]}, small).code == "PayloadTooLarge"
    error = refused({"meta": {"a": "x" * 60}}, small)
    assert (error.code, error.details["max"]) == ("MetadataTooLarge", 50)
    with pytest.raises(RefusedError) as caught:
        parse_batch(b'{"jobs":[1,2,3]}', small, str)
    assert caught.value.code == "BATCH_SIZE_EXCEEDED"
    with pytest.raises(RefusedError) as caught:
        parse_batch(msgspec.json.encode({"jobs": [{"type": "a", "args": ["x" * 300]}]}), small, str)
    assert caught.value.code == "PayloadTooLarge"


@pytest.mark.parametrize("body", [b"{}", b'{"jobs":{}}', b'{"jobs":[]}', b'{"jobs":null}'])
def test_a_batch_needs_jobs(body: bytes) -> None:
    with pytest.raises(RefusedError, match="jobs") as caught:
        parse_batch(body, RULES, str)
    assert caught.value.code == "invalid_request"


def test_a_batch_keeps_order_and_names_the_bad_one() -> None:
    jobs = parse_batch(b'{"jobs":[{"type":"a","args":[1e400]},{"type":"b","args":[]}]}', RULES, str)
    assert [job.type for job in jobs] == ["a", "b"]
    assert bytes(jobs[0].args) == b"[1e400]"
    for bad in (b"1", b'{"type":"B","args":[]}'):
        with pytest.raises(RefusedError) as caught:
            parse_batch(b'{"jobs":[{"type":"a","args":[]},%s]}' % bad, RULES, str)
        assert caught.value.details["index"] == 1


def test_one_id_twice_in_a_batch_is_a_duplicate() -> None:
    job = {"type": "a", "args": [], "id": NEW_ID}
    with pytest.raises(RefusedError) as caught:
        parse_batch(msgspec.json.encode({"jobs": [job, job]}), RULES, str)
    assert caught.value.code == "duplicate"
    assert caught.value.details == {"existing_job_id": NEW_ID, "index": 1}
