"""The course of a soak: capacity, the long load with samples, the drain, and what is left behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import orjson

from tools.bench.asker import Asker
from tools.bench.servers import Servers
from tools.demo.target import TargetError
from tools.soak.load import API, LIVES_PER_TURN, QUEUES, Actor, Load, Tally
from tools.soak.sample import Kind, Looker, Sample

CAPACITY_ACTORS = 24
CAPACITY_S = 20.0
SHARE = 0.5
SAMPLE_S = 10.0
DRAIN_S = 60.0
LOOK_S = 0.5
CRON = {"name": "soak", "cron": "* * * * *", "type": "soak.cron", "args": ["cron", 0], "queue": "soak-0"}

_POSITIONS = ("applied", "home", "acked", "events", "outbox", "outcome:*")
_OF_QUEUES_AND_WORKERS = ("queue:*", "queues", "minute:*", "worker:*", "workers", "cron:*", "crons")
_OF_LIMITS = ("limit:*", "limits")
_DEADLINES = ("due:cron", "due:reap", "due:run")
STAYING = frozenset((*_POSITIONS, *_OF_QUEUES_AND_WORKERS, *_OF_LIMITS, *_DEADLINES))
"""What is there when no job is: positions, rings, counters of queues, workers for a day, limits for an hour."""

Say = Callable[[str, float], None]
"""(what happens, seconds done)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long, how much."""

    seconds: float
    rate_per_s: float | None
    """At most so many lives per second; half of the capacity when it is less, or nothing is said."""
    retention_s: float
    capacity_s: float = CAPACITY_S
    sample_s: float = SAMPLE_S
    actors: int = CAPACITY_ACTORS


@dataclass(slots=True, kw_only=True)
class Found:
    """What a run gave."""

    capacity_per_s: float = 0.0
    rate_per_s: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    total: Tally = field(default_factory=Tally)
    left: dict[str, Kind] = field(default_factory=dict)
    """Kinds of keys that were there when every job had ended and its retention was over."""


class Soak:
    """One run against workers that are ready."""

    def __init__(self, servers: Servers, plan: Plan, say: Say) -> None:
        self._servers = servers
        self._plan = plan
        self._say = say
        self._found = Found()
        names = [f"worker {number + 1}" for number in range(len(servers.workers))]
        pids = {name: worker.process.pid for name, worker in zip(names, servers.workers, strict=True)}
        self._looker = Looker(pids, dict(zip(names, servers.ports, strict=True)), servers.redis_url)

    async def run(self) -> Found:
        """Everything, in its order."""
        try:
            self._say("measuring capacity", 0.0)
            self._found.capacity_per_s = await self._capacity()
            half = SHARE * self._found.capacity_per_s
            self._found.rate_per_s = min(half, self._plan.rate_per_s or half)
            if not self._found.rate_per_s:
                raise TargetError("no job has come to its end while capacity was measured")
            await self._cron("")
            await self._soak()
            self._say("draining", self._plan.seconds)
            await self._cron(f"/{CRON['name']}/pause")
            await self._drain()
        finally:
            await self._looker.close()
        return self._found

    async def _capacity(self) -> float:
        load = Load(self._servers.ports, actors=self._plan.actors, seed=0)
        await load.start()
        await asyncio.sleep(self._plan.capacity_s / 10)
        self._found.total.add(load.take_window())
        begun = perf_counter()
        await asyncio.sleep(self._plan.capacity_s)
        window = load.take_window()
        per_s = window.lives / (perf_counter() - begun)
        await load.stop()
        window.add(load.take_window())
        self._found.total.add(window)
        return per_s

    async def _cron(self, path: str) -> None:
        """A job every minute, of nobody's asking; from the beginning to the drain."""
        asker = Asker(self._servers.ports[0])
        said = await asker.post(f"{API}/cron{path}", b"{}" if path else orjson.dumps(CRON))
        self._found.total.take("cron", said)
        asker.close()

    async def _soak(self) -> None:
        plan, begun = self._plan, perf_counter()
        load = Load(
            self._servers.ports, actors=plan.actors, turns_per_s=self._found.rate_per_s / LIVES_PER_TURN, seed=1
        )
        await load.start()
        due = plan.sample_s
        while due <= plan.seconds:
            await asyncio.sleep(begun + due - perf_counter())
            await self._sample(load, perf_counter() - begun)
            due += plan.sample_s
        await load.stop()
        self._found.total.add(load.take_window())

    async def _sample(self, load: Load, at_s: float) -> None:
        self._look_after()
        window = load.take_window()
        self._found.total.add(window)
        sample = await self._looker.look(at_s, window.shown())
        self._found.samples.append(sample)
        rss = ", ".join(f"{mib:.0f}" for mib in sample.rss_mib.values())
        jobs = sample.kinds["job:*"].keys if "job:*" in sample.kinds else 0
        self._say(f"RSS {rss} MiB, Redis {sample.redis_mib:.0f} MiB, {jobs} jobs, {window.errors} errors", at_s)

    def _look_after(self) -> None:
        for worker in self._servers.workers:
            if not worker.process.alive:
                raise TargetError(str(worker.process.ended()))

    async def _drain(self) -> None:
        """End what is left, wait for the retention, and look at what is still there."""
        load = Load(self._servers.ports, actors=0)
        actor = Actor(load, "soak-drain", random.Random(2))
        until = perf_counter() + DRAIN_S + self._plan.retention_s
        while perf_counter() < until:
            while await actor.work(QUEUES):
                pass
            self._found.left = await self._looker.kinds()
            if not self._found.left.keys() - STAYING:
                break
            await asyncio.sleep(LOOK_S)
        await load.stop()
        self._found.total.add(load.take_window())
