"""Redis or Kafka is away: 503 in bounded time, never a false 2xx, and everything works again by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import WorkerFactory
from tests.support.audit import audit
from tests.support.client import Client, until
from tests.support.history import Answer
from tests.support.servers import BrokerHandle, RedisHandle, make_broker

QUEUE = "outage"
JOB = {"type": "outage.job", "args": [], "queue": QUEUE}
DEADLINE_S = 10.0
REDIS_DEADLINE_S = 3.0
"""A shorter deadline, since the test waits for it."""
KNOWN_DOWN_S = 2.0
SLACK_S = 3.0
"""What a noisy machine may add."""
VISIBILITY_MS = 4_000
"""The outage is longer than twice this."""
BACK_S = 60.0


@pytest.fixture
async def own_kafka(tmp_path: Path) -> AsyncIterator[BrokerHandle]:
    server = make_broker(tmp_path / "own")
    await server.start()
    yield server
    server.kill()
    await server.stop()


def _assert_refused(answers: list[Answer], within_s: float) -> None:
    wrong = [str(a) for a in answers if a.status != 503 or not a.retry_after or a.took_s > within_s + SLACK_S]
    assert wrong == []


async def _enqueue_again(client: Client, url: str) -> Answer | None:
    answer = await client.ask(url, "POST", "/jobs", JOB)
    if answer.status == 201:
        client.history.wanted[answer.body["id"]] = JOB
        return answer
    assert answer.status in (0, 503), str(answer)
    return None


async def test_without_redis_it_says_so_and_with_it_everything_is_back(
    worker_factory: WorkerFactory, kafka: BrokerHandle, own_redis: RedisHandle, namespace: str
) -> None:
    worker = await worker_factory(
        partitions=2, redis_url=own_redis.url, env={"OJS_REQUEST_DEADLINE_MS": f"{REDIS_DEADLINE_S * 1000:.0f}"}
    )
    async with Client() as client:
        jobs = [await client.enqueue(worker.url, QUEUE, args=[n]) for n in range(5)]
        own_redis.kill()
        reads = ["/queues", f"/jobs/{jobs[0]['id']}", f"/queues/{QUEUE}/stats", "/events"]
        _assert_refused([await client.ask(worker.url, "GET", path) for path in reads], 3)
        writes = [client.ask(worker.url, "POST", "/jobs", JOB) for _ in range(3)]
        _assert_refused(list(await asyncio.gather(*writes)), REDIS_DEADLINE_S)
        known = [await client.ask(worker.url, "POST", "/jobs", JOB) for _ in range(3)]
        _assert_refused(known, KNOWN_DOWN_S)
        assert not any(answer.body["error"].get("details", {}).get("unknown") for answer in known)
        assert (await client.ask(worker.url, "GET", "/health")).status == 503
        assert (await client.ask(worker.url, "GET", "/../../livez")).status == 200
        await own_redis.start()
        begun = time.monotonic()
        await until(lambda: _enqueue_again(client, worker.url), "a job is taken again", BACK_S, 0.2)
        print(f"Redis came back empty: first 201 {time.monotonic() - begun:.1f} s after it")
        assert worker.alive
        wrong = await audit(
            client, worker.url, bootstrap=kafka.bootstrap, redis_url=own_redis.url, namespace=namespace
        )
    assert wrong == []


async def _heartbeat(client: Client, url: str, job_id: str) -> Answer | None:
    sent = {"worker_id": "patient", "active_jobs": [job_id]}
    answer = await client.ask(url, "POST", "/workers/heartbeat", sent)
    return answer if answer.accepted else None


async def _assert_refusing(client: Client, url: str, available: int) -> None:
    """Kafka is gone: writes say so, the first ones late, later ones soon; reads go on."""
    first = await asyncio.gather(*(client.ask(url, "POST", "/jobs", JOB) for _ in range(3)))
    _assert_refused(first, DEADLINE_S)
    later = [await client.ask(url, "POST", "/jobs", JOB) for _ in range(3)]
    _assert_refused(later, KNOWN_DOWN_S)
    assert (await client.ask(url, "GET", "/health")).status == 503
    assert (await client.ask(url, "GET", f"/queues/{QUEUE}/stats")).body["available"] == available
    assert (await client.ask(url, "GET", "/../../livez")).status == 200


async def _assert_still_leased(client: Client, url: str, job_id: str) -> None:
    """An outage is not the death of those who work: the lease was not taken away although its time was over."""
    now = await client.job(url, job_id)
    assert now is not None
    assert (now["state"], now["attempt"], now["worker_id"]) == ("active", 1, "patient")
    assert (await client.ack(url, job_id, worker_id="patient"))["state"] == "completed"
    events = (await client.must(url, "GET", "/events"))["events"]
    mine = [event["type"] for event in events if event["subject"] == job_id]
    assert mine == ["job.enqueued", "job.started", "job.completed"]


@pytest.mark.timeout(180)
async def test_without_room_for_kafka_it_says_so_and_with_it_nothing_acknowledged_is_lost(
    worker_factory: WorkerFactory, own_kafka: BrokerHandle, redis_server: RedisHandle, namespace: str
) -> None:
    worker = await worker_factory(partitions=2, brokers=own_kafka.bootstrap)
    async with Client() as client:
        leased = await client.enqueue(worker.url, QUEUE, options={"visibility_timeout_ms": VISIBILITY_MS})
        for number in range(5):
            await client.enqueue(worker.url, QUEUE, args=[number])
        await client.fetch(worker.url, [QUEUE], "patient")
        # It halts at the next write, since its only log directory fails: as dead as after a kill.
        own_kafka.fill_disk()
        killed = time.monotonic()
        await _assert_refusing(client, worker.url, available=5)
        await own_kafka.start()
        begun = time.monotonic()
        assert (begun - killed) * 1000 > VISIBILITY_MS * 2
        await until(lambda: _heartbeat(client, worker.url, leased["id"]), "a heartbeat is heard", BACK_S, 0.2)
        await _assert_still_leased(client, worker.url, leased["id"])
        await until(lambda: _enqueue_again(client, worker.url), "a job is taken again", BACK_S, 0.2)
        print(
            f"Kafka: away for {begun - killed:.1f} s, 2xx again {time.monotonic() - begun:.1f} s after its start"
        )
        wrong = await audit(
            client, worker.url, bootstrap=own_kafka.bootstrap, redis_url=redis_server.url, namespace=namespace
        )
        assert worker.alive
    assert wrong == []
