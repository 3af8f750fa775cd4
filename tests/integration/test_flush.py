"""A wiped Redis: everything comes back from the log, and no read answers from the empty one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.conftest import WorkerFactory
from tests.support.audit import audit
from tests.support.client import Client, Load, finish_all, until
from tests.support.replay import first_difference, stored_dumps
from tests.support.servers import BrokerHandle, RedisHandle

QUEUES = ["flush-a", "flush-b", "flush-c", "flush-d"]
FLUSHES = 3
KEPT = 12


async def _wipe(url: str) -> None:
    async with Redis.from_url(url) as redis:
        await redis.flushall()
        await redis.script_flush()


async def _some_of_everything(client: Client, url: str) -> None:
    """Jobs in all states but those that only time leads to."""
    for number in range(24):
        queue = QUEUES[number % len(QUEUES)]
        retry = {"max_attempts": 2, "initial_interval": "PT1H", "on_exhaustion": "dead_letter"}
        await client.enqueue(url, queue, args=[number], options={"retry": retry})
    await client.enqueue(url, QUEUES[0], options={"scheduled_at": "+PT1H"})
    waiting = await client.enqueue(url, QUEUES[1], options={"pending": True})
    await client.must(url, "DELETE", f"/jobs/{waiting['id']}")
    taken = await client.fetch(url, QUEUES, "keeper", count=12)
    for job in taken[:4]:
        await client.ack(url, job["id"], worker_id="keeper", result={"n": 2**70})
    for job in taken[4:8]:
        failure = {"code": "bad", "message": "no", "retryable": job is not taken[4]}
        await client.must(url, "POST", "/workers/nack", {"job_id": job["id"], "error": failure})
    await client.must(url, "POST", "/workers/heartbeat", {"worker_id": "keeper", "active_jobs": []})


async def test_what_was_wiped_while_all_were_stopped_comes_back(
    worker_factory: WorkerFactory, kafka: BrokerHandle, own_redis: RedisHandle, namespace: str
) -> None:
    first = await worker_factory(redis_url=own_redis.url)
    async with Client() as client:
        await _some_of_everything(client, first.url)
        assert await first.terminate()
        before = await stored_dumps(kafka.bootstrap, own_redis.url, namespace)
        await _wipe(own_redis.url)
        second = await worker_factory(redis_url=own_redis.url)
        wrong = await audit(
            client, second.url, bootstrap=kafka.bootstrap, redis_url=own_redis.url, namespace=namespace
        )
        assert wrong == []
        assert await second.terminate()
    after = await stored_dumps(kafka.bootstrap, own_redis.url, namespace)
    if [dump["applied"] for dump in before] == [dump["applied"] for dump in after]:
        assert first_difference(after, before) == ""


class Reader:
    """Looks at jobs that never change: each must be there, at every moment, or 503."""

    def __init__(self, client: Client, urls: list[str], kept: list[str]) -> None:
        self._client, self._urls, self._kept = client, urls, kept
        self.wrong: list[str] = []
        self.looks = 0
        self._task = asyncio.create_task(self._look())

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            for number, job_id in enumerate(self._kept):
                url = self._urls[number % len(self._urls)]
                await self._expect(url, f"/jobs/{job_id}", lambda body: body["job"]["state"] == "scheduled")
                await self._expect(url, "/queues/flush-kept/stats", lambda body: body["scheduled"] == KEPT)
                await self._expect(url, "/jobs?queue=flush-kept&limit=1", lambda body: body["total"] == KEPT)
                await asyncio.sleep(0.01)

    async def _expect(self, url: str, path: str, holds: Any) -> None:
        answer = await self._client.ask(url, "GET", path)
        self.looks += 1
        refused = answer.status == 503 and answer.retry_after
        if not refused and not (answer.accepted and holds(answer.body)):
            self.wrong.append(str(answer))


@pytest.mark.timeout(180)
async def test_what_was_wiped_under_load_comes_back_and_nobody_sees_it_missing(
    worker_factory: WorkerFactory, kafka: BrokerHandle, own_redis: RedisHandle, namespace: str
) -> None:
    workers = await asyncio.gather(*(worker_factory(redis_url=own_redis.url) for _ in range(2)))
    urls = [worker.url for worker in workers]
    async with Client() as client:
        kept = [
            (await client.enqueue(urls[0], "flush-kept", options={"scheduled_at": "+PT1H"}))["id"]
            for _ in range(KEPT)
        ]
        reader = Reader(client, urls, kept)
        load = Load(client, urls, QUEUES, clients=4, pause_s=0.1)
        healed = []
        for _ in range(FLUSHES):
            await asyncio.sleep(1.5)
            await _wipe(own_redis.url)
            healed.append(await _seconds_until_all_answer(client, urls))
        await load.stop()
        await reader.stop()
        await finish_all(client, urls[0], QUEUES)
        wrong = await audit(
            client, urls[1], bootstrap=kafka.bootstrap, redis_url=own_redis.url, namespace=namespace
        )
    print(f"FLUSHALL: all queues answered after {', '.join(f'{s:.1f}' for s in healed)} s; {reader.looks} looks")
    print(f"longest wait {client.history.longest_wait()}, answers {dict(client.history.statuses())}")
    assert wrong == []
    assert reader.wrong == []
    assert [str(answer) for answer in load.wrong + load.unsettled] == []
    assert max(healed) < 15


async def _seconds_until_all_answer(client: Client, urls: list[str]) -> float:
    begun = time.monotonic()

    async def all_answer() -> bool:
        wanted = [(url, queue) for url in urls for queue in QUEUES]
        answers = await asyncio.gather(*(client.ask(u, "GET", f"/queues/{q}/stats") for u, q in wanted))
        return all(answer.accepted for answer in answers)

    await until(all_answer, "stats of every queue at every worker", 30, 0.1)
    return time.monotonic() - begun
