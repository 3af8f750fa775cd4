"""Complete lives over HTTP: enqueued in every way, fetched, acknowledged, failed and retried, with heartbeats.

Actors go in turns: each enqueues something, takes what is there, ends it. Unpaced they measure what the servers
can do; paced they start their turns at fixed instants, however long the one before took.
"""

from __future__ import annotations

import asyncio
import random
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import orjson

from tools.bench.asker import Asker, Said
from tools.bench.load import percentile

API = "/ojs/v1"
QUEUES = tuple(f"soak-{number}" for number in range(12))
FETCH_COUNT = 4
FETCH_QUEUES = 3
BATCH_JOBS = 5
CHAIN_JOBS = 2
UNIQUE_ARGS = 200
LIMIT_KEYS = 4
LIMIT_CONCURRENCY = 20
FAIL_SHARE = 0.08
BEAT_S = 5.0
"""A worker that is silent for 30 s is taken for dead and loses its leases."""
RETRY = {"max_attempts": 8, "initial_interval": "PT0.3S", "jitter": False, "on_exhaustion": "discard"}
DOOMED = {"max_attempts": 2, "initial_interval": "PT0.2S", "jitter": False, "on_exhaustion": "dead_letter"}
FAILURE = {"code": "soak", "message": "as planned", "retryable": True}


@dataclass(slots=True)
class Tally:
    """Answers by operation and status, and what they took."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: defaultdict[str, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("f")))
    lives: int = 0
    """Jobs that have come to their end."""
    error_sample: str = ""

    def take(self, operation: str, said: Said) -> None:
        """Note an answer."""
        self.answers[operation, said.status] += 1
        self.seconds[operation].append(said.took_s)
        if not said.accepted and not self.error_sample:
            self.error_sample = f"{operation}: {said.status} {said.body[:300].decode(errors='replace')}"

    def add(self, other: Tally) -> None:
        """Take in what another one has."""
        self.answers += other.answers
        self.lives += other.lives
        self.error_sample = self.error_sample or other.error_sample
        for operation, seconds in other.seconds.items():
            self.seconds[operation].extend(seconds)

    @property
    def errors(self) -> int:
        """How many answers were not 2xx."""
        return sum(count for (_, status), count in self.answers.items() if not 200 <= status < 300)

    def shown(self) -> dict[str, Any]:
        """The figures, as JSON takes them."""
        return {
            "lives": self.lives,
            "errors": self.errors,
            "answers": {f"{operation} {status}": n for (operation, status), n in sorted(self.answers.items())},
            "latency_ms": {
                operation: _percentiles(seconds) for operation, seconds in sorted(self.seconds.items())
            },
        }


def _percentiles(seconds: array[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {name: round(percentile(ordered, share) * 1000, 2) for name, share in (("p50", 0.5), ("p99", 0.99))}


class Load:
    """Actors against some workers, until they are told to stop."""

    def __init__(self, ports: list[int], *, actors: int, turns_per_s: float | None = None, seed: int = 1) -> None:
        self.window = Tally()
        self._askers = [Asker(port) for port in ports]
        self._over = asyncio.Event()
        self._pause_s = actors / turns_per_s if turns_per_s else 0.0
        self._actors = [Actor(self, f"soak-{n}", random.Random(f"{seed}/{n}")) for n in range(actors)]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open a connection for each actor at each worker, and begin."""
        for asker in self._askers:
            await asker.open(len(self._actors))
        self._tasks = [asyncio.create_task(actor.live(self._pause_s)) for actor in self._actors]

    @property
    def over(self) -> bool:
        """Whether no new turn begins."""
        return self._over.is_set()

    def take_window(self) -> Tally:
        """What was counted since the last call."""
        taken, self.window = self.window, Tally()
        return taken

    async def ask(self, operation: str, path: str, body: dict[str, Any], dice: random.Random) -> Said:
        """One request to any of the workers."""
        said = await dice.choice(self._askers).post(API + path, orjson.dumps(body))
        self.window.take(operation, said)
        return said

    async def stop(self) -> None:
        """End after the turns that are under way."""
        self._over.set()
        await asyncio.gather(*self._tasks)
        for asker in self._askers:
            asker.close()


