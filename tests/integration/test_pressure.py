"""Redis has no room: 503 in bounded time, reads go on, nothing promised is lost. The broker: ``test_outages``."""

from __future__ import annotations

import asyncio
import time

from redis.asyncio import Redis

from tests.conftest import WorkerFactory
from tests.support.audit import audit
from tests.support.client import Client, until
from tests.support.history import Answer
from tests.support.servers import BrokerHandle, RedisHandle

QUEUE = "pressure"
JOB = {"type": "pressure.job", "args": [], "queue": QUEUE}
DEADLINE_S = 3.0
KNOWN_S = 2.0
SLACK_S = 3.0
"""What a noisy machine may add."""
BACK_S = 60.0
CLIENTS = 8


class Pushers:
    """Clients that enqueue one job after the other, whatever they are told."""

    def __init__(self, client: Client, url: str) -> None:
        self._client, self._url = client, url
        self.answers: list[Answer] = []
        self._tasks = [asyncio.create_task(self._push()) for _ in range(CLIENTS)]

    async def _push(self) -> None:
        while True:
            answer = await self._client.ask(self._url, "POST", "/jobs", JOB)
            self.answers.append(answer)
            if answer.status == 201:
                self._client.history.wanted[answer.body["id"]] = JOB
            await asyncio.sleep(0.05)

    async def have(self, status: int, count: int) -> None:
        """Wait until so many more answers have this status."""
        begun = len(self.answers)

        async def enough() -> bool:
            return sum(1 for answer in self.answers[begun:] if answer.status == status) >= count

        await until(enough, f"{count} answers with {status}", BACK_S)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def assert_refused_in_time(self) -> None:
        """Whatever was not stored was answered 503 with ``Retry-After``, within the deadline."""
        refused = [answer for answer in self.answers if answer.status != 201]
        assert [str(a) for a in refused if a.status != 503 or not a.retry_after] == []
        assert max(answer.took_s for answer in refused) < DEADLINE_S + SLACK_S


async def test_a_redis_without_memory_refuses_writes_and_goes_on_when_it_has_some(
    worker_factory: WorkerFactory, kafka: BrokerHandle, own_redis: RedisHandle, namespace: str
) -> None:
    worker = await worker_factory(
        partitions=2, redis_url=own_redis.url, env={"OJS_REQUEST_DEADLINE_MS": f"{DEADLINE_S * 1000:.0f}"}
    )
    async with Client() as client, Redis.from_url(own_redis.url) as redis:
        job = await client.enqueue(worker.url, QUEUE)
        pushers = Pushers(client, worker.url)
        await pushers.have(201, 20)
        used = int((await redis.info("memory"))["used_memory"])
        await redis.config_set("maxmemory", used // 2)
        await pushers.have(503, 3 * CLIENTS)
        health = await client.ask(worker.url, "GET", "/health")
        assert (health.status, "out of memory" in health.raw.decode()) == (503, True)
        reads = [f"/jobs/{job['id']}", f"/queues/{QUEUE}/stats", "/queues", "/events"]
        answers = [await client.ask(worker.url, "GET", path) for path in reads]
        assert [answer.status for answer in answers] == [200] * len(reads), list(map(str, answers))
        known = await client.ask(worker.url, "POST", "/jobs", JOB)
        assert (known.status, known.body["error"].get("details")) == (503, None), "nothing was written"
        assert known.took_s < KNOWN_S
        await redis.config_set("maxmemory", 0)
        begun = time.monotonic()
        await pushers.have(201, CLIENTS)
        print(f"Redis has memory again: first 201 within {time.monotonic() - begun:.1f} s")
        await pushers.stop()
        pushers.assert_refused_in_time()
        assert worker.alive
        found = await audit(
            client, worker.url, bootstrap=kafka.bootstrap, redis_url=own_redis.url, namespace=namespace
        )
    assert found == []


async def test_a_redis_that_evicts_ends_the_start_with_a_sentence(
    worker_factory: WorkerFactory, own_redis: RedisHandle
) -> None:
    async with Redis.from_url(own_redis.url) as redis:
        await redis.config_set("maxmemory-policy", "allkeys-lru")
    worker = await worker_factory(partitions=1, redis_url=own_redis.url, ready=False)
    assert await worker.process.wait(30), "it ended by itself"
    assert worker.process.exit_code != 0
    assert "Redis has maxmemory-policy allkeys-lru, it must be noeviction" in worker.log_tail(200)
    assert "CONFIG SET maxmemory-policy noeviction" in worker.log_tail(200)
