"""Bodies of queue configurations, purges and deletions: every field, its refusals, and how it is read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from ojs_stream.core.config import filled, is_allowed, layered
from ojs_stream.core.config_body import parse_config_body, parse_new_queue
from ojs_stream.core.config_shown import period, shown, system_config
from ojs_stream.core.queue_bodies import PURGED_BY_DEFAULT, parse_delete, parse_purge
from ojs_stream.core.records import ConfigRecord, RetryDefaults, Window
from ojs_stream.core.retry import DEFAULT_POLICY
from ojs_stream.errors import RefusedError
from tests.support.builders import DAY, HOUR, KEEP, MINUTE, SECOND, START, job

SET: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"max_size": 0}, {"max_size": 0}),
    ({"max_size": 7, "overflow_policy": "reject", "max_size_bytes": 0}, {"max_size": 7}),
    ({"backpressure": {"max_depth": 2, "strategy": "reject"}}, {"max_size": 2}),
    ({"backpressure": {"warning_threshold": 1}}, {"warning_threshold": 1.0}),
    ({"backpressure": None}, {"max_size": None, "warning_threshold": None}),
    ({"concurrency": 5}, {"concurrency": 5}),
    ({"concurrency": None}, {"concurrency": 0}),
    ({"rate_limit": {"limit": 2000, "period": "PT1H"}}, {"rate_limit": Window(2000, HOUR)}),
    ({"rate_limit": {"limit": 1, "period_ms": 5}}, {"rate_limit": Window(1, 5)}),
    ({"rate_limit": None}, {"rate_limit": None}),
    ({"visibility_timeout": 300, "default_timeout": 60}, {"visibility_timeout_ms": 300_000}),
    ({"visibility_timeout_ms": 5, "default_timeout_ms": 6}, {"default_timeout_ms": 6}),
    ({"default_retry": {"max_attempts": 5}}, {"retry": RetryDefaults(max_attempts=5)}),
    ({"default_retry": None}, {"retry": None}),
    ({"retention": "7d"}, {"completed_ms": 7 * DAY, "cancelled_ms": 7 * DAY, "discarded_ms": 7 * DAY}),
    ({"retention": {"completed": "P14D", "dead_letter": "P1D"}}, {"completed_ms": 14 * DAY, "dead_ms": DAY}),
    ({"retention": {"completed": None}}, {"completed_ms": None}),
    ({"dead_letter_ttl": "P30D"}, {"dead_ms": 30 * DAY}),
    ({"allowed_job_types": ["a.*", "b"]}, {"allowed_job_types": ("a.*", "b")}),
    ({"allowed_job_types": ["*"], "producers": ["*"]}, {"allowed_job_types": None}),
    ({"config": {"max_size": 3}}, {"max_size": 3}),
    ({"dead_letter_queue": None}, {}),
]


@pytest.mark.parametrize(("body", "fields"), SET, ids=lambda part: json.dumps(part, default=str)[:60])
def test_what_a_body_sets(body: dict[str, Any], fields: dict[str, Any]) -> None:
    parsed = parse_config_body("q", json.dumps(body).encode())
    assert {name: getattr(parsed.config, name) for name in fields} == fields
    assert set(fields) <= set(parsed.names)


WRONG: list[tuple[Any, str, str]] = [
    ([], "invalid_payload", "object"),
    ({"max_sizes": 1}, "invalid_request", "max_sizes"),
    ({"max_size": -1}, "invalid_request", "max_size"),
    ({"max_size": True}, "invalid_request", "max_size"),
    ({"max_size": 2.5}, "invalid_request", "max_size"),
    ({"concurrency": "5"}, "invalid_request", "concurrency"),
    ({"max_size_bytes": 5}, "unsupported", "max_size_bytes"),
    ({"overflow_policy": "drop_oldest"}, "unsupported", "drop_oldest"),
    ({"overflow_policy": "explode"}, "invalid_request", "overflow_policy"),
    ({"backpressure": {"strategy": "block"}}, "unsupported", "block"),
    ({"backpressure": {"max_size_bytes": 5}}, "unsupported", "max_size_bytes"),
    ({"backpressure": {"depth": 5}}, "invalid_request", "backpressure.depth"),
    ({"backpressure": {"warning_threshold": 1.5}}, "invalid_request", "warning_threshold"),
    ({"backpressure": 5}, "invalid_request", "backpressure"),
    ({"rate_limit": {"limit": 0, "period": "PT1S"}}, "invalid_request", "rate_limit.limit"),
    ({"rate_limit": {"limit": 1}}, "invalid_request", "rate_limit.period"),
    ({"rate_limit": {"limit": 1, "burst": 2}}, "invalid_request", "rate_limit.burst"),
    ({"default_timeout": 0}, "invalid_request", "default_timeout"),
    ({"retention": 7}, "invalid_request", "retention"),
    ({"retention": "soon"}, "invalid_request", "retention"),
    ({"retention": "PT0S"}, "invalid_request", "retention"),
    ({"retention": {"active": "P1D"}}, "invalid_request", "retention.active"),
    ({"default_retry": 5}, "invalid_request", "default_retry"),
    ({"default_retry": {"max_attempts": -1}}, "invalid_request", "max_attempts"),
    ({"allowed_job_types": "a"}, "invalid_request", "allowed_job_types"),
    ({"allowed_job_types": ["a*b"]}, "invalid_request", "allowed_job_types"),
    ({"dead_letter_queue": "dlq"}, "unsupported", "dead_letter_queue"),
    ({"dead_letter_max_size": 5}, "unsupported", "dead_letter_max_size"),
    ({"producers": ["me"]}, "unsupported", "producers"),
    ({"attest_policy": {}}, "unsupported", "attest_policy"),
    ({"config": 5}, "invalid_request", "config"),
    ({"config": {}, "max_size": 5}, "invalid_request", "config"),
]


@pytest.mark.parametrize(("body", "code", "word"), WRONG, ids=lambda part: json.dumps(part)[:60])
def test_what_is_refused_says_which_field(body: Any, code: str, word: str) -> None:
    with pytest.raises(RefusedError) as refused:
        parse_config_body("q", json.dumps(body).encode())
    assert refused.value.code == code
    assert word in refused.value.message


def test_a_new_queue_has_a_name_and_its_fields_beside_it_or_under_config() -> None:
    for body in (b'{"name": "mail", "max_size": 3}', b'{"name": "mail", "config": {"max_size": 3}}'):
        name, parsed = parse_new_queue(body)
        assert (name, parsed.config.max_size) == ("mail", 3)
    for body in (b"{}", b'{"name": "_default"}', b'{"name": 5}'):
        with pytest.raises(RefusedError, match="name"):
            parse_new_queue(body)


def test_what_is_set_reads_as_it_was_written() -> None:
    body = {
        "max_size": 100,
        "overflow_policy": "reject",
        "backpressure": {"max_depth": 100, "strategy": "reject", "warning_threshold": 0.5},
        "concurrency": 20,
        "rate_limit": {"limit": 5, "period": "PT1M"},
        "visibility_timeout": 300,
        "visibility_timeout_ms": 300_000,
        "default_retry": {"max_attempts": 5, "initial_interval": "PT5S", "backoff_coefficient": 3.0},
        "retention": {"completed": "P3D", "discarded": "PT36H"},
        "allowed_job_types": ["payment.*"],
    }
    config = parse_config_body("q", json.dumps(body).encode()).config
    assert shown(config) == body
    assert shown(None) == shown(ConfigRecord(name="q")) == {}


def test_what_is_in_force_names_everything() -> None:
    system = system_config(KEEP, DEFAULT_POLICY, timeout_ms=MINUTE, visibility_ms=1_500)
    own = ConfigRecord(name="q", discarded_ms=DAY, retry=RetryDefaults(max_attempts=9))
    told = shown(layered(own, system))
    assert told["retention"] == {
        "completed": "P7D",
        "cancelled": "P7D",
        "discarded": "P1D",
        "dead_letter": "P180D",
    }
    assert (told["default_timeout"], told["visibility_timeout"], told["visibility_timeout_ms"]) == (60, 2, 1_500)
    assert told["default_retry"]["max_attempts"] == 9
    assert told["default_retry"]["max_interval"] == "PT300S"
    assert told["backpressure"]["max_depth"] == 0
    forever = system_config(structs.replace(KEEP, dead_ms=-1), DEFAULT_POLICY, timeout_ms=1, visibility_ms=1)
    assert "dead_letter" not in shown(forever)["retention"]


@pytest.mark.parametrize(
    ("ms", "text"), [(2 * DAY, "P2D"), (90 * MINUTE, "PT90M"), (3 * HOUR, "PT3H"), (1_500, "PT1.5S")]
)
def test_periods_are_short(ms: int, text: str) -> None:
    assert period(ms) == text


def test_zero_lifts_the_bound_of_the_template_and_silence_keeps_it() -> None:
    template = ConfigRecord(name="_default", max_size=5, concurrency=3, draining=True, version=7)
    laid = layered(ConfigRecord(name="q", max_size=0), template)
    assert laid is not None
    assert (laid.name, laid.max_size, laid.concurrency) == ("q", 0, 3)
    assert (laid.draining, laid.version) == (False, 0), "these are of one queue alone"


def test_types_match_exactly_or_by_their_beginning() -> None:
    config = ConfigRecord(name="q", allowed_job_types=("email.*", "sms"))
    assert [is_allowed(config, each) for each in ("email.send", "sms", "sms.send", "emails")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_job_that_lives_by_its_own_word_is_not_touched() -> None:
    own = job(given=("timeout_ms", "visibility_timeout_ms", "retention.completed_ms", "retry.max_attempts"))
    config = ConfigRecord(
        name="q",
        default_timeout_ms=1,
        visibility_timeout_ms=1,
        completed_ms=1,
        retry=RetryDefaults(max_attempts=9),
    )
    assert filled(own, config) == own


# -- purge and deletion ---------------------------------------------------------------------------------------


def test_a_purge_of_a_client_empties_what_waits() -> None:
    assert parse_purge(b"", START, careful=False).states == PURGED_BY_DEFAULT
    assert "active" not in PURGED_BY_DEFAULT
    asked = parse_purge(b'{"states": ["completed"], "older_than": "7d"}', START, careful=False)
    assert (asked.states, asked.before) == (("completed",), START - 7 * DAY)
    at = parse_purge(b'{"states": ["discarded"], "older_than": "1970-01-01T00:00:10Z"}', START, careful=False)
    assert at.before == 10 * SECOND


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"{}", "confirm"),
        (b'{"states": ["completed"]}', "confirm"),
        (b'{"states": ["completed"], "confirm": "true"}', "confirm"),
        (b'{"confirm": true}', "states"),
        (b'{"states": [], "confirm": true}', "states"),
        (b'{"states": ["lost"], "confirm": true}', "states"),
        (b'{"states": [["active"]], "confirm": true}', "states"),
        (b'{"states": ["available"], "older_than": "1d", "confirm": true}', "older_than"),
        (b'{"states": ["completed"], "older_than": 5, "confirm": true}', "older_than"),
        (b'{"states": ["completed"], "older_than": "soon", "confirm": true}', "older_than"),
    ],
)
def test_an_operators_purge_is_careful(body: bytes, word: str) -> None:
    with pytest.raises(RefusedError, match=word) as refused:
        parse_purge(body, START, careful=True)
    assert refused.value.code == "invalid_request"


def test_a_deletion_rejects_unless_it_says_more() -> None:
    assert parse_delete("q", b"").strategy == "reject"
    assert parse_delete("q", b'{"strategy": "discard", "target_queue": "x"}').target == ""
    assert parse_delete("q", b'{"strategy": "move", "target_queue": "x"}').target == "x"
    for body in (b'{"strategy": "burn"}', b'{"strategy": []}', b'{"strategy": "move"}'):
        with pytest.raises(RefusedError):
            parse_delete("q", body)
    with pytest.raises(RefusedError, match="another queue"):
        parse_delete("q", b'{"strategy": "move", "target_queue": "q"}')
