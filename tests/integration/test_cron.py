"""Cron entries on real servers: one job a tick with two workers, and entries that come back from the log."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from redis.asyncio import Redis

from tests.conftest import WorkerFactory
from tests.support.audit import audit
from tests.support.client import Client, until
from tests.support.servers import BrokerHandle, RedisHandle

ENTRIES = [f"every-{number}" for number in range(4)]
TICKS = 5
LATE_S = 0.5


async def _register(client: Client, url: str, name: str, **fields: Any) -> dict[str, Any]:
    body = {"name": name, "cron": "@every 1s", "type": "cron.job", "options": {"queue": f"queue-{name}"}, **fields}
    return dict((await client.must(url, "POST", "/cron", body))["cron"])


async def _jobs(client: Client, url: str, name: str) -> list[dict[str, Any]]:
    return list((await client.must(url, "GET", f"/jobs?queue=queue-{name}&limit=200"))["jobs"])


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_two_workers_make_one_job_a_tick_and_a_wiped_redis_forgets_no_entry(
    worker_factory: WorkerFactory, kafka: BrokerHandle, own_redis: RedisHandle, namespace: str
) -> None:
    workers = await asyncio.gather(*(worker_factory(redis_url=own_redis.url) for _ in range(2)))
    urls = [worker.url for worker in workers]
    async with Client() as client:
        for name in ENTRIES:
            await _register(client, urls[0], name, overlap_policy="allow")
        await _until_fired(client, urls[1], TICKS)
        async with Redis.from_url(own_redis.url) as redis:
            await redis.flushall()
        await _until_all_answer(client, urls)
        listed = await client.must(urls[1], "GET", "/cron")
        assert [entry["name"] for entry in listed["crons"]] == ENTRIES
        await _until_fired(client, urls[1], 2 * TICKS)
        for name in ENTRIES:
            await client.must(urls[0], "POST", f"/cron/{name}/pause")
        for name in ENTRIES:
            await _one_job_a_tick(client, urls[1], name)
        wrong = await audit(
            client, urls[0], bootstrap=kafka.bootstrap, redis_url=own_redis.url, namespace=namespace
        )
    assert [text for text in wrong if "never asked for" not in text] == []


async def _until_fired(client: Client, url: str, times: int) -> None:
    async def fired() -> bool:
        answer = await client.ask(url, "GET", "/cron")
        return answer.accepted and all(entry["run_count"] >= times for entry in answer.body["crons"])

    await until(fired, f"every entry has fired {times} times", 30, 0.2)


async def _until_all_answer(client: Client, urls: list[str]) -> None:
    async def all_answer() -> bool:
        return all([(await client.ask(url, "GET", "/cron")).accepted for url in urls])

    await until(all_answer, "the entries are back", 30, 0.1)


async def _one_job_a_tick(client: Client, url: str, name: str) -> None:
    """As many jobs as runs, each of an instant of its own, all a whole number of seconds apart."""
    entry = (await client.must(url, "GET", f"/cron/{name}"))["cron"]
    jobs = await _jobs(client, url, name)
    history = (await client.must(url, "GET", f"/cron/{name}/history?limit=100"))["executions"]
    ticks = sorted(_instant(job["meta"]["cron_triggered_at"]) for job in jobs)
    assert len(set(ticks)) == len(ticks) == entry["run_count"] == len(history)
    assert {job["meta"]["cron_name"] for job in jobs} == {name}
    assert all((tick - ticks[0]) % timedelta(seconds=1) == timedelta(0) for tick in ticks)
    assert {run["job_id"] for run in history} == {job["id"] for job in jobs}
    late = sorted(_instant(run["fired_at"]) - _instant(run["scheduled_for"]) for run in history)
    assert late[0] >= timedelta(0), "never before its time"
    assert late[len(late) // 2] < timedelta(seconds=LATE_S)


async def test_after_downtime_one_run_makes_up_for_all_that_were_missed(worker_factory: WorkerFactory) -> None:
    first = await worker_factory()
    async with Client() as client:
        await _register(client, first.url, "down", overlap_policy="allow")
        await _until_fired(client, first.url, 1)
        assert await first.terminate()
        await asyncio.sleep(3.0)  # the downtime itself is what is tested
        second = await worker_factory()
        before = (await client.must(second.url, "GET", "/cron/down"))["cron"]["run_count"]
        await _until_fired(client, second.url, before + 2)
        history = (await client.must(second.url, "GET", "/cron/down/history"))["executions"]
    made_up = [run["missed"] for run in history if run["missed"]]
    assert len(made_up) == 1
    assert made_up[0] >= 2


async def test_the_job_of_a_run_by_hand_is_there_at_once_at_every_worker(worker_factory: WorkerFactory) -> None:
    urls = [worker.url for worker in await asyncio.gather(worker_factory(), worker_factory())]
    async with Client() as client:
        for number in range(8):
            name = f"hand-{number}"
            here, there = urls if number % 2 else reversed(urls)
            await _register(client, here, name, cron="@yearly")
            made = (await client.must(here, "POST", f"/cron/{name}/trigger"))["job_id"]
            (taken,) = await client.fetch(there, [f"queue-{name}"], "w")
            assert taken["id"] == made
            skipped = await client.must(there, "GET", f"/cron/{name}")
            assert skipped["cron"]["running_job_ids"] == [made]
            await client.ack(there, made, worker_id="w")
            assert (await client.must(here, "GET", f"/cron/{name}"))["cron"]["running_job_ids"] == []
