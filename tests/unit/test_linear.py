"""The linearizability checker accepts histories that can have happened, and finds those that cannot."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import Any

import pytest

from tools.chaos import linear
from tools.chaos.linear import Op, State, step, violation, violations


def op(kind: str, begun: float, ended: float = inf, said: str = "", **more: Any) -> Op:
    return Op(kind=kind, begun=begun, ended=ended, said=said, **more)


def made(begun: float = 0, ended: float = 1) -> Op:
    return op("enqueue", begun, ended, "made", to="available")


def claim(attempt: int, begun: float, ended: float = inf, worker: str = "w") -> Op:
    return op("claim", begun, ended, "done" if ended < inf else "", attempt=attempt, worker=worker)


def ack(begun: float, ended: float = inf, said: str = "done", worker: str = "w") -> Op:
    return op("ack", begun, ended, said if ended < inf else "", to="completed", worker=worker)


def nack(begun: float, ended: float = inf, to: str = "retryable") -> Op:
    return op("nack", begun, ended, "done" if ended < inf else "", to=to, worker="w")


def cancel(begun: float, ended: float = inf, said: str = "done") -> Op:
    return op("cancel", begun, ended, said if ended < inf else "")


def get(state: str, attempt: int, begun: float, ended: float) -> Op:
    return op("get", begun, ended, "done", to=state, attempt=attempt)


def missing(begun: float, ended: float) -> Op:
    return op("get", begun, ended, "missing")


def release(attempt: int, begun: float) -> Op:
    return op("release", begun, attempt=attempt)


def promote(attempt: int, begun: float) -> Op:
    return op("promote", begun, attempt=attempt)


GOOD = {
    "a life": [made(), claim(1, 2, 3), ack(4, 5), get("completed", 1, 6, 7)],
    "nothing at all": [],
    "a read beside the enqueue sees either": [made(0, 5), missing(1, 2), get("available", 0, 3, 4)],
    "reads beside an ack see before and after": [
        made(),
        claim(1, 2, 3),
        ack(4, 9),
        get("active", 1, 5, 6),
        get("completed", 1, 7, 8),
    ],
    "an enqueue without an answer that took effect": [op("enqueue", 0, to="available"), get("available", 0, 2, 3)],
    "an enqueue without an answer that did not": [op("enqueue", 0, to="available"), missing(2, 3)],
    "a repeat is a duplicate of what had no answer": [
        op("enqueue", 0, to="available"),
        op("enqueue", 2, 3, "duplicate"),
    ],
    "an ack without an answer, and the conflict of its repeat": [
        made(),
        claim(1, 2, 3),
        ack(4),
        ack(6, 7, "conflict"),
        get("completed", 1, 8, 9),
    ],
    "an ack without an answer that lands late": [made(), claim(1, 2, 3), ack(4), get("active", 1, 8, 9)],
    "a lease ends and another worker has the job": [
        made(),
        claim(1, 2, 3, "a"),
        release(1, 10),
        claim(2, 11, 12, "b"),
        ack(13, 14, "conflict", "a"),
        ack(15, 16, worker="b"),
    ],
    "a claim that nobody heard of, given back": [made(), claim(1, 2), release(1, 2), claim(2, 5, 6), ack(7, 8)],
    "a failure, its retry, the end": [
        made(),
        claim(1, 2, 3),
        nack(4, 5),
        promote(1, 5),
        claim(2, 7, 8),
        nack(9, 10, "discarded"),
        get("discarded", 2, 11, 12),
    ],
    "of a cancel and an ack at the same time one wins": [
        made(),
        claim(1, 2, 3),
        cancel(4, 8),
        ack(5, 7, "conflict"),
        get("cancelled", 1, 9, 10),
    ],
    "a heartbeat while it is held": [made(), claim(1, 2, 3), op("extend", 4, 5, "done", worker="w"), ack(6, 7)],
    "the one without an answer may be the second of two": [
        made(),
        claim(1, 2, 3),
        nack(4),
        promote(1, 5),
        claim(2, 6, 7),
        nack(8),
        promote(2, 9),
        claim(3, 10, 11),
        ack(12, 13),
    ],
}

BAD = {
    "a read before its birth": [get("available", 0, 0, 1), made(2, 3)],
    "lost after its 201": [made(), missing(2, 3)],
    "an old read": [made(), claim(1, 2, 3), ack(4, 5), get("active", 1, 6, 7)],
    "made twice": [made(0, 1), made(2, 3)],
    "a duplicate of nothing": [op("enqueue", 0, 1, "duplicate"), made(2, 3)],
    "one attempt given to two": [made(), claim(1, 2, 3, "a"), claim(1, 4, 5, "b"), release(1, 9)],
    "claimed again before its lease can have ended": [
        made(),
        claim(1, 2, 3, "a"),
        release(1, 10),
        claim(2, 4, 5, "b"),
    ],
    "an ack of a job that somebody else has": [made(), claim(1, 2, 3, "a"), ack(4, 5, worker="b")],
    "two acks": [made(), claim(1, 2, 3), ack(4, 5), ack(6, 7)],
    "an ack and a cancel both": [made(), claim(1, 2, 3), ack(4, 8), cancel(5, 7)],
    "an accepted ack that is forgotten": [made(), claim(1, 2, 3), ack(4, 5), release(1, 9), claim(2, 10, 11)],
    "a conflict although it was held": [made(), claim(1, 2, 3), ack(4, 5, "conflict"), get("active", 1, 6, 7)],
    "a cancel that is undone": [made(), cancel(2, 3), claim(1, 4, 5)],
    "a cancel refused of a job that was not over": [made(), cancel(2, 3, "conflict"), claim(1, 4, 5)],
    "an attempt left out": [made(), claim(2, 2, 3)],
    "a heartbeat for a job that is over": [
        made(),
        claim(1, 2, 3),
        ack(4, 5),
        op("extend", 6, 7, "done", worker="w"),
    ],
    "a retry before its time": [made(), claim(1, 2, 3), nack(4, 5), promote(1, 9), claim(2, 6, 7)],
    "no request can explain an ack": [made(), claim(1, 2, 3), get("completed", 1, 4, 5)],
}


@pytest.mark.parametrize("name", GOOD)
def test_what_can_have_happened_is_accepted(name: str) -> None:
    assert violation(GOOD[name]) == ""


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_have_happened_is_found(name: str) -> None:
    assert violation(BAD[name]) == "there is no order in which these can have happened"


def test_a_violation_names_the_job_and_what_was_said() -> None:
    (problem,) = violations({"job-1": GOOD["a life"], "job-2": BAD["two acks"]})
    assert problem.startswith("job-2: there is no order")
    assert "[4.000-5.000 ack done completed w]" in problem
    assert "[0.000-? enqueue available]" in str(op("enqueue", 0, to="available"))


def test_hundreds_of_requests_without_an_answer_cost_little() -> None:
    storm = [op("enqueue", n / 10, to="available") for n in range(300)]
    acks = [ack(40 + n / 10) for n in range(300)]
    assert violation([*storm, claim(1, 35, 36), *acks, get("completed", 1, 100, 101)]) == ""
    assert violation([*storm, claim(1, 35, 36), *acks, get("cancelled", 1, 100, 101)]) != ""


def test_a_history_that_is_too_wide_is_reported_and_not_taken_for_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "VISITS_MAX", 3)
    assert violation(GOOD["a life"]) == "no order was found in 3 steps"


def test_a_long_life_is_walked_in_one_go() -> None:
    ops = [made()]
    for attempt in range(1, 200):
        ops += [claim(attempt, attempt * 10, attempt * 10 + 1), release(attempt, attempt * 10 + 5)]
    assert violation(ops) == ""


def test_each_step_leads_to_what_it_says() -> None:
    life = [made(), claim(1, 2, 3), nack(4, 5), promote(1, 5), claim(2, 6, 7), ack(8, 9)]
    states = [State()]
    for each in life:
        after = step(states[-1], each)
        assert after is not None
        states.append(after)
    assert [state.name for state in states] == [
        "",
        "available",
        "active",
        "retryable",
        "available",
        "active",
        "completed",
    ]
    assert all(after != before for before, after in pairwise(states))
