"""The outside checker of chaos runs finds what is planted, under the promise that it breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.checker import Findings, check
from tests.support.history import Answer, History
from tools.chaos.__main__ import order
from tools.chaos.crowd import RETRY_MS, VISIBILITY_MS, Crowd
from tools.chaos.faults import FAULTS, Back
from tools.chaos.linear import violations
from tools.chaos.operations import Start, operations

URL = "http://here"


class Run:
    """A run by hand: one client, two jobs, every answer 1 s after its request, one request every 2 s."""

    def __init__(self) -> None:
        self.history = History()
        self.events: list[dict[str, Any]] = []
        self.jobs: dict[str, dict[str, Any] | None] = {}
        self.starts: dict[str, list[Start]] = {}
        self.missing: set[int] = set()
        """Positions that the topic does not have."""
        self.now = 0.0

    def ask(
        self, path: str, sent: Any, status: int, body: Any = None, method: str = "POST", **more: Any
    ) -> Answer:
        answer = Answer(
            url=URL,
            method=method,
            path=path,
            sent=sent,
            status=status,
            body=body,
            begun=self.now,
            took_s=1.0,
            **more,
        )
        self.now += 2.0
        return self.history.add(answer)

    def event(self, job_id: str, kind: str, state: str, attempt: int = 0) -> None:
        data = {"state": state, "attempt": attempt}
        number = len(self.events) + 1
        event = {"id": f"evt-{number}", "type": f"job.{kind}", "subject": job_id, "data": data}
        self.events.append({**event, "time": f"2026-01-01T00:00:{number:02}Z"})

    def enqueue(self, job_id: str, mark: str, *, key: str = "", replayed: bool = False, **meta: str) -> None:
        wanted = {"type": "t", "queue": "q", "args": [], "meta": {"mark": mark, **meta}}
        self.ask("/jobs", wanted, 201, {"id": job_id}, key=key, replayed=replayed)
        self.history.wanted[job_id] = wanted
        self.jobs[job_id] = {**wanted, "id": job_id, "state": "available", "attempt": 0}
        self.event(job_id, "enqueued", "available")

    def claim(self, job_id: str, attempt: int = 1, worker: str = "w") -> None:
        body = {"jobs": [{"id": job_id, "attempt": attempt}]}
        self.ask("/workers/fetch", {"worker_id": worker}, 200, body)
        self.started(job_id, attempt, worker)

    def started(self, job_id: str, attempt: int, worker: str) -> None:
        self.starts.setdefault(job_id, []).append(Start(attempt, worker))
        self.event(job_id, "started", "active", attempt)
        self.set(job_id, "active", attempt)

    def ack(self, job_id: str, worker: str = "w") -> None:
        sent = {"job_id": job_id, "worker_id": worker}
        self.ask("/workers/ack", sent, 200, {"id": job_id, "state": "completed"})
        self.event(job_id, "completed", "completed")
        self.set(job_id, "completed")

    def set(self, job_id: str, state: str, attempt: int | None = None) -> None:
        job = self.jobs[job_id]
        assert job is not None
        job["state"] = state
        job["attempt"] = job["attempt"] if attempt is None else attempt

    def get(self, job_id: str, state: str, attempt: int) -> None:
        self.ask(f"/jobs/{job_id}", None, 200, {"job": {"state": state, "attempt": attempt}}, method="GET")

    def findings(self) -> Findings:
        records = [
            SimpleNamespace(headers=[("ojs-position", str(number).encode())], value=json.dumps(event))
            for number, event in enumerate(self.events, 1)
            if number not in self.missing
        ]
        return check(self.history, {0: records}, self.jobs)

    def disorder(self) -> list[str]:
        histories, strange = operations(self.history, self.starts)
        return violations(histories) + strange


def good() -> Run:
    run = Run()
    run.enqueue("job-1", "a")
    run.enqueue("job-2", "b", key="k")
    run.claim("job-1")
    run.ack("job-1")
    run.get("job-1", "completed", 1)
    return run


def test_a_good_run_has_no_findings() -> None:
    run = good()
    assert run.findings().all == []
    assert run.disorder() == []


def _gone(run: Run) -> None:
    run.jobs["job-2"] = None


def _mute(run: Run) -> None:
    run.events[:] = [event for event in run.events if event["subject"] != "job-2"]


def _hole(run: Run) -> None:
    run.missing.add(2)


def _changed(run: Run) -> None:
    job = run.jobs["job-2"]
    assert job is not None
    job["args"] = ["other"]


def _acked_twice(run: Run) -> None:
    run.ack("job-1")


def _given_twice(run: Run) -> None:
    run.history.add(next(answer for answer in run.history.of("/workers/fetch")))


def _made_twice(run: Run) -> None:
    run.enqueue("job-3", "b", key="k")


def _never_asked_for(run: Run) -> None:
    run.event("job-9", "enqueued", "available")


def _uniques_side_by_side(run: Run) -> None:
    run.enqueue("job-3", "c", unique="7")
    run.enqueue("job-4", "d", unique="7")


def _ack_without_effect(run: Run) -> None:
    sent = {"job_id": "job-2", "worker_id": "w"}
    run.ask("/workers/ack", sent, 200, {"id": "job-2", "state": "completed"})


def _acked_and_mute(run: Run) -> None:
    run.events[:] = [event for event in run.events if event["subject"] != "job-1"]


def _cancel_without_effect(run: Run) -> None:
    run.ask("/jobs/job-2/cancel", None, 200, {"job": {"id": "job-2"}})


def _another_state(run: Run) -> None:
    run.set("job-2", "active", 1)


PLANTED: list[tuple[Callable[[Run], None], str, str]] = [
    (_gone, "lost", "was accepted and is not there"),
    (_mute, "lost", "was accepted and has no event"),
    (_hole, "lost", "has no positions [2]"),
    (_changed, "lost", "was asked for"),
    (_acked_twice, "twice", "was acknowledged 2 times"),
    (_given_twice, "twice", "attempt 1 was given out 2 times"),
    (_made_twice, "twice", "request b has made"),
    (_never_asked_for, "twice", "never asked for"),
    (_uniques_side_by_side, "twice", "lived at the same time"),
    (_ack_without_effect, "false", "its ack was accepted"),
    (_acked_and_mute, "false", "its ack was accepted"),
    (_cancel_without_effect, "false", "its cancel was accepted"),
    (_another_state, "other", "its events say"),
]


@pytest.mark.parametrize(("plant", "promise", "text"), PLANTED)
def test_what_is_planted_is_found(plant: Callable[[Run], None], promise: str, text: str) -> None:
    run = good()
    plant(run)
    assert any(text in finding for finding in getattr(run.findings(), promise)), run.findings()


# ------------------------------------------------------------------ operations of one job


def test_a_read_that_is_older_than_an_answer_is_found() -> None:
    run = good()
    run.get("job-1", "active", 1)
    (problem,) = run.disorder()
    assert problem.startswith("job-1: there is no order")


def test_an_attempt_that_no_answer_tells_of_is_of_a_fetch_without_an_answer() -> None:
    run = good()
    run.ask("/workers/fetch", {"worker_id": "v"}, 503)
    run.started("job-2", 1, "v")
    run.get("job-2", "active", 1)
    assert run.disorder() == []


def test_an_attempt_that_no_answer_tells_of_may_be_of_a_queue_whose_home_gave_no_clear_answer() -> None:
    run = good()
    fetch = {"worker_id": "v", "queues": ["q", "p"], "count": 2}
    run.ask("/workers/fetch", fetch, 200, {"jobs": [{"id": "job-3", "attempt": 1}]})
    run.started("job-2", 1, "v")
    run.get("job-2", "active", 1)
    assert run.disorder() == []
    run.history.answers[-2] = replace(run.history.answers[-2], sent={**fetch, "count": 1})
    assert run.disorder() != []


def test_an_attempt_of_a_worker_that_never_asked_is_found() -> None:
    run = good()
    run.started("job-2", 1, "v")
    assert run.disorder() == ["job-2: attempt 1 is of 'v', who never asked for it"]


def test_a_lease_may_end_after_its_time_and_not_before() -> None:
    run = good()
    run.claim("job-2")
    early = run.now - 2.0 + VISIBILITY_MS / 1000 - 2.0
    run.now = early
    run.claim("job-2", 2, "v")
    assert len(run.disorder()) == 1
    late = run.history.answers[-1]
    run.history.answers[-1] = replace(late, begun=early + 1.5)
    assert run.disorder() == []


def test_a_retry_may_come_after_its_delay_and_not_before() -> None:
    run = good()
    run.claim("job-2")
    sent = {"job_id": "job-2", "worker_id": "w", "error": {"code": "bad"}}
    nack = run.ask("/workers/nack", sent, 200, {"id": "job-2", "state": "retryable"})
    run.now = nack.begun + RETRY_MS / 1000 - 0.9
    run.history.answers[-1] = replace(nack, took_s=0.05)
    run.claim("job-2", 2)
    run.history.answers[-1] = replace(run.history.answers[-1], took_s=0.1)
    assert len(run.disorder()) == 1
    run.history.answers[-1] = replace(run.history.answers[-1], took_s=1.1)
    assert run.disorder() == []


def test_a_worker_that_was_silent_may_have_lost_its_lease_early() -> None:
    run = good()
    run.ask("/workers/heartbeat", {"worker_id": "w"}, 200, {"jobs_extended": []})
    run.now += 28.0
    run.claim("job-2")
    run.claim("job-2", 2, "v")
    assert run.disorder() == []
    run.history.answers.insert(0, replace(run.history.answers[-3], begun=run.now - 8.0))
    assert len(run.disorder()) == 1


def test_the_repeat_of_a_key_tells_of_a_job_that_the_first_request_made() -> None:
    run = Run()
    run.ask("/jobs", {"type": "t", "queue": "q", "args": []}, 503, key="k")
    run.enqueue("job-1", "a", key="k", replayed=True)
    assert run.disorder() == []


def test_who_was_never_reached_did_nothing() -> None:
    run = good()
    sent = {"job_id": "job-2", "worker_id": "w"}
    run.ask("/workers/ack", sent, 0, problem="ClientConnectorError nobody there")
    assert not any(op.kind == "ack" for op in operations(run.history, run.starts)[0]["job-2"])


# ------------------------------------------------------------------ the run


def test_every_fault_comes_once_before_one_comes_again_and_a_seed_is_an_order() -> None:
    names = list(FAULTS)
    first = [fault.name for _, fault in order(names, seed=3, rounds=0)]
    nightly = [fault.name for _, fault in order(names, seed=3, rounds=20)]
    assert sorted(first) == sorted(names)
    assert nightly[: len(names)] == first
    assert [fault.name for _, fault in order(names, seed=4, rounds=0)] != first


def test_a_503_without_a_time_to_come_again_and_a_500_are_wrong() -> None:
    crowd: Any = SimpleNamespace(wrong=[])
    answers = [
        Answer(url=URL, method="POST", path="/jobs", status=503, retry_after="1"),
        Answer(url=URL, method="POST", path="/jobs", status=0),
        Answer(url=URL, method="POST", path="/jobs", status=201),
        Answer(url=URL, method="POST", path="/jobs", status=503),
        Answer(url=URL, method="POST", path="/jobs", status=500),
        Answer(url=URL, method="POST", path="/jobs", status=404),
    ]
    for answer in answers:
        Crowd.judge(crowd, answer, 201)
    assert crowd.wrong == answers[3:]


def test_late_is_late() -> None:
    assert Back("x", 7.9, 8.0).holds
    assert not Back("x", 8.1, 8.0).holds
