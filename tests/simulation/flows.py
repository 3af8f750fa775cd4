"""Workflows of simulated clients, and what must have become of them: an oracle that knows nothing of the fold.

A drawn workflow is a list of jobs, each with the jobs that must complete before it, or that must end before it if
it is a callback. From the events of the jobs alone it follows which of them may have been born and how the
workflow must have ended.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from ojs_stream.core.commands import NewJob, NewStep
from ojs_stream.core.records import Flow

Event = dict[str, Any]
BIRTHS = ("job.enqueued", "job.scheduled", "job.pending")
ENDS = {
    "job.completed": "completed",
    "job.discarded": "failed",
    "job.expired": "failed",
    "job.cancelled": "failed",
}


@dataclass(frozen=True)
class Part:
    """One job of a workflow: what it needs, or after whose end it is called, and when."""

    job: str
    needs: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    callback: str = ""


@dataclass(frozen=True)
class Drawn:
    """A workflow as its client knows it; ``parts`` in the order of the steps that are jobs."""

    flow: Flow
    steps: tuple[NewStep, ...]
    parts: tuple[Part, ...]


New = Callable[[], NewJob]


def draw(rng: Random, new: New) -> Drawn:
    """Any kind of workflow."""
    return rng.choice((_chain, _chain, _group, _batch, _batch, _diamond, _nested))(rng, new)


def _step(number: int, job: NewJob | None, depends: Iterable[int] = (), **more: Any) -> NewStep:
    return NewStep(id=f"s{number}", type="sim.job", job=job, depends=tuple(depends), **more)


def _chain(rng: Random, new: New) -> Drawn:
    jobs = [new() for _ in range(rng.randint(1, 4))]
    steps = tuple(_step(n, job, [n - 1] if n else []) for n, job in enumerate(jobs))
    parts = tuple(Part(job.id, needs=tuple(range(n))) for n, job in enumerate(jobs))
    return Drawn(Flow(kind="chain", first=0, count=len(jobs), open=len(jobs)), steps, parts)


def _group(rng: Random, new: New) -> Drawn:
    jobs = [new() for _ in range(rng.randint(1, 5))]
    steps = tuple(_step(n, job) for n, job in enumerate(jobs))
    flow = Flow(kind="group", first=0, count=len(jobs), open=len(jobs))
    return Drawn(flow, steps, tuple(Part(job.id) for job in jobs))


def _batch(rng: Random, new: New) -> Drawn:
    group = _group(rng, new)
    count = group.flow.count
    names = rng.sample(("on_complete", "on_success", "on_failure"), rng.randint(1, 3))
    calls = [new() for _ in names]
    flow = Flow(
        kind="batch", first=0, count=count, open=count, **{name: count + n for n, name in enumerate(names)}
    )
    steps = [_step(count + n, job, callback=name) for n, (name, job) in enumerate(zip(names, calls, strict=True))]
    parts = [
        Part(job.id, after=tuple(range(count)), callback=name) for name, job in zip(names, calls, strict=True)
    ]
    return Drawn(flow, (*group.steps, *steps), (*group.parts, *parts))


def _diamond(_rng: Random, new: New) -> Drawn:
    jobs = [new() for _ in range(4)]
    wants: list[tuple[int, ...]] = [(), (0,), (0,), (1, 2)]
    steps = tuple(_step(n, job, wants[n]) for n, job in enumerate(jobs))
    parts = tuple(Part(job.id, needs=wants[n]) for n, job in enumerate(jobs))
    return Drawn(Flow(kind="dag", first=0, count=4, open=4), steps, parts)


def _nested(_rng: Random, new: New) -> Drawn:
    """A chain of a job, a group of two, and a job."""
    first, one, two, last = (new() for _ in range(4))
    inner = Flow(kind="group", first=3, count=2, open=2)
    steps = (
        _step(0, first),
        _step(1, None, [0], flow=inner),
        _step(2, last, [1]),
        _step(3, one, parent=1),
        _step(4, two, parent=1),
    )
    parts = (
        Part(first.id),
        Part(last.id, needs=(0, 2, 3)),
        Part(one.id, needs=(0,)),
        Part(two.id, needs=(0,)),
    )
    return Drawn(Flow(kind="chain", first=0, count=3, open=3), steps, parts)


# -- the oracle -----------------------------------------------------------------------------------------------


class Oracle:
    """What the events say of all workflows; ``problems`` are sentences."""

    def __init__(self, events: list[list[Event]]) -> None:
        self.problems: list[str] = []
        self._born: Counter[str] = Counter()
        self._end: dict[str, str] = {}
        """job -> how it ended the first time"""
        self._end_kind: dict[str, str] = {}
        self._told: dict[str, Counter[str]] = defaultdict(Counter)
        """workflow -> its events"""
        self._steps: Counter[tuple[str, str]] = Counter()
        # A job is at another home only after a retry of its dead letter: its first end is at its own home.
        for own in (True, False):
            for home, of_home in enumerate(events):
                for event in of_home:
                    if event["subject"].endswith(f"{home:03x}") is own:
                        self._note(event)

    def _note(self, event: Event) -> None:
        kind, subject = event["type"], event["subject"]
        if kind in BIRTHS:
            self._born[subject] += 1
        elif kind in ENDS:
            self._end.setdefault(subject, ENDS[kind])
            self._end_kind.setdefault(subject, kind)
        elif kind.startswith("workflow."):
            self._told[subject][kind] += 1
            if kind in ("workflow.step_completed", "workflow.step_failed"):
                self._steps[subject, event["data"]["step_id"]] += 1

    def twice(self) -> None:
        """A step ends once, a workflow starts and ends once."""
        self.problems += [
            f"step {step} of {name} ended {n} times" for (name, step), n in self._steps.items() if n > 1
        ]
        for name, told in self._told.items():
            ends = sum(told[f"workflow.{end}"] for end in ("completed", "failed", "cancelled"))
            if told["workflow.started"] != 1 or ends != 1:
                self.problems.append(f"workflow {name} started and ended with {dict(told)}")

    def check(self, name: str, drawn: Drawn, state: str) -> None:
        """A workflow that is stored with this state."""
        ends = [self._end.get(part.job, "") for part in drawn.parts]
        wanted = self._wanted(drawn.parts, ends)
        for part, want in zip(drawn.parts, wanted, strict=True):
            born = bool(self._born[part.job])
            if born and not want:
                self.problems.append(f"workflow {name}: job {part.job} should not be there: {ends}")
            if want and not born and state != "cancelled":
                self.problems.append(f"workflow {name}: job {part.job} was never born: {ends}")
            if born and part.job not in self._end:
                self.problems.append(f"workflow {name}: job {part.job} has not ended")
        members = [end for part, end in zip(drawn.parts, ends, strict=True) if not part.callback]
        outcome = "completed" if set(members) == {"completed"} else "failed"
        if state not in (outcome, "cancelled"):
            self.problems.append(f"workflow {name} is {state}, its jobs ended {ends}")

    def cancelled(self, name: str, job: str) -> None:
        """The job of a step that was cancelled with its workflow, both of one home: nothing could come between."""
        if self._end_kind.get(job) != "job.cancelled":
            self.problems.append(f"workflow {name} was cancelled, its job {job} had {self._end_kind.get(job)}")

    @staticmethod
    def _wanted(parts: tuple[Part, ...], ends: list[str]) -> list[bool]:
        wanted: list[bool] = []
        for part in parts:
            if not part.callback:
                wanted.append(all(ends[each] == "completed" for each in part.needs))
                continue
            bad = any(ends[each] != "completed" for each in part.after)
            wanted.append({"on_complete": True, "on_success": not bad, "on_failure": bad}[part.callback])
        return wanted
