"""Registrations of cron entries: both forms, every rule with the words of its refusal."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw, structs

from ojs_stream.core.cron import (
    CronRequest,
    check_expression,
    every_ms,
    fields_of,
    is_switch,
    parse_change,
    parse_cron,
)
from ojs_stream.core.records import CronRecord, Retention
from ojs_stream.core.validation import Rules
from ojs_stream.errors import RefusedError

RULES = Rules(retention=Retention(completed_ms=7, cancelled_ms=7, discarded_ms=30, dead_ms=180))
PLAIN = {"name": "daily", "cron": "0 9 * * *", "type": "report.make"}


def parse(**fields: Any) -> CronRequest:
    return parse_cron(msgspec.json.encode(PLAIN | fields), RULES)


def refused(**fields: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        parse(**fields)
    return caught.value


# -- both forms ---------------------------------------------------------------------------------------------


def test_the_form_of_the_suite_and_the_form_of_the_sdks_give_the_same() -> None:
    options = {"queue": "reports", "retry": {"max_attempts": 5}, "timeout_ms": 1_000}
    job = {"type": "report.make", "args": [{"a": 1}], "options": options}
    flat = parse(timezone="Asia/Tokyo", overlap_policy="allow", enabled=True, description="d", **job)
    nested = parse_cron(
        msgspec.json.encode(
            {
                "name": "daily",
                "expression": "0 9 * * *",
                "timezone": "Asia/Tokyo",
                "overlap_policy": "allow",
                "enabled": True,
                "description": "d",
                "job_template": job,
            }
        ),
        RULES,
    )
    assert structs.replace(flat, template=Raw(b"")) == structs.replace(nested, template=Raw(b""))
    assert msgspec.json.decode(flat.template) == msgspec.json.decode(nested.template) == job
    assert (flat.job.queue, flat.job.retry.max_attempts, flat.job.timeout_ms) == ("reports", 5, 1_000)


def test_what_is_not_said_has_the_defaults_of_the_specification() -> None:
    made = parse()
    assert (made.timezone, made.overlap, made.enabled, made.description) == ("UTC", "skip", None, None)
    assert (made.job.queue, bytes(made.job.args), made.job.type) == ("default", b"[]", "report.make")


@pytest.mark.parametrize("name", ["expression", "cron", "schedule"])
def test_an_expression_has_three_names(name: str) -> None:
    body = {"name": "daily", "type": "report.make", name: "@hourly"}
    assert parse_cron(msgspec.json.encode(body), RULES).expression == "@hourly"


def test_numbers_of_the_template_stay_as_they_were_written() -> None:
    body = b'{"name":"n","cron":"@daily","type":"a.b","args":[18446744073709551616,1.50],"meta":{"x":1e400}}'
    made = parse_cron(body, RULES)
    assert (bytes(made.job.args), bytes(made.job.meta)) == (b"[18446744073709551616,1.50]", b'{"x":1e400}')
    assert b"18446744073709551616" in bytes(made.template)


def test_what_the_server_says_of_an_entry_is_ignored_when_it_comes_back() -> None:
    made = parse(run_count=7, next_run_at="x", last_run_at=1, created_at=[], status="paused", id="other")
    assert msgspec.json.decode(made.template) == {"type": "report.make", "args": []}


# -- refusals -----------------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": None}, "name is required"),
    ({"name": "Daily"}, "name must start with"),
    ({"name": "-daily"}, "name must start with"),
    ({"name": "a b"}, "name must start with"),
    ({"name": "a" * 256}, "255"),
    ({"name": 7}, "name must start with"),
    ({"cron": None}, "expression is required"),
    ({"cron": ""}, "expression must be"),
    ({"cron": 5}, "expression must be"),
    ({"cron": "* " * 200}, "255"),
    ({"timezone": "+05:00"}, "IANA name"),
    ({"timezone": "UTC+5"}, "America/New_York"),
    ({"timezone": "EST"}, "America/New_York"),
    ({"timezone": "EST5EDT"}, "America/New_York"),
    ({"timezone": "PST"}, "America/New_York"),
    ({"timezone": "localtime"}, "no place"),
    ({"timezone": "../etc/passwd"}, "IANA name"),
    ({"timezone": 5}, "IANA name"),
    ({"overlap_policy": "queue"}, "overlap_policy must be one of"),
    ({"enabled": "yes"}, "enabled must be true or false"),
    ({"description": 5}, "description must be"),
    ({"description": "x" * 2_001}, "2000"),
    ({"job_template": "x"}, "job_template must be an object"),
    ({"job_template": {"args": []}}, "type is required"),
    ({"type": "Bad Type"}, "type must be"),
    ({"args": {}}, "args must be a JSON array"),
    ({"options": {"queue": "Not_A_Queue"}}, "queue must start"),
    ({"options": {"retry": {"max_attempts": -1}}}, "max_attempts"),
    ({"job_template": {"type": "a.b", "args": [], "id": "019461a8-1a2b-7c3d-8e4f-5a6b7c8d9e0f"}}, "id cannot"),
]


@pytest.mark.parametrize(("fields", "words"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_refused_with_a_sentence(fields: dict[str, Any], words: str) -> None:
    assert words in refused(**fields).message


@pytest.mark.parametrize(
    "zone", ["UTC", "GMT", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "Japan"]
)
def test_places_and_utc_are_zones(zone: str) -> None:
    assert parse(timezone=zone).timezone == zone


@pytest.mark.parametrize(
    ("given", "policy"), [("cancel", "cancel_previous"), ("enqueue", "enqueue"), ("skip", "skip")]
)
def test_policies_have_the_names_of_two_texts(given: str, policy: str) -> None:
    assert parse(overlap_policy=given).overlap == policy


# -- expressions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        "* * * * *",
        "*/5 * * * *",
        "0 9-17 * JAN-MAR mon,WED",
        "30 */2 1,15 * ?",
        "0 0 L * *",
        "0 0 * * 5#3",
        "0 0 * * 5L",
        "0 0 LW * *",
        "15 30 9 * * 7",
        "@Daily",
        "@yearly",
        "@annually",
        "@monthly",
        "@weekly",
        "@midnight",
        "@hourly",
        "@every 1s",
        "@every 1h30m",
        "@every 1.5h",
        "@every 1500ms",
        "0 0 31 * *",
    ],
)
def test_an_expression_is_kept_as_it_was_written(expression: str) -> None:
    assert check_expression(expression) == expression


BAD = {
    "not a valid cron": "4 fields",
    "0 0 0 0 0 0 0": "7 fields",
    "99 25 32 13 8": "minute",
    "* 24 * * *": "hour",
    "* * 0 * *": "day-of-month",
    "* * 32 * *": "day-of-month",
    "* * * 13 *": "month",
    "* * * * 8": "day-of-week",
    "*/0 * * * *": "minute",
    "5-1 * * * *": "minute",
    "1- * * * *": "minute",
    "60 * * * * *": "second",
    "0 0 30 2 *": "day-of-month",
    "? * * * *": "minute",
    "@reboot": "@every",
    "@every": "duration",
    "@every 5": "duration",
    "@every -5s": "duration",
    "@every 500ms": "1000 ms",
    "@every 0s": "1000 ms",
    "@every 999999999999h": "100 years",
}


@pytest.mark.parametrize("expression", BAD)
def test_a_bad_expression_is_refused_with_what_is_wrong_in_it(expression: str) -> None:
    error = refused(cron=expression)
    assert error.code == "invalid_request"
    assert error.details["field"] == "expression"
    assert BAD[expression] in error.message


def test_durations_of_every_add_up() -> None:
    assert every_ms("@every 1h30m") == 5_400_000
    assert every_ms("@every 2m1.5s") == 121_500
    assert every_ms("0 0 * * *") is None


def test_what_names_every_hour_is_told_from_what_names_some() -> None:
    hourly = ["* * * * *", "@hourly", "5 0-23 * * *", "0 */1 * * *", "* * 0-11,12-23 * * *"]
    some = ["0 */2 * * *", "* 3 * * *", "@daily", "0 0-22 * * *"]
    assert [fields_of(expression).hourly for expression in hourly + some] == [True] * 5 + [False] * 4


# -- changes ------------------------------------------------------------------------------------------------


def _entry() -> CronRecord:
    made = parse(args=[1], options={"queue": "reports"}, description="old", timezone="Asia/Tokyo")
    return CronRecord(
        name=made.name,
        expression=made.expression,
        timezone=made.timezone,
        description=made.description,
        overlap="allow",
        template=made.template,
        job=Raw(msgspec.json.encode(made.job)),
        serial=1,
        version=1,
        anchor=0,
        created=0,
        updated=0,
    )


def test_a_change_leaves_alone_what_it_does_not_name() -> None:
    changed = parse_change(b'{"args":[2],"name":"other"}', _entry(), RULES)
    assert (changed.name, changed.expression, changed.timezone) == ("daily", "0 9 * * *", "Asia/Tokyo")
    assert (changed.overlap, changed.description, changed.enabled) == ("allow", "old", None)
    assert (bytes(changed.job.args), changed.job.queue, changed.job.type) == (b"[2]", "reports", "report.make")


def test_a_change_may_name_anything_in_either_form() -> None:
    body = (
        b'{"schedule":"@hourly","timezone":"UTC","overlap_policy":"skip","description":null,"enabled":false,'
        b'"job_template":{"options":{"queue":"x"}}}'
    )
    changed = parse_change(body, _entry(), RULES)
    assert (changed.expression, changed.timezone, changed.overlap) == ("@hourly", "UTC", "skip")
    assert (changed.description, changed.enabled, changed.job.queue) == (None, False, "x")


def test_a_change_is_checked_like_a_registration() -> None:
    with pytest.raises(RefusedError, match="expression"):
        parse_change(b'{"cron":"nope"}', _entry(), RULES)
    with pytest.raises(RefusedError, match="type must"):
        parse_change(b'{"type":"Nope"}', _entry(), RULES)


def test_a_switch_is_told_from_a_change() -> None:
    assert is_switch(b'{"enabled":false}') is False
    assert is_switch(b'{"enabled":true}') is True
    assert is_switch(b'{"enabled":true,"timezone":"UTC"}') is None
    with pytest.raises(RefusedError, match="enabled"):
        is_switch(b'{"enabled":1}')
