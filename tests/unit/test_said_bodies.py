"""Bodies of progress, checkpoints, maintenance, directives and dead-letter filters: what is refused, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import UNSET

from ojs_stream.core.bodies import DIRECTED_MAX, parse_directive
from ojs_stream.core.maintenance_body import MaintenanceBody, parse_maintenance
from ojs_stream.core.said_bodies import (
    CHECKPOINT_BYTES_MAX,
    PROGRESS_BYTES_MAX,
    parse_checkpoint,
    parse_report,
)
from ojs_stream.core.selection import DeadFilter, parse_dead_filter
from ojs_stream.errors import RefusedError

NOW = 1_900_000_000_000


@pytest.mark.parametrize(
    ("body", "fraction"),
    [
        (b'{"progress":0.5}', 0.5),
        (b'{"progress":1.5}', 1.0),
        (b'{"progress":-1}', 0.0),
        (b'{"progress":1e400}', 1.0),
        (b'{"progress":123456789012345678901234567890}', 1.0),
        (b'{"percentage":42}', 0.42),
        (b'{"percentage":0}', 0.0),
        (b'{"progress":0.5,"percentage":10}', 0.5),
        (b'{"message":"only words"}', None),
        (b'{"data":{"x":1}}', None),
    ],
)
def test_a_number_out_of_range_is_clamped(body: bytes, fraction: float | None) -> None:
    assert parse_report(body, job_id="j").fraction == fraction


def test_a_report_keeps_its_bytes_and_bounds_its_words() -> None:
    body = b'{"job_id":"j","worker_id":"w","percentage":1,"message":"%s","data":{"x":1.50},"checkpoint":[1e400]}'
    said = parse_report(body % (b"m" * 2_000))
    assert (said.job_id, said.worker_id, len(said.message or "")) == ("j", "w", 1_000)
    assert said.data is not UNSET
    assert said.checkpoint is not UNSET
    assert (bytes(said.data), bytes(said.checkpoint)) == (b'{"x":1.50}', b"[1e400]")
    assert parse_report(b'{"id":"j","progress":1,"worker_id":""}').worker_id == ""


def test_a_checkpoint_may_have_any_state() -> None:
    for state in (b"null", b"1", b'"x"', b"[1]", b"{}"):
        given = parse_checkpoint(b'{"state":' + state + b',"step_index":3,"metadata":{"a":"b"}}')
        assert (bytes(given.state), given.step_index) == (state, 3)
    assert parse_checkpoint(b'{"state":1,"metadata":null}').metadata is UNSET


HUGE = b'"' + b"x" * CHECKPOINT_BYTES_MAX + b'"'
REFUSED: list[tuple[Callable[[bytes], Any], bytes, str, str]] = [
    (parse_report, b"{}", "invalid_request", "progress"),
    (parse_report, b'{"progress":1}', "invalid_request", "job_id"),
    (parse_report, b'{"job_id":1,"progress":1}', "invalid_request", "job_id"),
    (parse_report, b'{"job_id":"j","progress":"1"}', "invalid_request", "progress"),
    (parse_report, b'{"job_id":"j","progress":true}', "invalid_request", "progress"),
    (parse_report, b'{"job_id":"j","message":1}', "invalid_request", "message"),
    (parse_report, b'{"job_id":"j","data":[]}', "invalid_request", "data"),
    (parse_report, b'{"job_id":"j","progress":1,"worker_id":7}', "invalid_request", "worker_id"),
    (
        parse_report,
        b'{"job_id":"j","data":{"x":"' + b"x" * PROGRESS_BYTES_MAX + b'"}}',
        "PayloadTooLarge",
        "data",
    ),
    (parse_report, b'{"job_id":"j","progress":1,"checkpoint":' + HUGE + b"}", "PayloadTooLarge", "checkpoint"),
    (parse_checkpoint, b"{}", "invalid_request", "state"),
    (parse_checkpoint, b'{"state":1,"step_index":-1}', "invalid_request", "step_index"),
    (parse_checkpoint, b'{"state":1,"step_index":1.5}', "invalid_request", "step_index"),
    (parse_checkpoint, b'{"state":1,"metadata":1}', "invalid_request", "metadata"),
    (parse_checkpoint, b'{"state":' + HUGE + b"}", "PayloadTooLarge", "state"),
    (parse_maintenance, b"{}", "invalid_request", "enabled"),
    (parse_maintenance, b'{"enabled":true,"reason":1}', "invalid_request", "reason"),
    (parse_maintenance, b'{"enabled":true,"duration":"soon"}', "invalid_request", "duration"),
    (parse_directive, b'{"directive":"dance"}', "invalid_request", "directive"),
    (parse_directive, b"{}", "invalid_request", "directive"),
    (parse_directive, b'{"directive":"quiet","worker_ids":[]}', "invalid_request", "worker_ids"),
    (parse_directive, b'{"directive":"quiet","worker_ids":[1]}', "invalid_request", "worker_ids"),
]


@pytest.mark.parametrize(("parse", "body", "code", "name"), REFUSED)
def test_what_is_wrong_is_named(parse: Callable[[bytes], Any], body: bytes, code: str, name: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parse(body)
    assert caught.value.code == code
    assert name in caught.value.message


def test_maintenance_may_say_how_long_it_takes() -> None:
    asked = parse_maintenance(b'{"enabled":true,"reason":"upgrade","estimated_duration":"PT30M","duration":"1m"}')
    assert asked == MaintenanceBody(enabled=True, reason="upgrade", length_ms=30 * 60_000)
    assert parse_maintenance(b'{"enabled":true,"duration":"15m"}').length_ms == 15 * 60_000
    assert parse_maintenance(b'{"enabled":false}') == MaintenanceBody(enabled=False, reason="", length_ms=0)


def test_directives_are_for_all_or_for_some() -> None:
    assert parse_directive(b'{"directive":"resume"}') == ("running", ())
    assert parse_directive(b'{"directive":"terminate","worker_ids":["a","b"]}') == ("terminate", ("a", "b"))
    many = b",".join([b'"w"'] * (DIRECTED_MAX + 1))
    with pytest.raises(RefusedError, match="worker_ids"):
        parse_directive(b'{"directive":"quiet","worker_ids":[' + many + b"]}")


def test_dead_letters_are_meant_by_a_filter_that_is_spelled_right() -> None:
    body = b'{"filter":{"queue":"q","type":"a.*","error_type":"Boom","older_than":"1h"},"confirm":true}'
    assert parse_dead_filter(body, NOW) == DeadFilter(
        queue="q", type="a.*", error_type="Boom", until=NOW - 3_600_000
    )
    assert parse_dead_filter(b'{"confirm":true}', NOW) == DeadFilter()
    for wrong in (
        b'{"filter":{}}',
        b'{"filter":[],"confirm":true}',
        b'{"filter":{"queues":"q"},"confirm":true}',
        b'{"filter":{"queue":1},"confirm":true}',
        b'{"filter":{"older_than":"soon"},"confirm":true}',
    ):
        with pytest.raises(RefusedError):
            parse_dead_filter(wrong, NOW)
