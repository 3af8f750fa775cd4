"""Claim: who gets which job, in which order, and what is done in passing."""

from __future__ import annotations

import pytest

from ojs_stream.core.commands import Pause, Resume
from tests.support.builders import MINUTE, SECOND, Fold, claim, command, enqueue, job, jobs_of, nack
from tests.support.recount import recount_all


def test_higher_priority_first_then_first_in_first_out() -> None:
    fold = Fold()
    low, high, normal, high_too = (fold.put(priority=p) for p in (-10, 10, 0, 10))
    assert fold.take(count=10) == [high, high_too, normal, low]


def test_the_bounds_of_priority_keep_their_order() -> None:
    fold = Fold()
    ids = [fold.put(priority=p) for p in (-100, 100, 0)]
    assert fold.take(count=3) == [ids[1], ids[2], ids[0]]


def test_many_jobs_of_one_record_keep_their_order() -> None:
    fold = Fold()
    asked = [job() for _ in range(300)]
    fold.do(enqueue(*asked))
    taken = [one for _ in range(30) for one in fold.take(count=10)]
    assert taken == [each.id for each in asked]


def test_many_claims_of_one_record_each_get_their_own_jobs() -> None:
    fold = Fold()
    asked = [job() for _ in range(300)]
    fold.do(enqueue(*asked))
    outcomes = fold.do_all([claim("none", "default", count=7) for _ in range(43)])
    assert [made["id"] for each in outcomes for made in jobs_of(each)] == [each.id for each in asked]


def test_queues_are_looked_at_from_left_to_right() -> None:
    fold = Fold()
    b, a = fold.put("b", priority=100), fold.put("a", priority=-100)
    assert fold.take("a", "b", count=2) == [a, b]


def test_the_next_queue_fills_up_what_the_first_could_not() -> None:
    fold = Fold()
    fold.put("a")
    ids = [fold.put("b") for _ in range(3)]
    assert fold.take("a", "missing", "b", count=3)[1:] == ids[:2]


def test_an_empty_or_unknown_queue_gives_nothing_and_leaves_no_trace() -> None:
    fold = Fold()
    assert fold.take("nobody") == []
    assert "queue:nobody" not in fold.dump()


def test_a_paused_queue_takes_jobs_and_gives_none_until_it_is_resumed() -> None:
    fold = Fold()
    assert fold.do(command(Pause, queue="default")).data["paused"] is True
    made = fold.put()
    assert fold.take() == []
    fold.do(command(Resume, queue="default"))
    assert fold.take() == [made]
    assert [event.type for event in fold.events if event.subject == "default"] == ["queue.paused", "queue.resumed"]


def test_pausing_twice_keeps_the_first_moment_and_says_it_once() -> None:
    fold = Fold()
    first = fold.do(command(Pause, queue="q")).data["paused_at"]
    assert fold.do(command(Pause, queue="q"), after=MINUTE).data["paused_at"] == first
    assert len(fold.events) == 1


def test_an_expired_job_is_discarded_in_passing_and_the_next_one_is_claimed() -> None:
    fold = Fold()
    old, good = fold.put(expires_in_ms=SECOND), fold.put()
    fold.now += SECOND
    assert fold.take() == [good]
    assert fold.state(old) == "discarded"
    assert fold.record(old).job.completed_at is None
    assert fold.event_types(old) == ["job.enqueued", "job.expired"]


def test_one_claim_discards_a_bounded_number_of_expired_jobs() -> None:
    fold = Fold()
    fold.do(enqueue(*[job(expires_in_ms=SECOND) for _ in range(150)]))
    good = fold.put()
    fold.now += SECOND
    assert fold.take() == []
    assert fold.counts()["discarded"] == 100
    assert fold.take() == [good]


def test_a_due_scheduled_job_is_promoted_in_passing() -> None:
    fold = Fold()
    made = fold.put(delay_ms=2 * SECOND)
    assert fold.take() == []
    fold.now += 2 * SECOND
    assert fold.take() == [made]
    assert fold.event_types(made) == ["job.scheduled", "job.enqueued", "job.started"]


def test_a_due_retry_is_promoted_in_passing_behind_those_that_wait() -> None:
    fold = Fold()
    failed, waiting = fold.put(), fold.put()
    assert fold.take() == [failed]
    fold.do(nack(failed))
    fold.now += SECOND
    assert fold.take(count=2) == [waiting, failed]
    assert fold.record(failed).job.attempt == 2


def test_a_scheduled_job_that_expired_before_it_was_due_is_not_given_out() -> None:
    fold = Fold()
    made = fold.put(delay_ms=2 * SECOND, expires_in_ms=SECOND)
    fold.now += 2 * SECOND
    assert fold.take() == []
    assert fold.state(made) == "discarded"


@pytest.mark.parametrize(("asked", "lease"), [(0, 7 * SECOND), (3 * SECOND, 3 * SECOND)])
def test_the_visibility_of_the_claim_beats_that_of_the_job(asked: int, lease: int) -> None:
    fold = Fold()
    made = (
        fold.active(visibility_timeout_ms=7 * SECOND) if not asked else fold.put(visibility_timeout_ms=7 * SECOND)
    )
    if asked:
        fold.take(visibility_ms=asked)
    assert fold.record(made).ctl.lease == fold.now + lease
    assert fold.record(made).job.visibility_timeout_ms == 7 * SECOND


def test_a_claim_counts_the_attempt_and_names_the_worker() -> None:
    fold = Fold()
    fold.put()
    (taken,) = jobs_of(fold.do(claim(worker="me")))
    assert (taken["attempt"], taken["worker_id"], taken["state"]) == (1, "me", "active")


def test_a_claim_without_worker_has_no_lease_index() -> None:
    fold = Fold()
    fold.put()
    fold.take(worker="")
    assert not any(name.startswith("leases:") for name in fold.dump())
    assert recount_all(fold.dumps()) == []
