"""All eight states x all triggers, from OJS.md 1.4 written down here (not from the code's table)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw

from ojs_stream.core.commands import Ack, Activate, Bulk, Cancel, Promote, Reprioritize, RetryDead, RetryJob
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import Retention
from tests.support.builders import DAY, HOUR, MINUTE, SECOND, Fold, claim, command, nack, policy, tick
from tests.support.recount import recount_all

STATES = ("pending", "scheduled", "available", "active", "retryable", "completed", "cancelled", "discarded")

TABLE = """
                 pending   scheduled retryable available active    completed cancelled discarded
claim            nothing   nothing   nothing   active    nothing   nothing   nothing   nothing
ack              conflict  conflict  conflict  conflict  completed conflict  conflict  conflict
nack             conflict  conflict  conflict  conflict  retryable conflict  conflict  conflict
last-nack        conflict  conflict  conflict  conflict  discarded conflict  conflict  conflict
requeue          conflict  conflict  conflict  conflict  available conflict  conflict  conflict
cancel           cancelled cancelled cancelled cancelled cancelled conflict  conflict  conflict
activate         available conflict  conflict  conflict  conflict  conflict  conflict  conflict
backoff-over     nothing   nothing   available nothing   nothing   nothing   nothing   nothing
due              nothing   available available nothing   nothing   nothing   nothing   nothing
visibility-over  nothing   nothing   nothing   nothing   available nothing   nothing   nothing
timeout-over     nothing   nothing   nothing   nothing   retryable nothing   nothing   nothing
total-over       nothing   discarded discarded discarded discarded nothing   nothing   nothing
expired          nothing   discarded discarded discarded nothing   nothing   nothing   nothing
retention-over   nothing   nothing   nothing   nothing   nothing   gone      gone      gone
retry-dead       not_found not_found not_found not_found not_found not_found not_found available
retry-job        conflict  conflict  available conflict  conflict  conflict  available available
reprioritize     conflict  scheduled conflict  available conflict  conflict  conflict  conflict
bulk-cancel      cancelled cancelled cancelled cancelled cancelled nothing   nothing   nothing
bulk-retry       nothing   nothing   available nothing   nothing   nothing   available available
bulk-delete      nothing   nothing   nothing   nothing   nothing   gone      gone      gone
"""

EVENTS = {
    ("available", "active"): ["job.started"],
    ("active", "completed"): ["job.completed"],
    ("active", "retryable"): ["job.failed", "job.retrying"],
    ("active", "discarded"): ["job.failed", "job.discarded"],
    ("active", "available"): ["job.enqueued"],
    ("pending", "available"): ["job.enqueued"],
    ("scheduled", "available"): ["job.enqueued"],
    ("retryable", "available"): ["job.enqueued"],
    ("discarded", "available"): ["job.enqueued"],
    ("cancelled", "available"): ["job.enqueued"],
    ("available", "available"): ["priority.changed"],
    ("scheduled", "scheduled"): ["priority.changed"],
    ("available", "discarded"): ["job.expired"],
    ("scheduled", "discarded"): ["job.expired"],
    ("retryable", "discarded"): ["job.expired"],
}

SET = {
    "claim": {"started_at", "worker_id"},
    "ack": {"completed_at", "result"},
    "nack": {"error", "errors", "retry_delay_ms", "next_attempt_at", "next_retry_at"},
    "last-nack": {"error", "errors", "completed_at", "discarded_at"},
    "requeue": {"error", "errors", "enqueued_at"},
    "cancel": {"cancelled_at"},
    "activate": {"activated_at", "enqueued_at"},
    "backoff-over": {"enqueued_at"},
    "due": {"enqueued_at"},
    "visibility-over": {"error", "errors", "enqueued_at"},
    "timeout-over": {"error", "errors", "retry_delay_ms", "next_attempt_at", "next_retry_at"},
    "expired": {"discarded_at"},
    "retry-dead": {"re_enqueued_at", "enqueued_at"},
    "retry-job": {"enqueued_at"},
    "bulk-retry": {"enqueued_at"},
    "bulk-cancel": {"cancelled_at"},
}
LONG = 300 * DAY
CREATED: dict[str, dict[str, Any]] = {
    "pending": {"pending": True},
    "scheduled": {"delay_ms": 20 * MINUTE},
}
BY_TRIGGER: dict[str, dict[str, Any]] = {
    "last-nack": {"retry": policy(max_attempts=1)},
    "visibility-over": {"visibility_timeout_ms": 10 * SECOND},
    "timeout-over": {"timeout_ms": 10 * SECOND},
    "total-over": {"total_timeout_ms": HOUR, "timeout_ms": SECOND},
    "expired": {"expires_in_ms": 10 * SECOND},
    "retention-over": {"retention": Retention(*[10 * SECOND] * 4)},
}


def _rows() -> list[tuple[str, str, str]]:
    head, *rows = [line.split() for line in TABLE.strip().splitlines()]
    return [(state, row[0], result) for row in rows for state, result in zip(head, row[1:], strict=True)]


def _options(state: str, trigger: str) -> dict[str, Any]:
    dead = policy(max_attempts=3, initial_ms=20 * MINUTE, max_ms=20 * MINUTE, on_exhaustion="dead_letter")
    options: dict[str, Any] = {"retry": dead, "timeout_ms": LONG, "visibility_timeout_ms": LONG}
    options.update(CREATED.get(state, {}))
    options.update(BY_TRIGGER.get(trigger, {}))
    if state != "active" and trigger == "last-nack":
        options["retry"] = dead
    return options


def _job_in(fold: Fold, state: str, trigger: str) -> str:
    job_id = fold.put(**_options(state, trigger))
    if state in ("active", "retryable", "completed", "discarded"):
        assert fold.take() == [job_id]
    if state == "retryable":
        fold.do(nack(job_id))
    elif state == "completed":
        fold.do(command(Ack, job_id=job_id))
    elif state == "cancelled":
        fold.do(command(Cancel, job_id=job_id))
    elif state == "discarded":
        fold.do(nack(job_id, code="DEAD_LETTER"))
    assert fold.state(job_id) == state
    return job_id


def _tick_after(ms: int) -> Callable[[Fold, str], Outcome]:
    def wait(fold: Fold, _job_id: str) -> Outcome:
        fold.now += ms
        fold.do(tick("run"))
        # The log was silent: leases get their grace first.
        return [fold.do(tick("reap"), after=after) for after in (0, 3 * SECOND, 3 * SECOND)][-1]

    return wait


def _backoff_over(fold: Fold, job_id: str) -> Outcome:
    fold.now += 21 * MINUTE
    return fold.do(command(Promote, job_id=job_id, attempt=1))


def _bulk(action: str) -> Callable[[Fold, str], Outcome]:
    def change(fold: Fold, job_id: str) -> Outcome:
        return fold.do(command(Bulk, action=action, job_ids=(job_id,), states=STATES))

    return change


FIRE: dict[str, Callable[[Fold, str], Outcome]] = {
    "claim": lambda fold, _: fold.do(claim()),
    "ack": lambda fold, job_id: fold.do(command(Ack, job_id=job_id, result=Raw(b'{"ok":true}'))),
    "nack": lambda fold, job_id: fold.do(nack(job_id)),
    "last-nack": lambda fold, job_id: fold.do(nack(job_id)),
    "requeue": lambda fold, job_id: fold.do(nack(job_id, requeue=True)),
    "cancel": lambda fold, job_id: fold.do(command(Cancel, job_id=job_id)),
    "activate": lambda fold, job_id: fold.do(command(Activate, job_id=job_id)),
    "backoff-over": _backoff_over,
    "due": _tick_after(21 * MINUTE),
    "visibility-over": _tick_after(11 * SECOND),
    "timeout-over": _tick_after(11 * SECOND),
    "total-over": _tick_after(HOUR + SECOND),
    "expired": _tick_after(11 * SECOND),
    "retention-over": _tick_after(11 * SECOND),
    "retry-dead": lambda fold, job_id: fold.do(command(RetryDead, job_id=job_id)),
    "retry-job": lambda fold, job_id: fold.do(command(RetryJob, job_id=job_id)),
    "reprioritize": lambda fold, job_id: fold.do(command(Reprioritize, job_id=job_id, priority=7)),
    "bulk-cancel": _bulk("cancel"),
    "bulk-retry": _bulk("retry"),
    "bulk-delete": _bulk("delete"),
}


def _content(fold: Fold) -> dict[str, Any]:
    """Everything but the home's own position, which every record moves."""
    return {name: content for name, content in fold.dump().items() if name not in ("applied", "home")}


