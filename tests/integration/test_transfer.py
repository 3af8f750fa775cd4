"""A busy namespace is exported, and goes on in another one with twice the partitions, on another Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import WorkerFactory
from tests.support.client import Client, until
from tests.support.servers import BrokerHandle, RedisHandle
from tests.support.tool import Tool

HOMES, HOMES_AFTER = 4, 8
QUEUES = [f"move-{number}" for number in range(6)]
COUNTS = ("available", "active", "scheduled", "retryable", "pending", "completed", "cancelled", "discarded")
OWN_ID = "0197f0a0-1234-7000-8000-0123456789ab"
UNIQUE = {"type": "one", "args": [1], "options": {"queue": QUEUES[1], "unique": {"keys": ["type", "queue"]}}}
KEYED = {"type": "keyed", "args": [], "options": {"queue": QUEUES[2]}}
LEASE_MS = 600_000


class Business:
    """What clients have done before the move, as far as it must be found again."""

    def __init__(self, client: Client, url: str) -> None:
        self.client = client
        self.url = url
        self.ids: dict[str, str] = {}

    async def make(self) -> None:
        """Some of everything; several kinds at once, since nothing here depends on an order but the queues'."""
        await self._queue_in_order()
        await asyncio.gather(self._every_state(), self._limited(), self._workflow(), self._settings())

    async def _put(self, name: str, queue: str, **more: Any) -> str:
        self.ids[name] = (await self.client.enqueue(self.url, queue, **more))["id"]
        return self.ids[name]

    async def _queue_in_order(self) -> None:
        for number in range(12):
            await self._put(f"ordered-{number}", QUEUES[0], args=[number], options={"priority": number % 3})

    async def _every_state(self) -> None:
        once = {"retry": {"max_attempts": 1, "on_exhaustion": "dead_letter"}}
        again = {"retry": {"max_attempts": 5, "initial_interval": "PT1H"}}
        for name, queue, options in (("dead", "s-dead", once), ("retryable", "s-retry", again)):
            job_id = await self._put(name, queue, options=options)
            await self.client.fetch(self.url, [queue], "worker-1")
            failure = {"code": "bad", "message": "no", "details": {"n": 2**70}}
            await self.client.must(self.url, "POST", "/workers/nack", {"job_id": job_id, "error": failure})
        await self._put("done", "s-done", meta={"a": 1})
        (taken,) = await self.client.fetch(self.url, ["s-done"], "worker-1")
        await self.client.ack(self.url, taken["id"], result={"n": 2**70})
        await self._put("cancelled", "s-cancel")
        await self.client.must(self.url, "DELETE", f"/jobs/{self.ids['cancelled']}?reason=why")
        await self._put("scheduled", "s-later", options={"scheduled_at": "+PT1H"})
        await self._put("pending", "s-pending", options={"pending": True})
        await self._put("active", "s-active", options={"visibility_timeout_ms": LEASE_MS})
        await self.client.fetch(self.url, ["s-active"], "worker-1")
        await self._put("own", QUEUES[3], id=OWN_ID)
        self.ids["unique"] = (await self.client.must(self.url, "POST", "/jobs", UNIQUE))["job"]["id"]
        keyed = await self.client.ask(self.url, "POST", "/jobs", KEYED, key="once")
        self.ids["keyed"] = keyed.body["job"]["id"]

    async def _limited(self) -> None:
        limit = {"rate_limit": {"key": "shared", "concurrency": 1}}
        for name, queue in (("limited-1", "lim-a"), ("limited-2", "lim-b")):
            await self._put(name, queue, options=limit)
        (taken,) = await self.client.fetch(self.url, ["lim-a"], "worker-1")
        assert taken["id"] == self.ids["limited-1"]

    async def _workflow(self) -> None:
        steps = [{"type": "flow.step", "args": [], "options": {"queue": f"flow-{n}"}} for n in range(3)]
        body = {"type": "chain", "name": "three", "steps": steps}
        self.ids["workflow"] = (await self.client.must(self.url, "POST", "/workflows", body))["id"]
        await self.do_step(0)

    async def do_step(self, number: int) -> None:
        """Work on the next step of the workflow."""

        async def take() -> Any:
            return await self.client.fetch(self.url, [f"flow-{number}"], "worker-1")

        (taken,) = await until(take, f"step {number} can be done")
        await self.client.ack(self.url, taken["id"], result=number)

    async def _settings(self) -> None:
        await self._put("paused", QUEUES[4])
        await self.client.must(self.url, "POST", f"/queues/{QUEUES[4]}/pause")
        await self.client.must(self.url, "PUT", f"/queues/{QUEUES[5]}/config", {"max_size": 1})
        await self._put("bounded", QUEUES[5])
        cron = {"name": "often", "cron": "@every 2s", "type": "cron.job", "options": {"queue": "cron"}}
        await self.client.must(self.url, "POST", "/cron", cron)

    async def seen(self) -> dict[str, Any]:
        """All of it, but what the cron entry does, as a client sees it."""
        paths = [f"/jobs/{job_id}" for name, job_id in self.ids.items() if name != "workflow"]
        paths += [f"/workflows/{self.ids['workflow']}", "/rate-limits/shared", f"/queues/{QUEUES[5]}/config"]
        paths += ["/dead-letter", "/unique-jobs", f"/jobs?queue={QUEUES[0]}&limit=50"]
        bodies = await asyncio.gather(*(self.client.must(self.url, "GET", path) for path in paths))
        found = dict(zip(paths, bodies, strict=True))
        names = sorted({(await self.client.job(self.url, job_id) or {})["queue"] for job_id in self._jobs()})
        for name in names:
            stats = await self.client.stats(self.url, name)
            found[f"stats of {name}"] = {count: stats[count] for count in COUNTS} | {"paused": stats["paused"]}
        return found

    async def settled(self) -> dict[str, Any] | None:
        """As ``seen``, once it stays so: what other homes are told may come late."""
        first = await self.seen()
        await asyncio.sleep(0.3)
        return first if first == await self.seen() else None

    def _jobs(self) -> list[str]:
        return [job_id for name, job_id in self.ids.items() if name != "workflow"]


