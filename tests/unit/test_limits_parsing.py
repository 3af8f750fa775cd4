"""What clients and operators may say of limits (OJS.md 5.5), and what they are told when it is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ojs_stream.core.homes import home_of
from ojs_stream.core.limits import limit_home, parse_override, parse_queue_limit
from ojs_stream.core.records import LimitRule, Override, QueueLimit, Window
from ojs_stream.core.validation import Rules, parse_job
from ojs_stream.errors import RefusedError
from tests.support.builders import KEEP, START, server_id

RULES = Rules(retention=KEEP, homes=8)


def _rule(given: Any, *, top: bool = False) -> LimitRule | None:
    body = {"type": "a.b", "args": [], "rate_limit": given} if top else {
        "type": "a.b", "args": [], "options": {"queue": "mail", "rate_limit": given}
    }  # fmt: skip
    return parse_job(json.dumps(body).encode(), RULES, lambda _: server_id(0)).limit


FORMS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_per_second": 3}, {"key": "queue:mail", "rate": Window(3, 1_000)}),
    ({"key": "k", "concurrency": 0}, {"key": "k", "concurrency": 0}),
    ({"key": "k", "rate": 1, "period": "second"}, {"key": "k", "rate": Window(1, 1_000)}),
    ({"key": "k", "rate": {"limit": 5, "period": "PT1M"}}, {"key": "k", "rate": Window(5, 60_000)}),
    (
        {"key": "k", "throttle": {"limit": 10, "period": "1s"}, "on_limit": "drop"},
        {"key": "k", "throttle": Window(10, 1_000), "on_limit": "drop"},
    ),
    ({"key": "tenant:a.b_c-d", "rate": None}, {"key": "tenant:a.b_c-d"}),
]


@pytest.mark.parametrize(("given", "wanted"), FORMS)
def test_every_form_is_understood(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert _rule(given) == LimitRule(home=limit_home(wanted["key"], 8), **wanted)


def test_a_limit_may_stand_at_the_top_and_lives_with_its_queue_when_its_key_says_so() -> None:
    rule = _rule({"max_per_second": 1}, top=True)
    assert rule is not None
    assert (rule.key, rule.home) == ("queue:default", home_of("default", 8))


WRONG: list[tuple[Any, str]] = [
    (3, "rate_limit must be an object"),
    ({}, "rate_limit.key is required"),
    ({"concurrency": 1}, "rate_limit.key is required"),
    ({"key": "-x"}, "rate_limit.key must start"),
    ({"key": "a/b"}, "rate_limit.key must start"),
    ({"key": "k" * 256}, "rate_limit.key must be at most 255 bytes"),
    ({"key": 1}, "rate_limit.key must start"),
    ({"key": "k", "concurrency": -1}, "rate_limit.concurrency must be an integer from 0"),
    ({"key": "k", "concurrency": True}, "rate_limit.concurrency must be an integer"),
    ({"key": "k", "rate": {"limit": 1}}, "rate_limit.rate.period must be an ISO 8601 duration"),
    ({"key": "k", "rate": {"period": "PT1S"}}, "rate_limit.rate.limit must be an integer from 0"),
    ({"key": "k", "rate": 1}, "rate_limit.period must be an ISO 8601 duration"),
    ({"key": "k", "rate": 1, "period": "PT0S"}, "rate_limit.period must be longer than nothing"),
    ({"key": "k", "rate": 1, "period": "soon"}, "rate_limit.period must be an ISO 8601 duration"),
    (
        {"key": "k", "throttle": {"limit": 0, "period": "PT1S"}},
        "rate_limit.throttle.limit must be an integer from 1",
    ),
    ({"key": "k", "throttle": 5}, "rate_limit.throttle must be an object"),
    ({"key": "k", "on_limit": "explode"}, "rate_limit.on_limit must be one of wait, reschedule, drop"),
    ({"max_per_second": 0}, "rate_limit.max_per_second must be an integer from 1"),
]


@pytest.mark.parametrize(("given", "sentence"), WRONG)
def test_what_is_wrong_is_named(given: Any, sentence: str) -> None:
    with pytest.raises(RefusedError) as refused:
        _rule(given)
    assert refused.value.code == "invalid_request"
    assert refused.value.message.startswith(sentence)


def test_overrides() -> None:
    body = b'{"concurrency":0,"expires_at":"2030-03-17T17:46:40Z"}'
    assert parse_override(body) == Override(concurrency=0, until=START)
    assert parse_override(b'{"limit":5,"period":"minute"}') == Override(rate=Window(5, 60_000))
    for wrong in (b"{}", b'{"concurrency":1,"expires_at":5}', b'{"concurrency":1,"expires_at":"soon"}'):
        with pytest.raises(RefusedError):
            parse_override(wrong)


def test_limits_of_queues() -> None:
    wanted = QueueLimit(concurrency=20, rate=Window(1_000, 3_600_000))
    assert parse_queue_limit(b'{"concurrency":20,"rate":{"limit":1000,"period":"PT1H"}}') == wanted
    assert parse_queue_limit(b'{"limit":2,"period":"second"}') == QueueLimit(rate=Window(2, 1_000))
    for wrong in (
        b'{"throttle":{"limit":1,"period":"PT1S"}}',
        b'{"concurrency":0}',
        b'{"limit":0,"period":"PT1S"}',
    ):
        with pytest.raises(RefusedError):
            parse_queue_limit(wrong)
