"""Limits through HTTP at two workers: one key for queues of different homes, windows, overrides, queue limits."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from ojs_stream.core.homes import home_of
from ojs_stream.core.limits import limit_home
from tests.conftest import WorkerFactory
from tests.support.audit import audit
from tests.support.builders import queue_at
from tests.support.client import Client, until
from tests.support.servers import BrokerHandle, RedisHandle

HOMES = 4
KEY = "shared:api"
JOBS = 8
RUN_S = 0.05


class Crew:
    """Clients that work two queues and know how many limited jobs run at once."""

    def __init__(self, client: Client, queues: list[str]) -> None:
        self.client, self.queues = client, queues
        self.running = self.most = 0
        self.done: set[str] = set()

    async def work(self, url: str, name: str, wanted: int) -> None:
        while len(self.done) < wanted:
            for job in await self.client.fetch(url, self.queues, name, count=3, wait_ms=500):
                self.running += 1
                self.most = max(self.most, self.running)
                await asyncio.sleep(RUN_S)
                # As the server sees it, the slot is free from some moment of this request on.
                self.running -= 1
                await self.client.ack(url, job["id"], worker_id=name)
                self.done.add(job["id"])


async def test_one_key_limits_queues_of_different_homes_at_two_workers(
    worker_factory: WorkerFactory, kafka: BrokerHandle, redis_server: RedisHandle, namespace: str
) -> None:
    workers = await asyncio.gather(worker_factory(partitions=HOMES), worker_factory(partitions=HOMES))
    first, second = (worker.url for worker in workers)
    home = limit_home(KEY, HOMES)
    queues = [queue_at(home, HOMES, "near"), queue_at((home + 1) % HOMES, HOMES, "far")]
    limit = {"key": KEY, "concurrency": 2}
    async with Client() as client:
        for number in range(JOBS):
            for queue, url in zip(queues, (first, second), strict=True):
                await client.enqueue(url, queue, args=[number], options={"rate_limit": limit})
        for url in (first, second):
            shown = await client.must(url, "GET", f"/rate-limits/{KEY}")
            assert shown["concurrency"]["limit"] == 2
            assert shown["waiting_count"] + shown["granted"] == 2 * JOBS
        free = await client.enqueue(first, queues[0], args=["free"])
        crew = Crew(client, queues)
        await asyncio.gather(
            *(crew.work(url, f"w-{n}", 2 * JOBS + 1) for n, url in enumerate((first, second) * 2))
        )
        assert free["id"] in crew.done
        assert len(crew.done) == 2 * JOBS + 1

        async def idle() -> bool:
            shown = await client.must(second, "GET", f"/rate-limits/{KEY}")
            return bool(shown["active"] == shown["waiting"] == shown["granted"] == 0)

        await until(idle, "all slots are free")
        listed = await client.must(first, "GET", "/rate-limits")
        assert [item["key"] for item in listed["items"]] == [KEY]
        assert listed["rate_limits"][0]["available"] == listed["rate_limits"][0]["concurrency"] == 2
        wrong = await audit(
            client, first, bootstrap=kafka.bootstrap, redis_url=redis_server.url, namespace=namespace
        )
    assert wrong == []
    assert crew.most <= 3, "two limited jobs and the one that is not"


async def _until_fetched(client: Client, url: str, queue: str, within_s: float = 5.0) -> dict[str, Any]:
    async def fetch() -> Any:
        return await client.fetch(url, [queue], "w", count=5, wait_ms=200)

    (job,) = await until(fetch, f"a job of {queue}", within_s)
    return dict(job)


async def test_overrides_pauses_windows_and_queue_limits(worker_factory: WorkerFactory) -> None:
    worker = await worker_factory(partitions=HOMES)
    url = worker.url
    queue = queue_at((limit_home("k", HOMES) + 1) % HOMES, HOMES)
    assert home_of(queue, HOMES) != limit_home("k", HOMES)
    async with Client() as client:
        await client.must(url, "PUT", "/rate-limits/k", {"concurrency": 0})
        made = await client.enqueue(url, queue, options={"rate_limit": {"key": "k", "concurrency": 5}})
        assert await client.fetch(url, [queue], "w") == []
        assert [job["id"] for job in (await client.must(url, "GET", "/jobs?state=available"))["jobs"]] == [
            made["id"]
        ]
        shown = await client.must(url, "DELETE", "/rate-limits/k/override")
        assert (shown["concurrency"]["limit"], shown["override"]) == (5, None)
        assert (await _until_fetched(client, url, queue))["id"] == made["id"]

        until_at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        error = {"type": "TooManyRequests", "message": "429", "rate_limit_until": until_at}
        await client.must(url, "POST", "/workers/nack", {"job_id": made["id"], "error": error})
        assert "paused_until" in await client.must(url, "GET", "/rate-limits/k")

        for number in range(2):
            await client.enqueue(url, "window", args=[number], options={"rate_limit": {"max_per_second": 1}})
        begun = time.monotonic()
        await _until_fetched(client, url, "window")
        assert await client.fetch(url, ["window"], "w") == []
        await _until_fetched(client, url, "window")
        assert 0.9 < time.monotonic() - begun < 2.5


async def test_limits_of_queues_and_what_is_refused(worker_factory: WorkerFactory) -> None:
    url = (await worker_factory(partitions=HOMES)).url
    async with Client() as client:
        await client.must(url, "PUT", "/admin/queues/bound/rate-limit", {"concurrency": 1})
        for number in range(2):
            await client.enqueue(url, "bound", args=[number])
        one = await _until_fetched(client, url, "bound")
        assert await client.fetch(url, ["bound"], "w") == []
        await client.ack(url, one["id"])
        await _until_fetched(client, url, "bound")

        refused = await client.ask(url, "POST", "/jobs", {"type": "a.b", "args": [], "rate_limit": {"key": "/"}})
        assert (refused.status, refused.code) == (400, "invalid_request")
        assert (await client.ask(url, "GET", "/rate-limits/unknown")).status == 404