@pytest.mark.timeout(240)
async def test_what_was_exported_is_found_in_another_namespace_and_work_goes_on(
    worker_factory: WorkerFactory,
    kafka: BrokerHandle,
    redis_server: RedisHandle,
    own_redis: RedisHandle,
    namespace: str,
    tmp_path: Path,
) -> None:
    file, other = str(tmp_path / "ojs.export"), namespace + "-b"
    here, there = Tool(kafka, namespace), Tool(kafka, other)
    worker = await worker_factory(partitions=HOMES)
    async with Client() as client:
        before = Business(client, worker.url)
        await before.make()
        # An entry that fires when its worker stops would leave a message behind, and nothing could be exported.
        await client.must(worker.url, "POST", "/cron/often/pause")
        expected = await until(before.settled, "nothing changes any more")
        assert await worker.terminate()
        done = await here("export", file, "--redis", redis_server.url)
        assert done.code == 0, done
        brought = await there("import", file, "--partitions", str(HOMES_AFTER))
        assert (brought.code, brought.out[:9]) == (0, "Imported "), brought
        second = await worker_factory(redis_url=own_redis.url, namespace=other, partitions=HOMES_AFTER)
        after = Business(client, second.url)
        after.ids = before.ids
        assert await after.seen() == expected
        await _work_goes_on(client, after)
        assert (await there("verify", own_redis.url)).code == 0
        refused = await there("import", file, "--partitions", str(HOMES))
        assert (refused.code, f"has {HOMES_AFTER} partitions" in refused.err) == (2, True), refused


async def _work_goes_on(client: Client, business: Business) -> None:
    url, ids = business.url, business.ids
    order = [ids[f"ordered-{n}"] for rest in (2, 1, 0) for n in range(12) if n % 3 == rest]
    assert [job["id"] for job in await client.fetch(url, [QUEUES[0]], "worker-2", count=20)] == order
    for name in ("active", "limited-1"):
        await client.ack(url, ids[name], worker_id="worker-1")

    async def granted() -> Any:
        return await client.fetch(url, ["lim-b"], "worker-2")

    assert [job["id"] for job in await until(granted, "the slot is given to the next")] == [ids["limited-2"]]
    refused = await client.ask(url, "POST", "/jobs", UNIQUE)
    assert (refused.status, refused.body["error"]["details"]["existing_job_id"]) == (409, ids["unique"])
    again = await client.ask(url, "POST", "/jobs", {"type": "x", "args": [], "queue": "any", "id": OWN_ID})
    assert (again.status, again.code) == (409, "duplicate")
    repeated = await client.ask(url, "POST", "/jobs", KEYED, key="once")
    assert repeated.body["job"]["id"] == ids["keyed"]
    full = await client.ask(url, "POST", "/jobs", {"type": "x", "args": [], "options": {"queue": QUEUES[5]}})
    assert full.code == "QUEUE_FULL"
    assert await client.fetch(url, [QUEUES[4]], "worker-2") == []
    await client.must(url, "POST", f"/dead-letter/{ids['dead']}/retry")
    await client.must(url, "POST", f"/jobs/{ids['retryable']}/retry")
    await client.must(url, "POST", f"/jobs/{ids['pending']}/activate")
    for number in (1, 2):
        await business.do_step(number)

    async def completed() -> bool:
        body = await client.must(url, "GET", f"/workflows/{ids['workflow']}")
        return bool(body["workflow"]["state"] == "completed")

    await until(completed, "the workflow is completed")

    async def fired() -> Any:
        return await client.fetch(url, ["cron"], "worker-2")

    await client.must(url, "POST", "/cron/often/resume")
    # An entry makes no job while its last one is not over.
    for job in await client.fetch(url, ["cron"], "worker-2", count=50):
        await client.ack(url, job["id"])
    await until(fired, "the cron entry fires")
