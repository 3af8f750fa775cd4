"""Meters: what is counted once, what is bounded, and how a histogram's bounds are meant."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from ojs_stream.core.commands import Ack, Activate, Cancel
from ojs_stream.telemetry.jobs import SERIES_MAX, JobMeter, JobMeters
from ojs_stream.telemetry.loop import LoopMeter
from ojs_stream.telemetry.meters import OTHER, QUEUES_MAX, Histogram, HomeMeter, WebMeter
from tests.support.builders import MINUTE, SECOND, Fold, command, enqueue, job, nack, policy


def counted(fold: Fold, *, restored: bool = False) -> JobMeter:
    """The meter of the default queue after everything that has happened."""
    meters = JobMeters()
    for event in fold.sent:
        meters.on_event(msgspec.structs.replace(event, job=None) if restored else event)
    found = dict(meters.series())
    assert list(found) == [("default", "email.send")]
    return found["default", "email.send"]


def totals(meter: JobMeter) -> dict[str, int]:
    names = ("enqueued", "completed", "failed", "retried", "cancelled", "expired")
    return {name: getattr(meter, name) for name in names if getattr(meter, name)}


def seconds(histogram: Histogram) -> tuple[int, float]:
    """How many, and their sum."""
    return sum(histogram.counts), histogram.total


def test_a_bound_belongs_to_its_bucket_and_what_is_above_all_of_them_counts() -> None:
    histogram = Histogram((1, 2))
    for value in (0.5, 1, 1.5, 2, 2.5):
        histogram.observe(value)
    assert (histogram.counts, histogram.total) == ([2, 2, 1], 7.5)


def test_a_job_that_waits_and_runs_is_timed() -> None:
    fold = Fold()
    made = fold.put()
    fold.now += 3 * SECOND
    fold.take()
    fold.do(command(Ack, job_id=made), after=7 * SECOND)
    meter = counted(fold)
    assert totals(meter) == {"enqueued": 1, "completed": 1}
    assert seconds(meter.queue_time) == (1, 3.0)
    assert {state: seconds(times) for state, times in meter.durations.items()} == {"completed": (1, 7.0)}


def test_a_retried_job_is_enqueued_once_and_only_its_last_attempt_is_its_duration() -> None:
    fold = Fold()
    made = fold.active(retry=policy(max_attempts=2))
    fold.do(nack(made), after=5 * SECOND)
    fold.ticks(after=SECOND)
    assert fold.take() == [made]
    fold.do(nack(made), after=2 * SECOND)
    meter = counted(fold)
    assert totals(meter) == {"enqueued": 1, "retried": 1, "failed": 1}
    assert seconds(meter.queue_time) == (1, 0.0)
    assert {state: seconds(times) for state, times in meter.durations.items()} == {"discarded": (1, 2.0)}


def test_a_scheduled_job_counts_when_it_is_stored_not_again_when_it_is_due() -> None:
    fold = Fold()
    fold.put(delay_ms=MINUTE)
    fold.ticks(after=2 * MINUTE)
    assert fold.take()
    meter = counted(fold)
    assert totals(meter) == {"enqueued": 1}


def test_a_pending_job_counts_once_even_if_it_is_activated_in_the_same_moment() -> None:
    fold = Fold()
    fold.do(command(Activate, job_id=fold.put(pending=True)))
    assert totals(counted(fold)) == {"enqueued": 1}


@pytest.mark.parametrize("ran", [True, False])
def test_a_cancelled_job_has_a_duration_only_if_it_was_running(ran: bool) -> None:
    fold = Fold()
    made = fold.active()
    if not ran:
        fold.do(nack(made), after=SECOND)
    fold.do(command(Cancel, job_id=made), after=SECOND)
    meter = counted(fold)
    assert meter.cancelled == 1
    assert list(meter.durations) == (["cancelled"] if ran else [])


def test_an_expired_job_is_a_failed_one_as_well() -> None:
    fold = Fold()
    fold.put(expires_in_ms=SECOND)
    fold.ticks(after=MINUTE)
    assert totals(counted(fold)) == {"enqueued": 1, "failed": 1, "expired": 1}


def test_events_that_a_restart_sends_again_count_by_their_names() -> None:
    fold = Fold()
    made = fold.active()
    fold.do(command(Ack, job_id=made))
    meter = counted(fold, restored=True)
    assert totals(meter) == {"completed": 1}
    assert meter.durations == {}


def test_queues_and_types_beyond_the_bound_share_one_series() -> None:
    fold, meters = Fold(), JobMeters()
    for number in range(SERIES_MAX + 3):
        fold.put(type=f"kind-{number}.run")
    for event in fold.sent:
        meters.on_event(event)
    found = dict(meters.series())
    assert len(found) == SERIES_MAX + 1
    assert found[OTHER, OTHER].enqueued == 3


def test_enqueue_times_of_queues_beyond_the_bound_share_one_series() -> None:
    meter = WebMeter()
    for number in range(QUEUES_MAX + 2):
        meter.enqueued(f"queue-{number}", 0.1)
    found = dict(meter.enqueues())
    assert len(found) == QUEUES_MAX + 1
    assert sum(found[OTHER].counts) == 2


def test_a_route_counts_its_answers_by_status() -> None:
    route = WebMeter().route("GET", "/x/{id}")
    route.answered(200, 0.001)
    route.answered(200, 0.002)
    route.answered(404, 0.003)
    assert route.statuses == {200: 2, 404: 1}
    assert seconds(route.times) == (3, pytest.approx(0.006))


def test_a_home_counts_rounds_records_and_commands() -> None:
    meter = HomeMeter()
    meter.committed(2, 30)
    meter.committed(1, 1)
    assert (meter.records, *seconds(meter.rounds)) == (3, 2, 31)


async def test_the_loop_meter_notes_how_late_it_wakes() -> None:
    meter = LoopMeter()
    await asyncio.gather(meter.run_once(), meter.run_once())
    assert sum(meter.lag.counts) == 2
    assert meter.lag.total >= 0


def test_the_jobs_of_a_batch_count_each() -> None:
    fold = Fold()
    fold.do(enqueue(*(job() for _ in range(5))))
    assert totals(counted(fold)) == {"enqueued": 5}
