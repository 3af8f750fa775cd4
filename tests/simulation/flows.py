"""Workflows of simulated clients.

A drawn workflow is a list of jobs, each with the jobs that must complete before it, or that must end before it if
it is a callback. What must have become of it: ``oracle.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from ojs_stream.core.commands import NewJob, NewStep
from ojs_stream.core.records import Flow
from tests.simulation.history import Drawn, Part

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
