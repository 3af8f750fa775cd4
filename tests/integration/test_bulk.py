"""Open-loop intake: what any Kafka client produces to the bulk topic becomes jobs, each once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from tests.conftest import WorkerFactory
from tests.support.checker import check
from tests.support.client import Client, until
from tests.support.replay import replay_difference
from tests.support.servers import BrokerHandle, RedisHandle, Worker
from tests.support.stranger import producer_to, read_topic
from tools.bench.backlog import measure
from tools.bench.servers import Servers

JOBS = 2_000
BACKLOG_JOBS = 20_000
DELAY_MS_MAX = 1_500.0
"""Of half of the requests. It was 5 s while an intake that is held up held up Faust's deliveries of the log."""
QUEUES = [f"bulk-{number}" for number in range(5)]


async def _produce(bootstrap: str, topic: str, partitions: int, jobs: int = JOBS) -> None:
    async with producer_to(bootstrap) as producer:
        waiting = []
        for number in range(jobs):
            job = {"type": "bulk.job", "queue": QUEUES[number % len(QUEUES)], "args": [number]}
            waiting.append(await producer.send(topic, json.dumps(job).encode(), partition=number % partitions))
        for future in waiting:
            await future


async def _available(client: Client, url: str) -> int:
    return sum([(await client.stats(url, queue))["available"] for queue in QUEUES])


async def _once_each(client: Client, url: str, kafka: BrokerHandle, redis: RedisHandle, namespace: str) -> None:
    """All of them are there, no number twice, and events and replay agree."""
    seen: list[int] = []
    events = await until(lambda: _births(kafka.bootstrap, namespace), "an event of every job", 15, 0.3)
    for queue in QUEUES:
        path = f"/jobs?queue={queue}&limit=100"
        while path:
            page = await client.must(url, "GET", path)
            seen += [job["args"][0] for job in page["jobs"]]
            cursor = page["pagination"].get("next_cursor") if len(page["jobs"]) == 100 else None
            path = f"/jobs?queue={queue}&limit=100&cursor={cursor}" if cursor else ""
    assert sorted(seen) == list(range(JOBS))
    assert [text for text in check(client.history, events, {}) if "never asked for" not in text] == []
    assert await replay_difference(kafka.bootstrap, redis.url, namespace) == ""


async def _births(bootstrap: str, namespace: str) -> dict[int, list[Any]] | None:
    events = await read_topic(bootstrap, f"{namespace}.events")
    subjects = {json.loads(record.value)["subject"] for records in events.values() for record in records}
    return events if len(subjects) >= JOBS else None


@pytest.mark.parametrize("killed", [False, True], ids=["in peace", "killed in the middle"])
async def test_bulk_records_become_jobs_exactly_once(
    killed: bool, worker_factory: WorkerFactory, kafka: BrokerHandle, redis_server: RedisHandle, namespace: str
) -> None:
    worker = await worker_factory(partitions=4)
    async with Client() as client:
        await _produce(kafka.bootstrap, f"{namespace}.commands.bulk", 4)
        if killed:
            await until(lambda: _available(client, worker.url), "some are in", 20, 0.01)
            first = await _available(client, worker.url)
            worker.kill()
            print(f"killed after {first} of {JOBS}")
            worker = await worker_factory(partitions=4)

        async def all_there() -> bool:
            return await _available(client, worker.url) >= JOBS

        await until(all_there, "all are in", 40, 0.2)
        await _once_each(client, worker.url, kafka, redis_server, namespace)


async def _redis_is_known_to_be_lost(client: Client, url: str) -> None:
    """From now on nothing is written: what is taken waits."""

    async def refused() -> bool:
        answer = await client.ask(url, "POST", "/jobs", {"type": "a.b", "args": []})
        return b"nothing was written" in answer.raw

    await until(refused, "Redis is known to be lost", 20, 0.1)


async def _waits(worker: Worker) -> None:
    async def said() -> bool:
        return "bulk intake holds" in worker.log_tail(1_000)

    await until(said, "a take is in hand", 20, 0.1)


async def test_a_take_that_a_stop_cuts_off_is_taken_again(
    worker_factory: WorkerFactory, kafka: BrokerHandle, own_redis: RedisHandle, namespace: str
) -> None:
    jobs = 50
    settings = {"partitions": 4, "redis_url": own_redis.url}
    worker = await worker_factory(env={"OJS_REQUEST_DEADLINE_MS": "3000"}, **settings)
    async with Client() as client:
        own_redis.kill()
        await _redis_is_known_to_be_lost(client, worker.url)
        await _produce(kafka.bootstrap, f"{namespace}.commands.bulk", 4, jobs)
        await _waits(worker)
        assert await worker.terminate(), "it ended by itself"
        await own_redis.start()
        worker = await worker_factory(**settings)

        async def all_there() -> bool:
            return await _available(client, worker.url) == jobs

        await until(all_there, "all are in", 20, 0.2)


async def test_a_backlog_does_not_hold_up_two_workers_api(
    worker_factory: WorkerFactory, kafka: BrokerHandle, redis_server: RedisHandle, namespace: str
) -> None:
    workers = [await worker_factory(partitions=4), await worker_factory(partitions=4)]
    servers = Servers(
        workers=[worker._worker for worker in workers],
        brokers=kafka.bootstrap,
        redis_url=redis_server.url,
        namespace=namespace,
        partitions=4,
    )
    figures = await measure(servers, jobs=BACKLOG_JOBS, rate_per_s=20.0, idle_s=2.0, console=Console(quiet=True))
    print(
        f"p50 {figures.idle_p50_ms:.1f} ms idle, {figures.during_p50_ms:.1f} ms during {figures.jobs_per_s:.0f}/s"
    )
    assert figures.errors == 0
    assert figures.during_p50_ms < DELAY_MS_MAX
    assert await replay_difference(kafka.bootstrap, redis_server.url, namespace) == ""
