"""The faults of a chaos run: each breaks something under load, mends it, and notes how long nobody was served."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis

from ojs_stream.dev.redis import EmbeddedRedis
from tests.support.servers import Worker
from tools.chaos.proxy import Mode
from tools.chaos.site import START_S, Site, start_all
from tools.chaos.watch import BareProducer, ReadyWatch, all_served

WORKER_DEAD_S = 8.0
BARE_BEHIND_S = 2.0
REDIS_KEPT_S = 5.0
REDIS_WIPED_S = 5.0
"""On top of what ``/ready`` promised: until the loss is noticed and the homes have begun."""
LINE_MENDED_S = 30.0
"""The longest time-out of a client library that waits at a dead connection."""
ZOMBIE_S = 30.0
AWAY_S = 60.0
LINE_S = 8.0
"""Longer than a session of the group: a worker that nobody hears of loses its homes."""
STORMS = 4
STORM_S = 20.0
"""A worker that died while the broker was away: two waits, one after the other."""
CHURN_TIMES = 8
KILLS = 3
RESTARTS = 2
PREFILL_JOBS = 6_000
PREFILL_BATCH = 500
MODES: tuple[Mode, ...] = ("latency", "cut", "half_open", "drip")


@dataclass(frozen=True, slots=True)
class Back:
    """How long something took, and how long it may."""

    what: str
    seconds: float
    bound_s: float

    @property
    def holds(self) -> bool:
        """Whether it was in time."""
        return self.seconds <= self.bound_s


@dataclass(slots=True, kw_only=True)
class Scene:
    """What a fault acts on."""

    site: Site
    dice: random.Random
    calm_s: float
    """So long the load runs undisturbed before and between faults."""
    backs: list[Back] = field(default_factory=list)
    mended_at: float = 0.0
    """When the last fault was over."""

    def note(self, what: str, seconds: float, bound_s: float) -> None:
        """Something was back."""
        self.backs.append(Back(what, max(0.0, seconds), bound_s))

    def mended(self) -> float:
        """The fault is over now."""
        self.mended_at = time.monotonic()
        return self.mended_at

    async def calm(self) -> None:
        """Let the load run."""
        await asyncio.sleep(self.calm_s)

    async def served(self) -> float:
        """When every home serves at every living worker."""
        living = [worker.url for worker in self.site.workers if worker.alive]
        return await all_served(self.site, living, self.dice)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of fault: what it is called, what it needs, what it does."""

    name: str
    run: Callable[[Scene], Awaitable[None]]
    durable: bool = True
    """Redis has an append-only file."""
    proxied: bool = False


# ------------------------------------------------------------------ workers


async def kill(scene: Scene) -> None:
    """SIGKILL a worker, start it again."""
    for _ in range(KILLS):
        await scene.calm()
        await kill_one(scene, scene.dice.choice(scene.site.workers))


async def kill_one(scene: Scene, victim: Worker) -> None:
    """The others serve everything soon; then the victim comes back."""
    victim.kill()
    begun = scene.mended()
    scene.note("others after a kill", await scene.served() - begun, WORKER_DEAD_S)
    await victim.start(START_S)


async def zombie(scene: Scene) -> None:
    """SIGSTOP two workers one after the other for 30 s each; they wake while others have their homes."""
    for victim in scene.dice.sample(scene.site.workers, 2):
        await scene.calm()
        others = [worker.url for worker in scene.site.workers if worker is not victim]
        victim.stop_cont(stopped=True)
        begun = time.monotonic()
        try:
            scene.note(
                "others beside a zombie", await all_served(scene.site, others, scene.dice) - begun, WORKER_DEAD_S
            )
            await asyncio.sleep(max(0.0, begun + ZOMBIE_S - time.monotonic()))
        finally:
            victim.stop_cont(stopped=False)
        woken = scene.mended()
        scene.note("all after it woke", await scene.served() - woken, WORKER_DEAD_S)


