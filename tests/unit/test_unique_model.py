"""Random histories of unique jobs against a plain model of the rules: a list of jobs that is searched every time.

A new job is a duplicate if and only if there is a job with its fingerprint, in one of its states, within both
periods, that is not replaced. A job in a final state counts only if its own rule names that state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from ojs_stream.core.commands import Ack, Activate, Cancel, DeleteDead, RetryDead
from ojs_stream.core.records import UniqueRule
from ojs_stream.core.unique import DEFAULT_STATES
from tests.support.builders import SECOND, Fold, command, enqueue, job, nack, policy, queue_at, unique
from tests.support.recount import recount_all

FINAL = ("completed", "cancelled", "discarded")
STATES = (DEFAULT_STATES, ("available",), ("available", "active"), (*DEFAULT_STATES, "completed"), ("discarded",))
CONFLICTS = ("reject", "ignore", "replace", "replace_except_schedule")
RULES = st.builds(
    lambda key, **fields: (key, fields),
    st.sampled_from("ab"),
    states=st.sampled_from(STATES),
    on_conflict=st.sampled_from(CONFLICTS),
    period_ms=st.sampled_from((0, 0, 0, 5 * SECOND)),
)
STARTS: tuple[dict[str, Any], ...] = ({}, {}, {"delay_ms": 3 * SECOND}, {"pending": True})
NEW = st.tuples(st.just("enqueue"), RULES, st.sampled_from(STARTS), st.integers(0, 3))
OLD = st.tuples(
    st.sampled_from(
        ("start", "start", "ack", "retry", "requeue", "die", "cancel", "activate", "revive", "delete")
    ),
    st.integers(0, 30),
    st.integers(0, 3),
)
PAUSE = st.tuples(st.just("pause"), st.sampled_from((SECOND, 3 * SECOND, 5 * SECOND)))
HISTORIES = st.lists(st.one_of(NEW, NEW, OLD, OLD, OLD, PAUSE), min_size=5, max_size=40)


@dataclass
class Known:
    """A job as the model knows it."""

    rule: UniqueRule
    state: str
    created: int
    queue: int
    due: int = 0
    number: int = 0
    """Which enqueue its args are from."""
    replaced: bool = False

    def counts(self, rule: UniqueRule, now: int) -> bool:
        if self.rule.key != rule.key or self.replaced or self.state not in rule.states:
            return False
        if self.state in FINAL and self.state not in self.rule.states:
            return False
        return not any(period and now - self.created >= period for period in (self.rule.period_ms, rule.period_ms))


class Driver:
    """One command after another, at a fold and at the model."""

    def __init__(self, homes: int) -> None:
        self.homes = homes
        self.fold = Fold(homes)
        self.known: dict[str, Known] = {}
        self.number = 0

    def step(self, kind: str, *given: Any) -> str:
        """Do it, compare; gives what was answered, without ids."""
        said = str(getattr(self, kind)(*given))
        assert {one: job.state for one, job in self.known.items()} == {
            one: self.fold.state(one) for one in self.known
        }
        assert recount_all(self.fold.dumps()) == []
        return said

    def queue(self, number: int) -> str:
        return queue_at(number % self.homes, self.homes, prefix=f"q{number}-")

    # -- what is enqueued ---------------------------------------------------------------------------------

    def enqueue(self, rule_of: tuple[str, dict[str, Any]], start: dict[str, Any], queue: int) -> str:
        self.number += 1
        rule = unique(rule_of[0], homes=self.homes, **rule_of[1])
        dying = policy(max_attempts=2, on_exhaustion="dead_letter")
        args = Raw(str([self.number]).encode())
        new = job(self.queue(queue), homes=self.homes, unique=rule, retry=dying, args=args, **start)
        found = {one: known for one, known in self.known.items() if known.counts(rule, self.fold.now)}
        outcome = self.fold.do(enqueue(new))
        if not found:
            assert (outcome.code, outcome.data) == ("", {})
            self._store(new.id, rule, start, queue)
            return "stored"
        return self._conflict(rule, found, outcome, new.id, start, queue)

    def _conflict(
        self,
        rule: UniqueRule,
        found: dict[str, Known],
        outcome: Any,
        new_id: str,
        start: dict[str, Any],
        queue: int,
    ) -> str:
        if rule.on_conflict == "reject":
            assert outcome.code == "duplicate"
            assert outcome.details["existing_job_state"] == found[outcome.details["existing_job_id"]].state
            return "refused"
        revised = rule.on_conflict == "replace_except_schedule" and [k.state for k in found.values()] == [
            "scheduled"
        ]
        if revised or rule.on_conflict == "ignore":
            existing = outcome.data["existing"]["0"]
            if revised:
                found[existing].number = self.number
            assert str([found[existing].number]).encode() == bytes(self.fold.record(existing).job.args)
            return "revised" if revised else "ignored"
        assert outcome.data["replaced"]["0"] in found
        for known in found.values():
            known.replaced = True
            known.state = known.state if known.state in FINAL else "cancelled"
        self._store(new_id, rule, start, queue)
        return "replaced"

    def _store(self, job_id: str, rule: UniqueRule, start: dict[str, Any], queue: int) -> None:
        state = "scheduled" if "delay_ms" in start else "pending" if "pending" in start else "available"
        due = self.fold.now + start.get("delay_ms", 0)
        self.known[job_id] = Known(rule, state, self.fold.now, queue, due, self.number)

    # -- what becomes of it -------------------------------------------------------------------------------

    def _one(self, number: int, *states: str) -> str:
        found = [one for one, known in self.known.items() if known.state in states]
        return found[number % len(found)] if found else ""

    def _move(self, number: int, states: tuple[str, ...], to: str, make: Any) -> str:
        one = self._one(number, *states)
        if one:
            assert not self.fold.do(make(one)).refused
            self.known[one].state = to
        return to if one else "nothing"

    def start(self, number: int, _: int) -> str:
        one = self._one(number, "available")
        given = self.fold.take(self.queue(self.known[one].queue)) if one else []
        for job_id in given:
            assert self.known[job_id].state == "available"
            self.known[job_id].state = "active"
        return f"{len(given)} started"

    def ack(self, number: int, _: int) -> str:
        return self._move(number, ("active",), "completed", lambda one: command(Ack, job_id=one))

    def requeue(self, number: int, _: int) -> str:
        return self._move(number, ("active",), "available", lambda one: nack(one, requeue=True))

    def retry(self, number: int, _: int) -> str:
        one = self._one(number, "active")
        attempts = self.fold.record(one).job.attempt if one else 0
        if one:
            self.known[one].due = self.fold.now + SECOND
        return self._move(number, ("active",), "retryable" if attempts < 2 else "discarded", nack)

    def die(self, number: int, _: int) -> str:
        return self._move(number, ("active",), "discarded", lambda one: nack(one, code="DEAD_LETTER"))

    def cancel(self, number: int, _: int) -> str:
        living = tuple(DEFAULT_STATES)
        return self._move(number, living, "cancelled", lambda one: command(Cancel, job_id=one))

    def activate(self, number: int, _: int) -> str:
        return self._move(number, ("pending",), "available", lambda one: command(Activate, job_id=one))

    def revive(self, number: int, queue: int) -> str:
        one = self._one(number, "discarded")
        if one:
            self.known[one].replaced = False
            self.known[one].queue = queue
        to = self.queue(queue)
        return self._move(
            number, ("discarded",), "available", lambda one: command(RetryDead, job_id=one, queue=to)
        )

    def delete(self, number: int, _: int) -> str:
        one = self._one(number, "discarded")
        if one:
            assert not self.fold.do(command(DeleteDead, job_id=one)).refused
            del self.known[one]
        return "gone" if one else "nothing"

    def pause(self, pause: int) -> str:
        self.fold.ticks(after=pause)
        for known in self.known.values():
            if known.state in ("scheduled", "retryable") and known.due <= self.fold.now:
                known.state = "available"
        return "later"


@settings(max_examples=150, deadline=None)
@given(HISTORIES)
def test_every_history_ends_as_the_rules_say_on_one_home_and_on_four(history: list[tuple[Any, ...]]) -> None:
    one, four = Driver(1), Driver(4)
    for step in history:
        assert one.step(*step) == four.step(*step), step
    states = [[known.state for known in driver.known.values()] for driver in (one, four)]
    assert states[0] == states[1]
