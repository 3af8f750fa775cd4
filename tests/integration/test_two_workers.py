"""Two workers on two ports: what one has answered, the other shows at once."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from ojs_stream.core.homes import home_of
from tests.conftest import WorkerFactory
from tests.support.audit import audit
from tests.support.client import Client, new_id, until
from tests.support.servers import BrokerHandle, RedisHandle, Worker

QUEUES = ["two-a", "two-b", "two-c", "two-d"]
STEPS = 120
SEED = 20_261


class Walk:
    """Random steps, each at a random worker, each looked at from the other one."""

    def __init__(self, client: Client, urls: list[str], seed: int) -> None:
        self.client, self.urls, self.dice = client, urls, random.Random(seed)
        self.states: dict[str, tuple[str, str]] = {}
        """job id -> (queue, the state it must have)"""
        self.dead: set[str] = set()

    async def step(self) -> None:
        acts = (self.enqueue, self.enqueue, self.fetch, self.fetch, self.ack, self.ack, self.nack, self.cancel)
        here, there = self.dice.sample(self.urls, 2)
        touched = await self.dice.choice(acts)(here)
        for job_id in touched:
            await self.look(there, job_id)

    def _some(self, state: str) -> str | None:
        found = [job_id for job_id, (_, now) in self.states.items() if now == state]
        return self.dice.choice(found) if found else None

    async def enqueue(self, url: str) -> list[str]:
        queue = self.dice.choice(QUEUES)
        more: dict[str, Any] = {"options": {"retry": {"max_attempts": 1, "on_exhaustion": "dead_letter"}}}
        if self.dice.random() < 0.5:
            more["id"] = new_id(self.dice)
        job = await self.client.enqueue(url, queue, args=[self.dice.random()], **more)
        self.states[job["id"]] = (queue, "available")
        return [job["id"]]

    async def fetch(self, url: str) -> list[str]:
        queue = self.dice.choice(QUEUES)
        oldest = [job_id for job_id, now in self.states.items() if now == (queue, "available")]
        count = self.dice.randint(1, 3)
        given = [job["id"] for job in await self.client.fetch(url, [queue], "w-1", count=count)]
        assert given == oldest[:count], "the oldest jobs of the queue, in order"
        self.states.update(dict.fromkeys(given, (queue, "active")))
        return given

    async def _end(self, url: str, state: str, path: str, **sent: Any) -> list[str]:
        job_id = self._some("active")
        if job_id is None:
            return []
        await self.client.must(url, "POST", path, {"job_id": job_id, "worker_id": "w-1", **sent})
        self.states[job_id] = (self.states[job_id][0], state)
        return [job_id]

    async def ack(self, url: str) -> list[str]:
        return await self._end(url, "completed", "/workers/ack", result={"ok": True})

    async def nack(self, url: str) -> list[str]:
        ended = await self._end(url, "discarded", "/workers/nack", error={"code": "bad", "message": "no"})
        self.dead.update(ended)
        return ended

    async def cancel(self, url: str) -> list[str]:
        job_id = self._some(self.dice.choice(["available", "active"]))
        if job_id is None:
            return []
        await self.client.must(url, "DELETE", f"/jobs/{job_id}")
        self.states[job_id] = (self.states[job_id][0], "cancelled")
        return [job_id]

    async def look(self, url: str, job_id: str) -> None:
        """One look a reader, no second try: the other worker must know already."""
        queue, state = self.states[job_id]
        job, stats, events, dead = await asyncio.gather(
            self.client.must(url, "GET", f"/jobs/{job_id}"),
            self.client.must(url, "GET", f"/queues/{queue}/stats"),
            self.client.must(url, "GET", "/events?limit=1000"),
            self.client.must(url, "GET", "/dead-letter?limit=100"),
        )
        assert job["job"]["state"] == state
        counted = [now for of, now in self.states.values() if of == queue]
        for name in ("available", "active", "completed", "cancelled", "discarded"):
            assert stats[name] == counted.count(name), f"{name} of {queue}"
        mine = [event["data"]["state"] for event in events["events"] if event["subject"] == job_id]
        assert mine, f"no event of {job_id}"
        assert mine[-1] == state
        assert {letter["id"] for letter in dead["jobs"]} == self.dead


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
async def test_what_one_worker_answered_the_other_shows_at_once(
    seed: int, worker_factory: WorkerFactory, kafka: BrokerHandle, redis_server: RedisHandle, namespace: str
) -> None:
    workers = await asyncio.gather(worker_factory(), worker_factory())
    async with Client() as client:
        walk = Walk(client, [worker.url for worker in workers], seed)
        for _ in range(STEPS):
            await walk.step()
        wrong = await audit(
            client,
            workers[0].url,
            bootstrap=kafka.bootstrap,
            redis_url=redis_server.url,
            namespace=namespace,
        )
    assert wrong == []


async def test_a_job_made_here_is_fetched_there_and_acknowledged_here(worker_factory: WorkerFactory) -> None:
    first, second = await asyncio.gather(worker_factory(), worker_factory())
    async with Client() as client:
        for number in range(10):
            queue = f"chain-{number % 3}"
            job = await client.enqueue(first.url, queue, id=new_id(random.Random(number)), args=[number])
            (taken,) = await client.fetch(second.url, [queue], "w-2")
            assert (taken["id"], taken["args"]) == (job["id"], [number])
            assert (await client.ack(first.url, job["id"], worker_id="w-2"))["state"] == "completed"
            refused = await client.ask(second.url, "POST", "/workers/ack", {"job_id": job["id"]})
            assert (refused.status, refused.code) == (409, "conflict")


async def _homes_of(client: Client, worker: Worker) -> list[int]:
    ready = await client.must(worker.url, "GET", "/../../ready")
    return [partition["partition"] for partition in ready["partitions"]]


async def test_an_accepted_job_is_never_denied_while_its_home_sleeps(worker_factory: WorkerFactory) -> None:
    """The id is decided at one home, the job lives at another that is slow: "on its way", not "not found"."""
    awake, asleep = await asyncio.gather(worker_factory(partitions=4), worker_factory(partitions=4))
    async with Client() as client:

        async def shared() -> bool:
            return len(await _homes_of(client, awake)) == len(await _homes_of(client, asleep)) == 2

        await until(shared, "two homes each")
        here, there = await _homes_of(client, awake), await _homes_of(client, asleep)
        dice = random.Random(5)
        job_id = next(one for one in iter(lambda: new_id(dice), "") if home_of(one, 4) in here)
        queue = next(f"far-{n}" for n in range(1000) if home_of(f"far-{n}", 4) in there)
        asleep.stop_cont(stopped=True)
        await client.enqueue(awake.url, queue, id=job_id)
        read = await client.ask(awake.url, "GET", f"/jobs/{job_id}")
        again = await client.ask(awake.url, "POST", "/jobs", {"type": "a.b", "args": [], "id": job_id})
        asleep.stop_cont(stopped=False)
        assert (read.status, bool(read.retry_after)) == (503, True), str(read)
        assert again.status in (409, 503), str(again)
        assert (await client.job(awake.url, job_id) or {})["state"] == "available"