async def churn(scene: Scene) -> None:
    """Workers leave and join, one every few seconds; one always stays."""
    await scene.calm()
    for _ in range(CHURN_TIMES):
        worker = scene.dice.choice(scene.site.workers[1:])
        if worker.alive:
            await worker.terminate()
        else:
            worker.launch()
        await asyncio.sleep(scene.dice.uniform(1.0, 4.0))
    await start_all([worker for worker in scene.site.workers if not worker.alive])
    begun = scene.mended()
    scene.note("all after the last joined", await scene.served() - begun, WORKER_DEAD_S)


# ------------------------------------------------------------------ Redis


async def redis_kept(scene: Scene) -> None:
    """SIGKILL a Redis with its file written every second: it may have lost the last second."""
    for _ in range(RESTARTS):
        await scene.calm()
        scene.site.redis.kill()
        await asyncio.sleep(scene.dice.uniform(0.2, scene.calm_s))
        await scene.site.redis.start()
        begun = scene.mended()
        scene.note("all after Redis was back", await scene.served() - begun, REDIS_KEPT_S)


async def redis_lost(scene: Scene) -> None:
    """SIGKILL a Redis that keeps nothing: all comes back from the log."""
    await prefill(scene)
    for _ in range(RESTARTS):
        await scene.calm()
        async with _as_promised(scene, "all after Redis was back empty"):
            scene.site.redis.kill()
            await scene.site.redis.start()


async def flush(scene: Scene) -> None:
    """FLUSHALL and SCRIPT FLUSH under load, three times."""
    await prefill(scene)
    for _ in range(KILLS):
        await scene.calm()
        await flush_once(scene)


async def flush_once(scene: Scene) -> None:
    """Everything is gone at once; everybody is served again in the time that ``/ready`` says."""
    async with _as_promised(scene, "all after FLUSHALL"), Redis.from_url(scene.site.redis.url) as redis:
        await redis.flushall()
        await redis.script_flush()


async def redis_old(scene: Scene) -> None:
    """A copy of an older Redis is put in its place: it looks right and is behind."""
    assert scene.site.older is not None
    assert isinstance(scene.site.redis, EmbeddedRedis)
    stored, kept = scene.site.redis.data / "dump.rdb", scene.site.older / "older.rdb"
    for _ in range(RESTARTS):
        async with Redis.from_url(scene.site.redis.url) as redis:
            await redis.save()
        await asyncio.to_thread(shutil.copy, stored, kept)
        await scene.calm()
        async with _as_promised(scene, "all after an older Redis"):
            await _replace(scene.site.redis, stored, kept)


async def _replace(redis: EmbeddedRedis, stored: Path, kept: Path) -> None:
    redis.kill()
    await asyncio.to_thread(shutil.copy, kept, stored)
    await redis.start()


@asynccontextmanager
async def _as_promised(scene: Scene, what: str) -> AsyncIterator[None]:
    """Wait until all are served after the block, and compare with what ``/ready`` said meanwhile."""
    async with ReadyWatch(scene.site) as ready:
        yield
        begun = scene.mended()
        seconds = await scene.served() - begun
    promised_s = max(0.0, ready.promised_at - begun)
    scene.note(f"{what} (promised {promised_s:.1f})", seconds, promised_s + REDIS_WIPED_S)


async def prefill(scene: Scene) -> None:
    """Thousands of jobs for later: a catch-up that takes its time, and that a lost record would show in."""
    for start in range(0, PREFILL_JOBS, PREFILL_BATCH):
        queue = scene.dice.choice(scene.site.queues)
        job = {"type": "chaos.later", "queue": queue, "options": {"scheduled_at": "+PT10H"}}
        jobs = [{**job, "args": [number]} for number in range(start, start + PREFILL_BATCH)]
        body = await scene.site.client.must(scene.site.urls[0], "POST", "/jobs/batch", {"jobs": jobs})
        for made, wanted in zip(body["jobs"], jobs, strict=True):
            scene.site.client.history.wanted[made["id"]] = wanted


# ------------------------------------------------------------------ Kafka