@pytest.mark.parametrize(("state", "trigger", "result"), _rows(), ids=[f"{s} + {t} -> {r}" for s, t, r in _rows()])
def test_state_and_trigger(state: str, trigger: str, result: str) -> None:
    fold = Fold()
    job_id = _job_in(fold, state, trigger)
    before, content, happened = fold.record(job_id).job, _content(fold), len(fold.events)
    outcome = FIRE[trigger](fold, job_id)
    events = [event.type for event in fold.events[happened:] if event.subject == job_id]
    if result in ("conflict", "not_found", "nothing"):
        assert outcome.code == ("" if result == "nothing" else result)
        assert events == []
        assert _content(fold) == content
        return
    assert not outcome.refused
    if result == "gone":
        assert fold.find(job_id) is None
        assert fold.counts() == {}
    else:
        after = fold.record(job_id).job
        assert (after.state, fold.counts()) == (result, {result: 1})
        wanted = ["job.cancelled"] if result == "cancelled" else EVENTS[state, result]
        assert events == wanted
        _check_fields(trigger, before, after)
    assert recount_all(fold.dumps()) == []


def _check_fields(trigger: str, before: Any, after: Any) -> None:
    for name in SET.get(trigger, set()):
        assert getattr(after, name), name
    if after.state not in ("active", "completed"):
        assert not after.worker_id
    if trigger == "claim":
        assert after.attempt == before.attempt + 1
    elif trigger in ("retry-dead", "retry-job", "bulk-retry") and before.state != "retryable":
        assert (after.attempt, after.error, after.errors, after.completed_at) == (0, None, (), None)
    else:
        assert after.attempt == before.attempt
    if trigger in ("retry-job", "bulk-retry"):
        assert after.cancelled_at is None
    if trigger in ("cancel", "expired"):
        assert after.completed_at is None
    if trigger == "ack":
        assert after.error is None


def test_the_table_has_every_state_and_leaves_nothing_out() -> None:
    assert set(TABLE.split("\n")[1].split()) == set(STATES)
    assert {trigger for _, trigger, _ in _rows()} == set(FIRE)
    assert len(_rows()) == len(FIRE) * len(STATES)
