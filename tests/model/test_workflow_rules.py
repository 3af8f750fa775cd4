"""Random workflows with random outcomes against a model that computes every state anew from the jobs' outcomes.

The fold counts and propagates; the model does neither: it evaluates the tree as the specification words it.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builders import Fold
from tests.support.flows import Play, leaf
from tests.support.recount import recount_all

QUEUES = ("alpha", "beta", "gamma", "delta")
OVER = ("completed", "failed", "cancelled")
NAMES = ("on_complete", "on_success", "on_failure")
Body = dict[str, Any]

leaves = st.sampled_from(QUEUES).map(lambda queue: leaf("model.job", queue))


def _flows(members: st.SearchStrategy[Body]) -> st.SearchStrategy[Body]:
    some = st.lists(members, min_size=1, max_size=4)
    callbacks = st.dictionaries(st.sampled_from(NAMES), leaves, min_size=1)
    return st.one_of(
        st.builds(lambda steps: {"type": "chain", "steps": steps}, some),
        st.builds(lambda jobs: {"type": "group", "jobs": jobs}, some),
        st.builds(lambda jobs, calls: {"type": "batch", "jobs": jobs, "callbacks": calls}, some, callbacks),
    )


_level = _flows(leaves)
_two_levels = _flows(st.one_of(leaves, _level))
members = st.one_of(leaves, leaves, _level, _two_levels)


@st.composite
def graphs(draw: st.DrawFn) -> Body:
    """Steps that depend on some of those before them, in any order of the request."""
    steps = []
    for number, step in enumerate(draw(st.lists(members, min_size=1, max_size=7))):
        before = draw(st.lists(st.sampled_from(range(number)), unique=True)) if number else []
        steps.append({**step, "id": f"g{number}", "depends_on": [f"g{each}" for each in before]})
    return {"name": "graph", "steps": draw(st.permutations(steps))}


workflows = st.one_of(graphs(), _flows(members))


class Model:
    """The states of all steps, by their ids, from the outcomes of the jobs that have ended."""

    def __init__(self, body: Body, outcomes: dict[str, str]) -> None:
        self.outcomes = outcomes
        self.states: dict[str, str] = {}
        self.root = self._flow(body, "", "go", nested=False)

    def _step(self, body: Body, name: str, start: str) -> str:
        """``start``: ``go`` (it may run), ``wait``, or ``never``."""
        if body["type"] in ("chain", "group", "batch"):
            state = self._flow(body, name, start, nested=True)
        elif start == "go":
            state = self.outcomes.get(name, "pending")
        else:
            state = "waiting" if start == "wait" else "cancelled"
        self.states[name] = state
        return state

    def _flow(self, body: Body, name: str, start: str, *, nested: bool) -> str:
        prefix = f"{name}." if nested else ""
        kind = body.get("type", "graph")
        if kind == "graph":
            states = self._graph(body["steps"], start)
        else:
            states, before = [], ["completed"]
            for place, member in enumerate(body["steps" if kind == "chain" else "jobs"]):
                mine = _after(before, start) if kind == "chain" else start
                states.append(self._step(member, f"{prefix}{place}", mine))
                before = states[-1:]
        states += self._callbacks(body, prefix, states, start) if nested else []
        if not nested and kind == "batch":
            self._callbacks(body, prefix, states, start)
        if start != "go":
            return "waiting" if start == "wait" else "cancelled"
        if any(state not in (*OVER, "skipped") for state in states):
            return "running"
        return "completed" if set(states) <= {"completed", "skipped"} else "failed"

    def _graph(self, steps: list[Body], start: str) -> list[str]:
        left = list(steps)
        while left:
            ready = [step for step in left if all(each in self.states for each in step["depends_on"])]
            for step in ready:
                self._step(step, step["id"], _after([self.states[each] for each in step["depends_on"]], start))
                left.remove(step)
        return [self.states[step["id"]] for step in steps]

    def _callbacks(self, body: Body, prefix: str, members: list[str], start: str) -> list[str]:
        if body.get("type") != "batch":
            return []
        over = all(state in OVER for state in members)
        bad = any(state != "completed" for state in members)
        fires = {"on_complete": True, "on_success": not bad, "on_failure": bad}
        states = []
        for name, job in body["callbacks"].items():
            if over and start == "go" and not fires[name]:
                states.append("skipped")
                self.states[f"{prefix}{name}"] = "skipped"
            else:
                mine = "never" if start == "never" else "go" if over and start == "go" else "wait"
                states.append(self._step(job, f"{prefix}{name}", mine))
        return states


def _after(before: list[str], start: str) -> str:
    if start != "go":
        return start
    if any(state in ("failed", "cancelled") for state in before):
        return "never"
    return "go" if all(state == "completed" for state in before) else "wait"


@settings(max_examples=150, deadline=None)
@given(workflows, st.sampled_from((1, 3)), st.randoms(use_true_random=False), st.sampled_from((0.0, 0.1, 0.5)))
def test_every_state_is_what_the_outcomes_say(body: Body, homes: int, dice: Any, bad: float) -> None:
    fold = Fold(homes)
    play = Play(fold, body)
    outcomes: dict[str, str] = {}
    stop_after = dice.choice((None, None, None, 0, 1, 3))
    while True:
        model = Model(body, outcomes)
        assert play.states() == model.states
        assert play.state == model.root
        play.take()
        running = [name for name, state in model.states.items() if state == "pending"]
        if not running:
            break
        if stop_after is not None and len(outcomes) >= stop_after and play.state == "running":
            _cancelled(play, model, fold)
            break
        name = dice.choice(running)
        outcomes[name] = "failed" if dice.random() < bad else "completed"
        (play.fail if outcomes[name] == "failed" else play.ack)(name)
    assert play.state != "running"
    assert play.plans() == []
    assert recount_all(fold.dumps()) == []


def _cancelled(play: Play, model: Model, fold: Fold) -> None:
    """What had not ended is cancelled, and its jobs with it."""
    running = [play.job_of(name) for name, state in model.states.items() if state == "pending"]
    assert not play.cancel().refused
    ended = {name: state if state in (*OVER, "skipped") else "cancelled" for name, state in model.states.items()}
    assert play.states() == ended
    assert {fold.state(job_id) for job_id in running} == {"cancelled"}
    assert play.take() == {}
