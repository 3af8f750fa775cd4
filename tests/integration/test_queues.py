"""Queue configurations at work: what one worker was told is in force at the other with its answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp

from tests.conftest import WorkerFactory
from tests.support.client import API, Client, until
from tests.support.replay import replay_difference
from tests.support.servers import BrokerHandle, RedisHandle
from tests.support.stranger import producer_to, read_topic

ROUNDS = 10


async def _enqueue(client: Client, url: str, queue: str, count: int = 1) -> list[str]:
    jobs = [{"type": "test.job", "args": [n], "queue": queue} for n in range(count)]
    body = await client.must(url, "POST", "/jobs/batch", {"jobs": jobs})
    return [job["id"] for job in body["jobs"]]


async def test_a_configuration_is_in_force_everywhere_once_it_is_answered(
    worker_factory: WorkerFactory, kafka: BrokerHandle, redis_server: RedisHandle, namespace: str
) -> None:
    first, second = await asyncio.gather(worker_factory(partitions=4), worker_factory(partitions=4))
    async with Client() as client:
        for number in range(ROUNDS):
            here, there = (first.url, second.url) if number % 2 else (second.url, first.url)
            queue = f"round-{number}"
            config = {"backpressure": {"max_depth": 1}, "default_timeout": 60 + number}
            await client.must(here, "PUT", f"/queues/{queue}/config", config)
            (job_id,) = await _enqueue(client, there, queue)
            # An id of the client's own is decided at any home, perhaps at one that only has the copy.
            own = {"type": "a.b", "args": [], "queue": queue, "id": f"0197f0a0-1111-7000-9000-{number:012x}"}
            refused = await client.ask(there, "POST", "/jobs", own)
            assert (refused.status, refused.code, bool(refused.retry_after)) == (429, "QUEUE_FULL", True)
            job = await client.job(here, job_id)
            assert job is not None
            assert job["timeout_ms"] == (60 + number) * 1_000
            await client.must(there, "PUT", f"/queues/{queue}/config", {"max_size": None})
            await client.must(here, "POST", "/jobs", own)
            await client.must(here, "POST", f"/queues/{queue}/drain")
            assert (await client.ask(there, "POST", "/jobs", {**own, "id": None})).code == "queue_draining"
            assert (await client.must(there, "GET", f"/queues/{queue}"))["status"] == "draining"
            assert len(await client.fetch(there, [queue], count=9)) == 2
            await client.must(there, "POST", f"/queues/{queue}/resume")
        assert await replay_difference(kafka.bootstrap, redis_server.url, namespace) == ""


async def test_two_changes_at_once_leave_one_truth(worker_factory: WorkerFactory) -> None:
    first, second = await asyncio.gather(worker_factory(partitions=4), worker_factory(partitions=4))
    async with Client() as client:
        for number in range(ROUNDS):
            await asyncio.gather(
                client.must(first.url, "PUT", "/queues/_default/config", {"max_size": 10 + number}),
                client.must(second.url, "PUT", "/queues/_default/config", {"max_size": 90 + number}),
            )
            told = [
                (await client.must(worker.url, "GET", "/queues/_default/config"))["own"]["max_size"]
                for worker in (first, second)
            ]
            assert told[0] == told[1]
            assert told[0] in (10 + number, 90 + number)


async def _warned(url: str, queue: str) -> dict[str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}{API}/jobs", json={"type": "a.b", "args": [], "queue": queue}) as answer,
    ):
        return {name: value for name, value in answer.headers.items() if name.startswith("X-OJS-Queue")}


async def test_queues_are_warned_of_purged_moved_and_deleted(
    worker_factory: WorkerFactory, kafka: BrokerHandle, redis_server: RedisHandle, namespace: str
) -> None:
    worker = await worker_factory(partitions=4)
    url = worker.url
    async with Client() as client:
        await client.must(url, "POST", "/queues", {"name": "bounded", "config": {"max_size": 2}})
        assert (await client.ask(url, "POST", "/queues", {"name": "bounded"})).status == 409
        assert await _warned(url, "bounded") == {}
        warned = {"X-OJS-Queue-Depth": "2", "X-OJS-Queue-Bound": "2"}
        assert await _warned(url, "bounded") == {**warned, "X-OJS-Queue-Pressure": "1.0"}
        assert await _warned(url, "bounded") == warned

        for count in (1_000, 1_000, 345):
            await _enqueue(client, url, "long", count)
        asked = {"states": ["available"], "confirm": True}
        assert (
            await client.ask(url, "DELETE", "/admin/queues/long/jobs", {"states": ["available"]})
        ).status == 400
        purged = await client.must(url, "DELETE", "/admin/queues/long/jobs", asked)
        assert (purged["purged_count"], purged["states"]) == (2_345, ["available"])
        assert (await client.stats(url, "long"))["depth"] == 0

        moved = [*await _enqueue(client, url, "old", 1_000), *await _enqueue(client, url, "old", 200)]
        assert (await client.ask(url, "DELETE", "/queues/old", {"strategy": "reject"})).code == "conflict"
        gone = await client.ask(url, "DELETE", "/queues/old", {"strategy": "move", "target_queue": "new"})
        assert (gone.status, gone.body["jobs_affected"]) == (202, 1_200)

        async def is_gone() -> bool:
            return (await client.ask(url, "GET", "/queues/old")).status == 404

        await until(is_gone, "the old queue is gone", 10)

        async def all_arrived() -> bool:
            return bool((await client.stats(url, "new"))["available"] == len(moved))

        await until(all_arrived, "all jobs are in the new queue", 10)
        jobs = [await client.job(url, job_id) for job_id in moved[::100]]
        assert {job["queue"] for job in jobs if job} == {"new"}
        taken = [job["id"] for job in await client.fetch(url, ["new"], count=3)]
        assert taken == moved[:3]

        await client.must(url, "DELETE", "/queues/new", {"strategy": "discard"})
        await until(lambda: _ended(client, url, moved[-1]), "the last one is discarded", 10)
        assert await replay_difference(kafka.bootstrap, redis_server.url, namespace) == ""


async def _ended(client: Client, url: str, job_id: str) -> bool:
    job = await client.job(url, job_id)
    return bool(job and job["state"] == "discarded" and job["error"]["type"] == "queue_deleted")


async def test_finished_jobs_go_when_the_queue_says(worker_factory: WorkerFactory) -> None:
    worker = await worker_factory(partitions=4)
    url = worker.url
    async with Client() as client:
        await client.must(url, "PUT", "/admin/queues/brief/config", {"retention": {"completed": "PT0.3S"}})
        done, cancelled = await _enqueue(client, url, "brief", 2)
        assert [job["id"] for job in await client.fetch(url, ["brief"])] == [done]
        await client.ack(url, done)
        await client.must(url, "DELETE", f"/jobs/{cancelled}")

        async def is_gone() -> bool:
            return await client.job(url, done) is None

        await until(is_gone, "the completed job is gone", 5)
        stats = await client.stats(url, "brief")
        assert (stats["completed"], stats["cancelled"]) == (0, 1)
        assert (await client.job(url, cancelled) or {})["state"] == "cancelled"


async def test_a_full_queue_holds_open_loop_intake(
    worker_factory: WorkerFactory, kafka: BrokerHandle, namespace: str
) -> None:
    worker = await worker_factory(partitions=4)
    url, jobs, bound = worker.url, 30, 10
    async with Client() as client:
        await client.must(url, "PUT", "/queues/held/config", {"max_size": bound})
        async with producer_to(kafka.bootstrap) as producer:
            for number in range(jobs):
                job = json.dumps({"type": "bulk.job", "queue": "held", "args": [number]}).encode()
                await producer.send_and_wait(f"{namespace}.commands.bulk", job, partition=0)
        seen: list[int] = []

        async def all_done() -> bool:
            stats: dict[str, Any] = await client.stats(url, "held")
            assert stats["depth"] <= bound
            if stats["available"] < min(bound, jobs - len(seen)):
                return False
            for job in await client.fetch(url, ["held"], count=4):
                await client.ack(url, job["id"])
                seen.append(job["args"][0])
            return len(seen) == jobs

        await until(all_done, "all have gone through", 20)
        assert seen == list(range(jobs)), "in the order of the partition"
        dead = await read_topic(kafka.bootstrap, f"{namespace}.commands.dead")
        assert not any(dead.values())
