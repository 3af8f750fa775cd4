"""Ack, nack, heartbeat, give back, and leases that end by themselves (OJS.md 3.3, 4.2-4.6)."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from ojs_stream.core.commands import Ack, Beat, Cancel, Extend, GiveBack
from tests.support.builders import HOUR, MINUTE, SECOND, Fold, claim, command, jobs_of, nack, policy, tick
from tests.support.recount import recount_all

DEAD = policy(on_exhaustion="dead_letter")
LAST = policy(max_attempts=1)
LAST_DEAD = policy(max_attempts=1, on_exhaustion="dead_letter")
PICKY = policy(non_retryable=("FatalError", "Auth.*"))


def _dead(fold: Fold, job_id: str) -> bool:
    return job_id in fold.dump().get("dead", {})


# -- ack ----------------------------------------------------------------------------------------------------


def test_an_ack_keeps_the_result_and_drops_the_error() -> None:
    fold = Fold()
    made = fold.active()
    fold.do(nack(made))
    fold.now += SECOND
    fold.take()
    (done,) = jobs_of(fold.do(command(Ack, job_id=made, result=Raw(b'{"n":1}')), after=250))
    assert (done["state"], done["result"], done["attempt"]) == ("completed", {"n": 1}, 2)
    assert "error" not in done
    assert [failure["attempt"] for failure in done["errors"]] == [1]
    assert fold.events[-1].data.duration_ms == 250


def test_an_ack_after_the_deadline_but_before_the_tick_counts() -> None:
    fold = Fold()
    made = fold.active(visibility_timeout_ms=SECOND, timeout_ms=SECOND)
    assert not fold.do(command(Ack, job_id=made), after=MINUTE).refused


def test_a_duration_is_never_negative_when_the_clock_stepped_back() -> None:
    fold = Fold()
    made = fold.active()
    fold.do(command(Ack, job_id=made), after=-HOUR)
    assert fold.events[-1].data.duration_ms == 0


@pytest.mark.parametrize("kind", ["ack", "nack"])
def test_another_workers_job_is_a_conflict_and_no_name_is_no_question(kind: str) -> None:
    fold = Fold()
    made = fold.active(worker="me")

    def end(worker: str) -> Any:
        return command(Ack, job_id=made, worker_id=worker) if kind == "ack" else nack(made, worker_id=worker)

    assert fold.do(end("other")).code == "conflict"
    assert fold.state(made) == "active"
    assert not fold.do(end("")).refused


@pytest.mark.parametrize(
    "asked", [command(Ack, job_id="nobody"), nack("nobody"), command(Cancel, job_id="nobody")]
)
def test_an_unknown_job_is_not_found(asked: Any) -> None:
    assert Fold().do(asked).code == "not_found"


# -- the decision order of nack (OJS.md 3.3) ----------------------------------------------------------------

DECISIONS: dict[str, tuple[dict[str, Any], dict[str, Any], str, bool]] = {
    # name: (job, nack, state, dead letter)
    "2 requeue beats retryable=false": ({}, {"requeue": True, "retryable": False}, "available", False),
    "2 requeue beats the last attempt": ({"retry": LAST}, {"requeue": True}, "available", False),
    "2 requeue beats a response code": ({}, {"requeue": True, "code": "DISCARD"}, "available", False),
    "3 DISCARD never is a dead letter": ({"retry": DEAD}, {"code": "DISCARD"}, "discarded", False),
    "3 FAIL never is a dead letter": ({"retry": LAST_DEAD}, {"code": "FAIL"}, "discarded", False),
    "3 DEAD_LETTER ignores on_exhaustion": ({}, {"code": "DEAD_LETTER"}, "discarded", True),
    "3 RETRY goes on below": ({}, {"code": "RETRY"}, "retryable", False),
    "3 RETRY ends with the attempts": ({"retry": LAST}, {"code": "RETRY"}, "discarded", False),
    "4 shutdown beats retryable=false": ({}, {"type": "shutdown", "retryable": False}, "retryable", False),
    "4 ShutdownError beats the list": (
        {"retry": policy(non_retryable=("ShutdownError",))},
        {"type": "ShutdownError"},
        "retryable",
        False,
    ),
    "4 ShutdownTimeout is retryable": ({}, {"type": "ShutdownTimeout"}, "retryable", False),
    "5 retryable=false discards": ({}, {"retryable": False}, "discarded", False),
    "5 retryable=false, dead letters on": ({"retry": DEAD}, {"retryable": False}, "discarded", True),
    "6 the error's type is listed": ({"retry": PICKY}, {"type": "FatalError"}, "discarded", False),
    "6 the error's class is listed": ({"retry": PICKY}, {"error_class": "FatalError"}, "discarded", False),
    "6 the error's code is listed": ({"retry": PICKY}, {"code": "FatalError"}, "discarded", False),
    "6 a prefix is listed": ({"retry": PICKY}, {"type": "Auth.Expired"}, "discarded", False),
    "6 a prefix needs its dot": ({"retry": PICKY}, {"type": "Authority"}, "retryable", False),
    "6 a name is matched as a whole": ({"retry": PICKY}, {"type": "FatalErrors"}, "retryable", False),
    "6 retryable=true does not beat the list": (
        {"retry": PICKY},
        {"type": "FatalError", "retryable": True},
        "discarded",
        False,
    ),
    "7 the last attempt discards": ({"retry": LAST}, {}, "discarded", False),
    "7 the last attempt, dead letters on": ({"retry": LAST_DEAD}, {}, "discarded", True),
    "7 no attempts at all": ({"retry": policy(max_attempts=0)}, {}, "discarded", False),
    "8 the next attempt would not fit": (
        {"total_timeout_ms": 10 * SECOND, "timeout_ms": 9 * SECOND},
        {},
        "discarded",
        False,
    ),
    "8 the next attempt just fits": (
        {"total_timeout_ms": 10 * SECOND, "timeout_ms": 8 * SECOND},
        {},
        "retryable",
        False,
    ),
    "9 else later": ({}, {}, "retryable", False),
    "9 retryable=true is nothing special": ({}, {"retryable": True}, "retryable", False),
}


@pytest.mark.parametrize("name", DECISIONS)
def test_the_verdict_on_a_failure(name: str) -> None:
    new, failure, state, dead = DECISIONS[name]
    fold = Fold()
    made = fold.active(**new)
    (answer,) = jobs_of(fold.do(nack(made, **failure), after=SECOND))
    assert (answer["state"], _dead(fold, made)) == (state, dead)
    assert answer["attempt"] == 1
    assert answer["error"]["message"] == "it broke"
    assert ("completed_at" in answer) == ("discarded_at" in answer) == (state == "discarded")
    assert len(fold.effects_of("dead")) == dead
    assert len(fold.effects_of("retry")) == (state == "retryable")
    assert recount_all(fold.dumps()) == []


def test_rule_1_the_owner_is_asked_before_everything_else() -> None:
    fold = Fold()
    made = fold.active(worker="me")
    assert fold.do(nack(made, worker_id="you", requeue=True)).code == "conflict"


def test_a_retry_says_when() -> None:
    fold = Fold()
    made = fold.active()
    (answer,) = jobs_of(fold.do(nack(made)))
    assert (answer["retry_delay_ms"], answer["next_attempt_at"]) == (1000, "2030-03-17T17:46:41.000Z")
    assert answer["next_retry_at"] == answer["next_attempt_at"]
    fold.now += SECOND
    (again,) = jobs_of(fold.do(claim()))
    assert (again["retry_delay_ms"], again["attempt"]) == (1000, 2)
    assert "next_attempt_at" not in again


def test_the_retry_record_names_job_attempt_and_instant() -> None:
    fold = Fold()
    made = fold.active()
    fold.do(nack(made))
    (effect,) = fold.effects_of("retry")
    assert effect.key == made
    assert b'"attempt":1,"not_before":"2030-03-17T17:46:41.000Z","not_before_ms":' in bytes(effect.value)


def test_errors_are_remembered_in_order_and_bounded() -> None:
    fold = Fold()
    made = fold.active(retry=policy(max_attempts=30))
    for attempt in range(1, 26):
        fold.do(nack(made, message=f"failure {attempt}"))
        fold.now += SECOND
        assert fold.take() == [made]
    job = fold.record(made).job
    assert [failure.attempt for failure in job.errors] == list(range(6, 26))
    assert job.error == job.errors[-1]


def test_details_and_backtrace_are_kept_as_bytes() -> None:
    fold = Fold()
    made = fold.active()
    fold.do(nack(made, details=Raw(b'{"n":18446744073709551616}'), backtrace=Raw(b'["a", "b"]')))
    error = fold.record(made).job.error
    assert error is not None
    assert (bytes(error.details), bytes(error.backtrace)) == (b'{"n":18446744073709551616}', b'["a", "b"]')  # type: ignore[arg-type]


def test_a_requeued_job_goes_to_the_tail_and_keeps_its_attempt() -> None:
    fold = Fold()
    first = fold.active()
    second = fold.put()
    fold.do(nack(first, requeue=True))
    assert fold.record(first).job.attempt == 1
    assert fold.take(count=2) == [second, first]


# -- leases -------------------------------------------------------------------------------------------------


def _pass(fold: Fold, ms: int) -> None:
    """Time goes by with the log awake."""
    end = fold.now + ms
    while fold.now < end:
        fold.now = min(end, fold.now + 2 * SECOND)
        fold.do(tick("reap"))


def test_an_expired_lease_gives_the_old_place_back() -> None:
    fold = Fold()
    first, second = fold.put(visibility_timeout_ms=3 * SECOND), fold.put()
    fold.take()
    _pass(fold, 3 * SECOND)
    job = fold.record(first).job
    assert (job.state, job.attempt, job.worker_id) == ("available", 1, None)
    assert job.error is not None
    assert job.error.type == "visibility_timeout"
    assert fold.take(count=2) == [first, second]


@pytest.mark.parametrize(("retry", "dead"), [(LAST, False), (LAST_DEAD, True)])
def test_a_lease_that_expires_at_the_last_attempt_is_the_end(retry: Any, dead: bool) -> None:
    fold = Fold()
    made = fold.active(retry=retry, visibility_timeout_ms=3 * SECOND)
    _pass(fold, 3 * SECOND)
    assert (fold.state(made), _dead(fold, made)) == ("discarded", dead)


def test_a_job_that_kills_its_workers_ends() -> None:
    fold = Fold()
    made = fold.put(visibility_timeout_ms=3 * SECOND)
    for attempt in (1, 2, 3):
        assert fold.take() == [made]
        assert fold.record(made).job.attempt == attempt
        _pass(fold, 3 * SECOND)
    assert fold.state(made) == "discarded"


def test_the_execution_timeout_wins_over_the_visibility_at_the_same_instant() -> None:
    fold = Fold()
    made = fold.active(visibility_timeout_ms=3 * SECOND, timeout_ms=3 * SECOND)
    _pass(fold, 3 * SECOND)
    job = fold.record(made).job
    assert job.error is not None
    assert (job.state, job.error.type) == ("retryable", "timeout")


def test_heartbeats_extend_the_visibility_by_its_own_length_and_not_the_timeout() -> None:
    fold = Fold()
    made = fold.active(visibility_timeout_ms=3 * SECOND, timeout_ms=7 * SECOND)
    for _ in range(3):
        _pass(fold, 2 * SECOND)
        beat = fold.do(command(Extend, worker_id="w1", job_ids=(made,)))
        assert beat.data == {"extended": [made], "cancelled": []}
        assert fold.record(made).ctl.lease == fold.now + 3 * SECOND
    assert fold.state(made) == "active"
    _pass(fold, SECOND)
    assert fold.state(made) == "retryable"


def test_a_heartbeat_may_ask_for_another_length_once() -> None:
    fold = Fold()
    made = fold.active(visibility_timeout_ms=3 * SECOND)
    fold.do(command(Extend, worker_id="w1", job_ids=(made,), visibility_ms=MINUTE))
    assert fold.record(made).ctl.lease == fold.now + MINUTE
    fold.do(command(Extend, worker_id="w1", job_ids=(made,)))
    assert fold.record(made).ctl.lease == fold.now + 3 * SECOND


def test_a_heartbeat_reaches_only_own_active_jobs_and_names_cancelled_ones() -> None:
    fold = Fold()
    mine, other, gone, waiting = fold.active(), fold.active(worker="w2"), fold.active(), fold.put()
    fold.do(command(Cancel, job_id=gone))
    beat = fold.do(command(Extend, worker_id="w1", job_ids=(mine, other, gone, waiting, "unknown")))
    assert beat.data == {"extended": [mine], "cancelled": [gone]}


def test_what_a_lost_client_claimed_returns_to_its_old_places() -> None:
    fold = Fold()
    ids = [fold.put() for _ in range(3)]
    assert fold.take(count=2) == ids[:2]
    fold.do(command(GiveBack, job_ids=(*ids, "unknown"), worker_id="w1"))
    assert fold.take(count=3) == ids


def test_only_the_holder_gives_a_job_back() -> None:
    fold = Fold()
    made = fold.active(worker="w1")
    fold.do(command(GiveBack, job_ids=(made,), worker_id="w2"))
    assert fold.state(made) == "active"


# -- outages ------------------------------------------------------------------------------------------------


def test_after_an_outage_leases_wait_one_heartbeat_interval() -> None:
    fold = Fold()
    made = fold.active(visibility_timeout_ms=3 * SECOND)
    fold.do(tick("reap"), after=10 * SECOND)
    assert fold.state(made) == "active"
    fold.do(command(Extend, worker_id="w1", job_ids=(made,)), after=4 * SECOND)
    fold.do(tick("reap"), after=2 * SECOND)
    assert fold.state(made) == "active"


def test_a_lease_that_nobody_extends_after_an_outage_ends_with_the_grace() -> None:
    fold = Fold()
    made = fold.active(visibility_timeout_ms=3 * SECOND)
    fold.do(tick("reap"), after=10 * SECOND)
    fold.do(tick("reap"), after=4 * SECOND)
    assert fold.state(made) == "active"
    fold.do(tick("reap"), after=SECOND)
    assert fold.state(made) == "available"


def test_silence_with_nothing_to_watch_is_no_outage() -> None:
    fold = Fold()
    fold.put()
    fold.now += HOUR
    made = fold.active("q", visibility_timeout_ms=3 * SECOND)
    _pass(fold, 3 * SECOND)
    assert fold.state(made) == "available"


def test_workers_get_the_grace_too() -> None:
    fold = Fold()
    fold.do(command(Beat, worker_id="w1", dead_after_ms=6 * SECOND))
    fold.do(tick("reap"), after=10 * SECOND)
    assert not any(event.type == "worker.stopped" for event in fold.events)
    fold.do(tick("reap"), after=5 * SECOND)
    assert fold.events[-1].type == "worker.stopped"