class Actor:
    """Producer and worker in one."""

    def __init__(self, load: Load, name: str, dice: random.Random) -> None:
        self._load = load
        self._name = name
        self._dice = dice
        self._beat_at = 0.0

    async def live(self, pause_s: float) -> None:
        """Turn after turn."""
        due = perf_counter() + self._dice.random() * pause_s
        while not self._load.over:
            if pause_s:
                await asyncio.sleep(due - perf_counter())
                due += pause_s
            await self._produce()
            await self.work(self._dice.sample(QUEUES, FETCH_QUEUES))
            await self._beat()

    async def work(self, queues: Sequence[str]) -> int:
        """Take what queues have and end it; how many jobs that were."""
        wanted = {"queues": list(queues), "count": FETCH_COUNT, "worker_id": self._name}
        said = await self._load.ask("fetch", "/workers/fetch", wanted, self._dice)
        jobs = orjson.loads(said.body)["jobs"] if said.accepted else []
        for job in jobs:
            await self._end(job)
        return len(jobs)

    async def _end(self, job: dict[str, Any]) -> None:
        about = {"job_id": job["id"], "worker_id": self._name}
        doomed = job["args"][0] == "doomed"
        if doomed or self._dice.random() < FAIL_SHARE:
            said = await self._load.ask("nack", "/workers/nack", {**about, "error": FAILURE}, self._dice)
            self._load.window.lives += said.accepted and doomed and job["attempt"] >= DOOMED["max_attempts"]
        else:
            said = await self._load.ask("ack", "/workers/ack", {**about, "result": {"by": self._name}}, self._dice)
            self._load.window.lives += said.accepted

    async def _beat(self) -> None:
        if perf_counter() >= self._beat_at:
            self._beat_at = perf_counter() + BEAT_S
            about = {"worker_id": self._name, "state": "running", "active_jobs": 0}
            await self._load.ask("heartbeat", "/workers/heartbeat", about, self._dice)

    # -- what is enqueued ---------------------------------------------------------------------------------

    async def _produce(self) -> None:
        kinds, weights = zip(*MIX, strict=True)
        await self._dice.choices(kinds, weights)[0](self)

    async def _enqueue(self, word: str, **options: Any) -> None:
        job = self._job(word, **options)
        await self._load.ask("enqueue", "/jobs", job, self._dice)

    def _job(self, word: str, **options: Any) -> dict[str, Any]:
        args = [word, self._dice.randrange(UNIQUE_ARGS)]
        queue = self._dice.choice(QUEUES)
        return {"type": f"soak.{word}", "queue": queue, "args": args, "options": {"retry": RETRY, **options}}

    async def single(self) -> None:
        """An ordinary job; sometimes with an id of the client's own."""
        job = self._job("single")
        if self._dice.random() < 0.3:
            job["id"] = _new_id(self._dice)
        await self._load.ask("enqueue", "/jobs", job, self._dice)

    async def scheduled(self) -> None:
        """A job for a moment from now."""
        await self._enqueue("later", scheduled_at=f"+PT{self._dice.uniform(0.2, 3.0):.1f}S")

    async def unique(self) -> None:
        """A job that may stand for one that waits already."""
        await self._enqueue("unique", unique={"keys": ["type", "args"], "on_conflict": "ignore"})

    async def limited(self) -> None:
        """A job of a key that lets a few run at once."""
        key = f"soak-{self._dice.randrange(LIMIT_KEYS)}"
        await self._enqueue("limited", rate_limit={"key": key, "concurrency": LIMIT_CONCURRENCY})

    async def doomed(self) -> None:
        """A job that fails until it is a dead letter."""
        await self._enqueue("doomed", retry=DOOMED)

    async def batch(self) -> None:
        """Some jobs in one request, over several homes."""
        jobs = [self._job("batch") for _ in range(BATCH_JOBS)]
        await self._load.ask("batch", "/jobs/batch", {"jobs": jobs}, self._dice)

    async def chain(self) -> None:
        """One job after another."""
        steps = [self._job("chain") for _ in range(CHAIN_JOBS)]
        await self._load.ask(
            "workflow", "/workflows", {"type": "chain", "name": "soak", "steps": steps}, self._dice
        )


MIX: tuple[tuple[Any, float], ...] = (
    (Actor.single, 0.62),
    (Actor.scheduled, 0.1),
    (Actor.unique, 0.1),
    (Actor.limited, 0.06),
    (Actor.doomed, 0.02),
    (Actor.batch, 0.06),
    (Actor.chain, 0.04),
)
JOBS_OF = {Actor.batch: BATCH_JOBS, Actor.chain: CHAIN_JOBS}
LIVES_PER_TURN = sum(JOBS_OF.get(kind, 1) * weight for kind, weight in MIX)


def _new_id(dice: random.Random) -> str:
    """A UUIDv7 that a client made."""
    a, b, c = dice.getrandbits(48), dice.getrandbits(12), dice.getrandbits(62) | 2 << 62
    text = f"{a:012x}7{b:03x}{c:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
