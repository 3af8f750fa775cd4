"""Limits under random histories: exact windows, never too many active, no slot lost, whatever messages do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ojs_stream.core.commands import Ack, Beat, Cancel, DeleteDead, GiveBack, RetryDead
from ojs_stream.core.limits import limit_home
from ojs_stream.core.records import LimitRule
from tests.support.builders import SECOND, Fold, command, nack, policy, queue_at, tick
from tests.support.limits import KEY, Post, Watch, disagreements, limit_of, rule, used
from tests.support.recount import recount_all

PERIOD = 2 * SECOND
RULES: list[dict[str, Any]] = [
    {"concurrency": 1},
    {"concurrency": 2},
    {"rate": (1, PERIOD)},
    {"rate": (3, PERIOD), "concurrency": 2},
    {"throttle": (4, PERIOD)},
    {"rate": (3, PERIOD), "throttle": (10, PERIOD), "concurrency": 2},
]
ACTS = (
    "enqueue", "enqueue", "enqueue", "claim", "claim", "claim", "ack", "ack", "nack", "requeue", "give_back",
    "cancel", "retry_dead", "delete_dead", "beat", "tick", "tick", "wait", "wait", "long", "deliver", "deliver",
)  # fmt: skip
STEPS = st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 999)), min_size=10, max_size=60)


class Play:
    """Plays steps on jobs under one limit, in queues of several homes."""

    def __init__(self, homes: int, wanted: LimitRule) -> None:
        self.fold = Fold(homes, deliver=False)
        self.post = Post(self.fold)
        self.watch = Watch(self.fold, wanted)
        self.rule = wanted
        home = limit_home(KEY, homes)
        self.queues = [queue_at((home + n) % homes, homes, prefix) for n, prefix in enumerate("abc")]
        self.made: list[str] = []

    def step(self, act: str, pick: int) -> None:
        """One step; then everything that must hold does."""
        getattr(self, f"_{act}")(pick)
        self.watch.check()

    def _job(self, pick: int) -> str | None:
        return self.made[pick % len(self.made)] if self.made else None

    def _enqueue(self, pick: int) -> None:
        fields: dict[str, Any] = [
            {},
            {"priority": 7},
            {"visibility_timeout_ms": SECOND},
            {"timeout_ms": SECOND},
            {"expires_in_ms": SECOND},
            {"delay_ms": SECOND},
            {"retry": policy(max_attempts=1, on_exhaustion="dead_letter")},
        ][pick % 7]
        self.made.append(self.fold.put(self.queues[pick // 7 % 3], limit=self.rule, **fields))

    def _claim(self, pick: int) -> None:
        self.fold.take(self.queues[pick % 3], count=1 + pick // 3 % 3, worker=f"w{pick % 2}")

    def _on_job(self, kind: Any, pick: int, **fields: Any) -> None:
        job_id = self._job(pick)
        if job_id is not None:
            self.fold.do(command(kind, job_id=job_id, **fields))

    def _ack(self, pick: int) -> None:
        self._on_job(Ack, pick)

    def _nack(self, pick: int) -> None:
        job_id = self._job(pick)
        if job_id is not None:
            self.fold.do(nack(job_id))

    def _requeue(self, pick: int) -> None:
        job_id = self._job(pick)
        if job_id is not None:
            self.fold.do(nack(job_id, requeue=True))

    def _give_back(self, pick: int) -> None:
        job_id = self._job(pick)
        if job_id is not None:
            self.fold.do(command(GiveBack, job_ids=(job_id,), worker_id=f"w{pick % 2}"))

    def _cancel(self, pick: int) -> None:
        if pick % 3 == 0:
            self._on_job(Cancel, pick // 3)

    def _retry_dead(self, pick: int) -> None:
        self._on_job(RetryDead, pick // 3, queue=self.queues[pick % 3])

    def _delete_dead(self, pick: int) -> None:
        self._on_job(DeleteDead, pick)

    def _beat(self, pick: int) -> None:
        self.fold.do(command(Beat, worker_id=f"w{pick % 2}", dead_after_ms=SECOND))

    def _tick(self, pick: int) -> None:
        self.fold.do(tick(("run", "reap")[pick % 2]), home=pick // 2 % self.fold.homes)

    def _wait(self, pick: int) -> None:
        self.fold.now += pick

    def _long(self, pick: int) -> None:
        self.fold.now += 4 * pick

    def _deliver(self, pick: int) -> None:
        self.post.deliver(pick, again=pick % 5 == 0)

    def finish(self) -> None:
        """Work until nothing is left, with everything that time and messages bring."""
        for job_id in self.made:
            record = self.fold.find(job_id)
            if record is not None and record.job.state == "active":
                self.fold.do(command(Ack, job_id=job_id))
        for _ in range(3 * len(self.made) + 60):
            self.post.deliver_all()
            self.fold.ticks(after=SECOND)
            self.post.deliver_all()
            for queue in self.queues:
                for job_id in self.fold.take(queue, count=100):
                    self.fold.do(command(Ack, job_id=job_id))
                self.post.deliver_all()
            self.watch.check()
            if all(
                set(self.fold.counts(queue)) <= {"completed", "discarded", "cancelled"} for queue in self.queues
            ):
                return
        raise AssertionError(f"jobs are left: {limit_of(self.fold)} {disagreements(self.fold)}")


@pytest.mark.parametrize("homes", [1, 4])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, which=st.sampled_from(RULES))
def test_no_history_breaks_a_limit_or_loses_a_slot(homes: int, steps: list[tuple[str, int]], which: Any) -> None:
    play = Play(homes, rule(homes=homes, **which))
    for act, pick in steps:
        play.step(act, pick)
    play.post.deliver_all()
    assert disagreements(play.fold) == []
    play.finish()
    assert used(play.fold) == (0, 0, 0)
    assert recount_all(play.fold.dumps()) == []
    assert disagreements(play.fold) == []
    play.made = [play.fold.put(play.queues[0], limit=play.rule)]
    play.finish()
    assert play.fold.state(play.made[0]) == "completed"
