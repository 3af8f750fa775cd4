"""One round: load, a fault, calm, the end of all work, and the audit of everything that was said."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.audit import Report, inspect
from tests.support.checker import distinct_events
from tests.support.history import Answer, History
from tools.chaos.crowd import Crowd
from tools.chaos.faults import Back, Fault, Scene
from tools.chaos.linear import violations
from tools.chaos.operations import Start, operations
from tools.chaos.site import Site, open_site

AFTER_S = 2.0
"""So long the load goes on after the last fault."""
DONE_S = 30.0
DONE_GIVE_UP_S = 90.0
FINISHERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the audit of a round says."""

    lost: list[str]
    twice: list[str]
    false: list[str]
    other: list[str]
    jobs: int
    checked: int
    """How many jobs had their history checked for an order."""

    @property
    def clean(self) -> bool:
        """Whether nothing at all was found."""
        return not (self.lost or self.twice or self.false or self.other)

    def __str__(self) -> str:
        text = f"{len(self.lost)} lost, {len(self.twice)} applied twice, {len(self.false)} false 2xx"
        return f"{text}, {len(self.other)} other" if self.other else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A round that is over."""

    fault: str
    seed: int
    requests: int
    answers: dict[str, int]
    backs: list[Back]
    verdict: Verdict
    took_s: float

    @property
    def in_time(self) -> bool:
        """Whether everything was back when it had to be."""
        return all(back.holds for back in self.backs)

    @property
    def slowest(self) -> Back:
        """The one that was nearest to its bound, or most beyond it."""
        return max(self.backs, key=lambda back: back.seconds / back.bound_s)

    def __str__(self) -> str:
        answers = ", ".join(f"{status}: {count}" for status, count in self.answers.items())
        back = max(back.seconds for back in self.backs[:-1])
        late = "".join(
            f"; LATE {one.what}: {one.seconds:.1f} of {one.bound_s:.1f} s" for one in self.backs if not one.holds
        )
        return (
            f"{self.fault}: {self.requests} requests ({answers}), back after {back:.1f} s, "
            f"all done after {self.backs[-1].seconds:.1f} s, {self.verdict}{late}"
        )


async def play(folder: Path, fault: Fault, *, seed: int, calm_s: float) -> Result:
    """One round with servers of its own."""
    begun = time.monotonic()
    async with open_site(folder, namespace="chaos", durable=fault.durable, proxied=fault.proxied) as site:
        scene = Scene(site=site, dice=random.Random(f"{fault.name}-{seed}"), calm_s=calm_s)
        verdict = await disturb(scene, fault, seed=seed)
    history = site.client.history
    return Result(
        fault=fault.name,
        seed=seed,
        requests=len(history.answers),
        answers=_answers(history),
        backs=scene.backs,
        verdict=verdict,
        took_s=time.monotonic() - begun,
    )


async def disturb(scene: Scene, fault: Fault, *, seed: int) -> Verdict:
    """Load before, in and after the fault; then all work ends and everything is looked at."""
    site = scene.site
    crowd = Crowd(site.client, site.urls, site.queues, seed=seed)
    try:
        await fault.run(scene)
        await asyncio.sleep(AFTER_S)
    finally:
        await crowd.stop()
    done_at, left = await _all_done(site)
    scene.note("all done", done_at - scene.mended_at, DONE_S)
    return await judge(site, crowd, left)


async def judge(site: Site, crowd: Crowd, left: list[str]) -> Verdict:
    """Client history, log, Redis and events topic against each other, and an order for each job."""
    report = await inspect(
        site.client,
        site.urls[0],
        bootstrap=site.kafka.bootstrap,
        redis_url=site.redis.url,
        namespace=site.namespace,
    )
    histories, strange = operations(site.client.history, _starts(report))
    disordered = await asyncio.to_thread(violations, histories)
    found = report.findings
    return Verdict(
        lost=found.lost,
        twice=found.twice + strange,
        false=found.false + [f"not linearizable: {text}" for text in disordered],
        other=left + found.other + [str(answer) for answer in crowd.wrong + crowd.unsettled],
        jobs=report.jobs,
        checked=len(histories),
    )


def _starts(report: Report) -> dict[str, list[Start]]:
    starts: dict[str, list[Start]] = defaultdict(list)
    for event in distinct_events(report.events)[0]:
        if event["type"] == "job.started":
            starts[event["subject"]].append(Start(event["data"]["attempt"], event["data"].get("worker_id") or ""))
    return starts


async def _all_done(site: Site) -> tuple[float, list[str]]:
    """Work until no queue has anything that waits or is leased: the moment of it, or what is stuck."""
    finishing = [asyncio.create_task(_finish(site, url)) for url in (site.urls * FINISHERS)[:FINISHERS]]
    deadline = time.monotonic() + DONE_GIVE_UP_S
    try:
        while (left := await _left(site)) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        return time.monotonic(), left
    finally:
        for task in finishing:
            task.cancel()
        for ended in await asyncio.gather(*finishing, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


async def _left(site: Site) -> list[str]:
    """What waits or is leased."""
    queues = [*site.queues, *site.probes]
    found = await asyncio.gather(*(site.client.stats(site.urls[0], queue) for queue in queues))
    return [
        f"queue {queue} still has {stats[state]} {state}"
        for queue, stats in zip(queues, found, strict=True)
        for state in ("available", "active", "retryable")
        if stats[state]
    ]


async def _finish(site: Site, url: str) -> None:
    client, queues = site.client, [*site.queues, *site.probes]
    while True:
        answer = await client.ask(url, "POST", "/workers/fetch", {"queues": queues, "count": 50})
        jobs: list[dict[str, Any]] = answer.body["jobs"] if answer.accepted else []
        await asyncio.gather(*(client.ask(url, "POST", "/workers/ack", {"job_id": job["id"]}) for job in jobs))
        if not jobs:
            await asyncio.sleep(0.1)


def _answers(history: History) -> dict[str, int]:
    def name(answer: Answer) -> str:
        return str(answer.status or ("nobody there" if answer.refused_connection else "cut"))

    counts: dict[str, int] = defaultdict(int)
    for answer in history.answers:
        counts[name(answer)] += 1
    return dict(sorted(counts.items()))
