"""Time to live (OJS.md 4.8): looked at by claims and by the timers; a job that was begun is not expired."""

from __future__ import annotations

import pytest

from ojs_stream.core.commands import Ack
from tests.support.builders import DAY, SECOND, START, Fold, command, nack, policy, tick
from tests.support.recount import recount_all

DAYS = 5 * DAY
TTL = {"expires_in_ms": 2 * SECOND}


def _gone(fold: Fold, made: str) -> None:
    job = fold.record(made).job
    assert (job.state, job.completed_at, job.error) == ("discarded", None, None)
    assert job.discarded_at is not None
    assert fold.event_types(made)[-1] == "job.expired"
    assert fold.counts() == {"discarded": 1}
    assert recount_all(fold.dumps()) == []


def test_a_waiting_job_is_discarded_by_the_reaper_when_its_time_is_over_and_not_before() -> None:
    fold = Fold()
    made = fold.put(**TTL)
    fold.now = START + 2 * SECOND - 1
    assert fold.do(tick("reap")).data["moved"] == 0
    fold.now += 1
    assert fold.do(tick("reap")).data["moved"] == 1
    _gone(fold, made)
    said = fold.events[-1].data
    assert (said.ttl_ms, said.expired_at) == (2 * SECOND, "2030-03-17T17:46:42.000Z")


def test_a_claim_that_comes_before_the_reaper_gives_nothing_out() -> None:
    fold = Fold()
    made = fold.put(**TTL)
    fold.now += 2 * SECOND
    assert fold.take() == []
    _gone(fold, made)


def test_what_has_expired_before_it_came_is_accepted_and_discarded_at_the_first_look() -> None:
    fold = Fold()
    made = fold.put(expires=START - DAYS)
    assert fold.state(made) == "available"
    assert fold.take() == []
    _gone(fold, made)


def test_a_job_that_was_begun_is_never_expired() -> None:
    fold = Fold()
    made = fold.active(**TTL)
    fold.ticks(after=3 * SECOND)
    assert fold.state(made) == "active"
    assert not fold.do(command(Ack, job_id=made)).refused


def test_a_scheduled_job_is_discarded_when_it_expires_before_it_is_due() -> None:
    fold = Fold()
    made = fold.put(delay_ms=60 * SECOND, **TTL)
    fold.ticks(after=2 * SECOND)
    _gone(fold, made)


def test_a_retry_that_would_come_too_late_does_not_come() -> None:
    fold = Fold()
    made = fold.active(retry=policy(initial_ms=10 * SECOND), **TTL)
    fold.do(nack(made))
    fold.ticks(after=2 * SECOND)
    record = fold.record(made).job
    assert (record.state, record.completed_at, record.next_attempt_at) == ("discarded", None, None)
    assert [error.attempt for error in record.errors] == [1], "the failure is not forgotten"


@pytest.mark.parametrize("by_claim", [True, False])
def test_a_job_that_was_given_back_after_its_time_is_discarded(by_claim: bool) -> None:
    fold = Fold()
    made = fold.active(**TTL)
    fold.do(nack(made, requeue=True), after=3 * SECOND)
    assert fold.state(made) == "available"
    if by_claim:
        assert fold.take() == []
    else:
        fold.ticks()
    assert fold.state(made) == "discarded"


def test_a_deadline_of_the_whole_job_ends_a_waiting_one_too() -> None:
    fold = Fold()
    made = fold.put(total_timeout_ms=2 * SECOND, timeout_ms=SECOND)
    fold.ticks(after=2 * SECOND)
    assert fold.state(made) == "discarded"


# -- what is due, in growing steps --------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 64, 65, 255])
def test_a_tick_finds_all_that_is_due_however_many_there_are(count: int) -> None:
    fold = Fold()
    for _ in range(count):
        fold.put(delay_ms=SECOND)
    later = [fold.put(delay_ms=60 * SECOND) for _ in range(20)]
    fold.now += SECOND
    assert fold.do(tick("run")).data == {"moved": count, "more": False}
    assert fold.counts() == {"scheduled": len(later), **({"available": count} if count else {})}


def test_a_tick_that_is_full_asks_for_another() -> None:
    fold = Fold()
    for _ in range(260):
        fold.put(delay_ms=SECOND)
    fold.now += SECOND
    assert fold.do(tick("run")).data == {"moved": 256, "more": True}
    assert fold.do(tick("run")).data == {"moved": 4, "more": False}


def test_a_claim_among_many_scheduled_jobs_promotes_what_is_due() -> None:
    fold = Fold()
    due = [fold.put(delay_ms=SECOND + number) for number in range(40)]
    for _ in range(40):
        fold.put(delay_ms=60 * SECOND)
    fold.now += 2 * SECOND
    assert fold.take(count=3) == due[:3]
    assert fold.counts() == {"active": 3, "available": 37, "scheduled": 40}
