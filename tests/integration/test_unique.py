"""Unique jobs over HTTP, with two workers: of many clients that want one key, exactly one gets it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from tests.conftest import WorkerFactory
from tests.support.client import Answer, Client
from tests.support.replay import replay_difference
from tests.support.servers import BrokerHandle, RedisHandle

CLIENTS = 64
ROUNDS = 50
QUEUES = [f"race-{n}" for n in range(8)]


async def race(client: Client, urls: list[str], number: int, *, clients: int = CLIENTS) -> list[Answer]:
    """All clients want the job of this round at once, at any worker, for any queue."""
    unique = {"keys": ["type", "args"], "on_conflict": "reject" if number % 2 else "ignore"}
    return await asyncio.gather(
        *(
            client.ask(
                urls[each % len(urls)],
                "POST",
                "/jobs",
                {"type": "race.one", "args": [number], "queue": QUEUES[each % 8], "options": {"unique": unique}},
            )
            for each in range(clients)
        )
    )


def won(answers: list[Answer], number: int) -> str:
    """The id of the one job of a round that was raced for."""
    again = Counter({409 if number % 2 else 200: len(answers) - 1})
    assert Counter(answer.status for answer in answers) == again + Counter({201: 1}), list(map(str, answers))
    (job_id,) = {answer.body["job"]["id"] for answer in answers if answer.accepted}
    told = {answer.body["error"]["details"]["existing_job_id"] for answer in answers if answer.status == 409}
    assert told <= {job_id}
    return str(job_id)


async def test_of_all_who_want_one_key_exactly_one_gets_it(
    worker_factory: WorkerFactory, kafka: BrokerHandle, redis_server: RedisHandle, namespace: str
) -> None:
    workers = await asyncio.gather(worker_factory(), worker_factory())
    urls = [worker.url for worker in workers]
    async with Client() as client:
        ids = [won(await race(client, urls, number), number) for number in range(ROUNDS)]
        stats = [await client.stats(urls[0], queue) for queue in QUEUES]
    assert sum(each["available"] for each in stats) == len(set(ids)) == ROUNDS
    assert await replay_difference(kafka.bootstrap, redis_server.url, namespace) == ""


def _job(number: int, *, queue: str = "uniques", **unique: Any) -> dict[str, Any]:
    rule = {"keys": ["type", "args"], "args_keys": ["order"], **unique}
    return {"type": "order.ship", "args": [{"order": number}], "options": {"queue": queue, "unique": rule}}


async def test_what_becomes_of_a_second_job_is_what_its_rule_says(worker_factory: WorkerFactory) -> None:
    here, there = [worker.url for worker in await asyncio.gather(worker_factory(), worker_factory())]
    async with Client() as client:
        first = (await client.must(here, "POST", "/jobs", _job(1)))["job"]["id"]
        refused = await client.ask(there, "POST", "/jobs", _job(1, queue="elsewhere"))
        assert (refused.status, refused.code) == (409, "duplicate")
        details = refused.body["error"]["details"]
        assert (details["existing_job_id"], details["existing_job_state"]) == (first, "available")

        ignored = await client.ask(there, "POST", "/jobs", _job(1, on_conflict="use_existing"))
        assert (ignored.status, ignored.body["deduplicated"], ignored.body["job"]["id"]) == (200, True, first)

        await client.fetch(here, ["uniques"], "w-1")
        replaced = await client.ask(there, "POST", "/jobs", _job(1, queue="elsewhere", on_conflict="replace"))
        second = replaced.body["job"]["id"]
        assert (replaced.status, second != first) == (201, True)
        assert (await client.job(here, first) or {})["state"] == "cancelled"
        beat = {"worker_id": "w-1", "active_jobs": [first]}
        assert (await client.must(here, "POST", "/workers/heartbeat", beat))["jobs_cancelled"] == [first]

        await client.must(here, "DELETE", f"/jobs/{second}")
        again = await client.ask(there, "POST", "/jobs", _job(1, key=None))
        assert again.status == 201, str(again)


async def test_a_scheduled_job_is_changed_and_keeps_its_time(worker_factory: WorkerFactory) -> None:
    worker = await worker_factory()
    async with Client() as client:
        wanted = _job(2, on_conflict="replace_except_schedule")
        wanted["scheduled_at"] = "2099-01-01T00:00:00Z"
        first = (await client.must(worker.url, "POST", "/jobs", wanted))["job"]
        wanted |= {"scheduled_at": "2098-01-01T00:00:00Z", "priority": 5}
        wanted["args"] = [{"order": 2, "items": 3}]
        changed = await client.ask(worker.url, "POST", "/jobs", wanted)
        assert (changed.status, changed.body["job"]["id"]) == (200, first["id"])
        job = changed.body["job"]
        assert (job["args"], job["priority"]) == ([{"order": 2, "items": 3}], 5)
        assert job["scheduled_at"] == "2099-01-01T00:00:00Z"


async def test_a_batch_settles_its_twins_and_locks_are_listed(worker_factory: WorkerFactory) -> None:
    worker = await worker_factory()
    async with Client() as client:
        jobs = [_job(n % 3, queue=QUEUES[n], on_conflict="ignore") for n in range(6)]
        made = await client.must(worker.url, "POST", "/jobs/batch", {"jobs": jobs})
        ids = [job["id"] for job in made["jobs"]]
        assert ids[:3] == ids[3:]
        assert len(set(ids)) == 3

        bad = await client.ask(worker.url, "POST", "/jobs/batch", {"jobs": [_job(9), _job(8), _job(9)]})
        assert (bad.status, bad.code, bad.body["error"]["details"]["index"]) == (409, "duplicate", 2)
        assert (await client.ask(worker.url, "POST", "/jobs", _job(8, period="PT1H"))).status == 201

        listed = await client.must(worker.url, "GET", "/unique-jobs?limit=3")
        more = await client.must(worker.url, "GET", f"/unique-jobs?cursor={listed['pagination']['next_cursor']}")
        items = listed["items"] + more["items"]
        assert (listed["pagination"]["total"], len(listed["items"]), len(items)) == (4, 3, 4)
        assert {item["job_id"] for item in items} >= set(ids)
        assert [item["state"] for item in items] == ["available"] * 4
        assert [item["locked_until"] is not None for item in items] == [True, False, False, False]
        manifest = await client.must(worker.url, "GET", "/manifest")
        assert manifest["capabilities"]["unique_jobs"] is True
