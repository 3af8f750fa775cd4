"""Random sequences of requests against an independent model of the rules, with one home and with eight.

Requests come one after the other, and all messages between homes are delivered before the next: then the number of
homes must not show. Ids, times and sequence numbers are left out; jobs are known by their labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ojs_stream.core.commands import Ack, Cancel, CancelWorkflow
from ojs_stream.core.homes import home_in_id, home_of
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import UniqueRule
from tests.support.builders import Fold, claim, command, enqueue, job, jobs_of, nack, policy
from tests.support.flows import leaf, start_of
from tests.support.limits import rule as limit_rule
from tests.support.recount import jobs, recount
from tests.support.rules import Rules, Wish

QUEUES = ("alpha", "beta", "gamma")
HOMES = (1, 8)
EXAMPLES = 60
Step = tuple[str, tuple[Any, ...]]

# -- requests -----------------------------------------------------------------------------------------------


def _plain() -> st.SearchStrategy[Wish]:
    return st.builds(
        Wish,
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from((0, 0, 10)),
        delay_ms=st.sampled_from((0, 0, 0, 1_500)),
        attempts=st.sampled_from((1, 2)),
    )


def _unique() -> st.SearchStrategy[Wish]:
    return st.builds(
        Wish,
        queue=st.sampled_from(QUEUES),
        delay_ms=st.sampled_from((0, 0, 1_500)),
        unique=st.sampled_from(("u1", "u2")),
        conflict=st.sampled_from(("reject", "ignore", "replace")),
    )


SLOTS = {"alpha": 1, "beta": 2, "gamma": 1}


def _limited() -> st.SearchStrategy[Wish]:
    """Under a key of its queue, whose home is another one all the same."""

    def wish(queue: str, delay_ms: int, unique: str) -> Wish:
        return Wish(queue, delay_ms=delay_ms, unique=unique, limit=f"key-{queue}", slots=SLOTS[queue])

    return st.builds(
        wish, st.sampled_from(QUEUES), st.sampled_from((0, 0, 1_500)), st.sampled_from(("", "", "u1"))
    )


def _flows() -> st.SearchStrategy[Step]:
    step = st.builds(Wish, queue=st.sampled_from(QUEUES), attempts=st.sampled_from((1, 2)))
    steps = st.lists(step, min_size=1, max_size=3).map(tuple)
    return st.tuples(st.just("start"), st.tuples(st.sampled_from(("chain", "group")), steps))


def _steps() -> st.SearchStrategy[Step]:
    of_flows = st.builds("w{}:{}".format, st.integers(1, 3), st.integers(0, 2))
    label = st.one_of(st.integers(1, 30).map(str), of_flows)
    stops = st.tuples(st.just("stop"), st.tuples(st.integers(1, 3).map("w{}".format)))
    claims = st.tuples(st.just("claim"), st.tuples(st.sampled_from(QUEUES), st.integers(1, 3)))
    ends = st.tuples(st.sampled_from(("ack", "ack", "nack", "cancel")), st.tuples(label))
    wishes = st.one_of(
        st.tuples(_plain()),
        st.tuples(_unique()),
        st.tuples(_limited()),
        st.lists(_plain(), min_size=2, max_size=4).map(tuple),
    )
    enqueues = st.tuples(st.just("enqueue"), st.tuples(wishes))
    waits = st.tuples(st.just("wait"), st.tuples(st.sampled_from((500, 1_000, 2_000))))
    return st.one_of(*[enqueues] * 4, *[claims] * 4, *[ends] * 4, waits, _flows(), stops)


# -- the server, as a client of one request at a time sees it -------------------------------------------------


class Server:
    """The fold over so many homes, spoken to in the model's words."""

    def __init__(self, homes: int) -> None:
        self.homes = homes
        self.fold = Fold(homes)
        self.ids: dict[str, str] = {}
        """label -> job id"""
        self.flows: dict[str, str] = {}
        """label -> workflow id"""
        self._enqueued = 0

    def enqueue(self, wishes: tuple[Wish, ...]) -> str:
        made = [self._job(wish) for wish in wishes]
        labels = [str(self._enqueued + 1 + place) for place in range(len(made))]
        self._enqueued += len(made)
        rule = made[0].unique
        home = rule.home if rule is not None else None
        outcome = self.fold.do(enqueue(*made), home=home)
        if outcome.refused:
            return outcome.code
        existing = outcome.data.get("existing", {})
        self.ids.update((label, new.id) for label, new in zip(labels, made, strict=True))
        for place, job_id in existing.items():
            del self.ids[labels[int(place)]]
            return f"existing {self._label(job_id)}"
        return "stored"

    def _job(self, wish: Wish) -> Any:
        rule = None
        if wish.unique:
            rule = UniqueRule(
                key=wish.unique,
                home=home_of(wish.unique, self.homes),
                states=wish.unique_states,  # type: ignore[arg-type]
                on_conflict=wish.conflict,  # type: ignore[arg-type]
            )
        return job(
            wish.queue,
            homes=self.homes,
            priority=wish.priority,
            delay_ms=wish.delay_ms,
            retry=policy(max_attempts=wish.attempts),
            unique=rule,
            limit=limit_rule(wish.limit, homes=self.homes, concurrency=wish.slots) if wish.limit else None,
        )

    def start(self, kind: str, wishes: tuple[Wish, ...]) -> None:
        steady = {"initial_interval": "PT1S", "backoff_coefficient": 1.0, "jitter": False}
        steps = [leaf("a.b", wish.queue, retry={**steady, "max_attempts": wish.attempts}) for wish in wishes]
        asked = start_of({"type": kind, "name": "w", "steps" if kind == "chain" else "jobs": steps}, self.homes)
        name = f"w{len(self.flows) + 1}"
        self.flows[name] = asked.id
        self.ids.update((f"{name}:{n}", new.job.id) for n, new in enumerate(asked.steps) if new.job is not None)
        assert not self.fold.do(asked).refused

    def stop(self, name: str) -> str:
        if name not in self.flows:
            return "not_found"
        return self.fold.do(command(CancelWorkflow, id=self.flows[name])).code or "ok"

    def ended(self) -> dict[str, str]:
        found = {}
        for name, workflow_id in self.flows.items():
            data = self.fold.dump(home_in_id(workflow_id))[f"workflow:{workflow_id}"]
            found[name] = json.loads(data)["state"]
        return found

    def claim(self, queue: str, count: int) -> list[str]:
        return [self._label(each["id"]) for each in jobs_of(self.fold.do(claim(queue, count=count)))]

    def ack(self, label: str) -> str:
        return self._told(label, lambda job_id: command(Ack, job_id=job_id))

    def nack(self, label: str) -> str:
        return self._told(label, nack)

    def cancel(self, label: str) -> str:
        return self._told(label, lambda job_id: command(Cancel, job_id=job_id))

    def wait(self, ms: int) -> None:
        self.fold.ticks(after=ms)

    def _told(self, label: str, asked: Callable[[str], Any]) -> str:
        if label not in self.ids:
            return "not_found"
        outcome: Outcome = self.fold.do(asked(self.ids[label]))
        return outcome.code or "ok"

    def _label(self, job_id: str) -> str:
        return next(label for label, known in self.ids.items() if known == job_id)

    def shown(self) -> list[tuple[str, str, int]]:
        found = []
        for dump in self.fold.dumps():
            assert recount(dump) == []
            for job_id, record in jobs(dump).items():
                found.append((self._label(job_id), record["job"]["state"], record["job"]["attempt"]))
        return found


# -- the comparison -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("homes", HOMES)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=st.lists(_steps(), min_size=10, max_size=40))
def test_the_server_follows_the_rules_however_many_homes_it_has(homes: int, history: list[Step]) -> None:
    rules, server = Rules(), Server(homes)
    for at, (name, arguments) in enumerate(history):
        wanted, got = getattr(rules, name)(*arguments), getattr(server, name)(*arguments)
        assert got == wanted, f"step {at}: {name}{arguments}"
        assert sorted(server.shown()) == sorted(rules.shown()), f"after step {at}: {name}{arguments}"
        assert server.ended() == rules.ended(), f"after step {at}: {name}{arguments}"