async def broker_killed(scene: Scene) -> None:
    """SIGKILL the broker and start it at once."""
    for _ in range(RESTARTS):
        await scene.calm()
        await _without_broker(scene, 0.0)


async def broker_away(scene: Scene) -> None:
    """No broker for a minute."""
    await scene.calm()
    await _without_broker(scene, AWAY_S)


async def _without_broker(scene: Scene, away_s: float) -> None:
    """All are served soon after a bare producer is."""
    async with BareProducer(scene.site) as bare:
        scene.site.kafka.kill()
        killed = time.monotonic()
        probing = asyncio.create_task(scene.served())
        await asyncio.sleep(away_s)
        await scene.site.kafka.start()
        scene.mended()
        served, alone = await probing, await bare.served_after(killed)
    scene.note(f"all after a bare producer ({alone - killed:.1f} s after the kill)", served - alone, BARE_BEHIND_S)


# ------------------------------------------------------------------ lines


async def kafka_lines(scene: Scene) -> None:
    """Slow, cut, half-open, dripping lines to Kafka, of one worker or of all."""
    await _lines(scene, "kafka")


async def redis_lines(scene: Scene) -> None:
    """The same between workers and Redis."""
    await _lines(scene, "redis")


async def _lines(scene: Scene, server: str) -> None:
    for mode in scene.dice.sample(MODES, len(MODES)):
        await scene.calm()
        whole = scene.dice.random() < 0.5
        lines = scene.site.lines if whole else [scene.dice.choice(scene.site.lines)]
        proxies = [line.kafka if server == "kafka" else line.redis for line in lines]
        for proxy in proxies:
            proxy.set(mode)
        await asyncio.sleep(LINE_S)
        for proxy in proxies:
            proxy.set("open")
        begun = scene.mended()
        who = "all" if whole else "one"
        scene.note(f"all after {mode} of {who}", await scene.served() - begun, LINE_MENDED_S)


# ------------------------------------------------------------------ several at once


async def storm(scene: Scene) -> None:
    """Two things break at the same moment, again and again."""
    await prefill(scene)
    for _ in range(STORMS):
        await scene.calm()
        hits = scene.dice.sample(STORM, 2)
        living = await asyncio.gather(*(hit(scene) for hit in hits))
        begun = scene.mended()
        what = " and ".join(hit.__name__.strip("_").replace("_", " ") for hit in hits)
        scene.note(f"all after {what}", await scene.served() - begun, STORM_S)
        await start_all([worker for worker in living if worker is not None and not worker.alive])


async def _kill_a_worker(scene: Scene) -> Worker | None:
    victim = scene.dice.choice(scene.site.workers)
    victim.kill()
    return victim


async def _stop_a_worker(scene: Scene) -> Worker | None:
    victim = scene.dice.choice(scene.site.workers)
    if victim.alive:
        victim.stop_cont(stopped=True)
        await asyncio.sleep(LINE_S)
        if victim.alive:
            victim.stop_cont(stopped=False)
    return None


async def _wipe_redis(scene: Scene) -> Worker | None:
    async with Redis.from_url(scene.site.redis.url) as redis:
        await redis.flushall()
    return None


async def _kill_the_broker(scene: Scene) -> Worker | None:
    scene.site.kafka.kill()
    await scene.site.kafka.start()
    return None


STORM = (_kill_a_worker, _stop_a_worker, _wipe_redis, _kill_the_broker)

FAULTS = {
    fault.name: fault
    for fault in (
        Fault(name="kill", run=kill),
        Fault(name="zombie", run=zombie),
        Fault(name="churn", run=churn),
        Fault(name="redis-aof", run=redis_kept),
        Fault(name="redis-none", run=redis_lost, durable=False),
        Fault(name="flush", run=flush),
        Fault(name="redis-old", run=redis_old, durable=False),
        Fault(name="broker-kill", run=broker_killed),
        Fault(name="broker-away", run=broker_away),
        Fault(name="kafka-lines", run=kafka_lines, proxied=True),
        Fault(name="redis-lines", run=redis_lines, proxied=True),
        Fault(name="storm", run=storm),
    )
}
