"""Requests about many jobs, and requests that come more than once, against two workers with all eight homes."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from redis.asyncio import Redis

from ojs_stream.core.homes import home_of
from ojs_stream.core.records import ConfigRecord, stored_json
from ojs_stream.store import keys
from tests.conftest import WorkerFactory
from tests.support.client import Client, new_id, until
from tests.support.servers import RedisHandle

HOMES = 8
REPEATS = 64
QUEUES = [
    next(f"wide{home}-{n}" for n in range(1_000) if home_of(f"wide{home}-{n}", HOMES) == home)
    for home in range(HOMES)
]
"""One of each home."""


async def configure(server: RedisHandle, namespace: str, queue: str, **fields: Any) -> None:
    """As if every home knew this configuration of a queue that nobody has used yet."""
    redis = Redis.from_url(server.url)
    for home in range(HOMES):
        data = stored_json(ConfigRecord(name=queue, **fields))
        await redis.set(keys.record(namespace, home, ("config", queue)), data)
    await redis.aclose()


def job_in(queue: str, **fields: Any) -> dict[str, Any]:
    return {"type": "bulk.test", "args": [], "queue": queue, **fields}


class Both:
    """A client that goes to two workers by turns."""

    def __init__(self, client: Client, urls: list[str]) -> None:
        self.client, self.urls, self.turn = client, urls, 0
        self.dice = random.Random(11)

    async def ask(self, method: str, path: str, sent: Any = None, *, key: str = "") -> Any:
        self.turn += 1
        return await self.client.ask(self.urls[self.turn % 2], method, path, sent, key=key)

    async def ok(self, method: str, path: str, sent: Any = None, *, status: int = 200) -> Any:
        answer = await self.ask(method, path, sent)
        assert answer.status == status, str(answer)
        return answer.body

    async def counts(self, queue: str) -> dict[str, int]:
        stats = await self.ok("GET", f"/queues/{queue}/stats")
        return {name: stats[name] for name in ("available", "cancelled", "discarded") if stats[name]}


async def test_many_jobs_and_many_repeats(
    worker_factory: WorkerFactory, redis_server: RedisHandle, namespace: str
) -> None:
    first, second = await asyncio.gather(worker_factory(partitions=HOMES), worker_factory(partitions=HOMES))
    async with Client() as client:
        both = Both(client, [first.url, second.url])
        await one_key_one_job(both)
        await one_key_one_batch(both)
        await all_or_none(both, redis_server, namespace)
        await each_for_itself(both)
        await change_many(both)
        await change_priority(both)
        await a_repeat_after_a_kill(both, first.kill)


async def one_key_one_job(both: Both) -> None:
    """64 clients send the same request at once: exactly one job."""
    asked = [both.ask("POST", "/jobs", job_in("once"), key="order 66") for _ in range(REPEATS)]
    answers = await asyncio.gather(*asked)
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body["id"] for answer in answers}) == 1
    assert await both.counts("once") == {"available": 1}
    other = await both.ask("POST", "/jobs", job_in("once", args=[1]), key="order 66")
    assert (other.status, other.code) == (409, "idempotency_mismatch")
    assert (await both.ask("POST", "/jobs", job_in("once"), key="k" * 257)).status == 400


async def one_key_one_batch(both: Both) -> None:
    """With ids of the client's own the batch is staged over the homes: repeats wait for the same decision."""
    jobs = [job_in(queue, id=new_id(both.dice)) for queue in QUEUES]
    asked = [both.ask("POST", "/jobs/batch", {"jobs": jobs}, key="batch") for _ in range(REPEATS)]
    for answer in await asyncio.gather(*asked):
        assert answer.status == 201, str(answer)
        assert [job["id"] for job in answer.body["jobs"]] == [job["id"] for job in jobs]
        assert {job["args"] == [] for job in answer.body["jobs"]} == {True}
    for queue in QUEUES:
        assert await both.counts(queue) == {"available": 1}


async def all_or_none(both: Both, server: RedisHandle, namespace: str) -> None:
    """One job of a batch over eight homes is impossible: nothing is stored, nothing stays held."""
    queues = [next(f"b{n}" for n in range(1_000) if home_of(f"b{n}", HOMES) == home) for home in range(HOMES)]
    for queue in queues:
        await configure(server, namespace, queue, max_size=1)
    mine = [new_id(both.dice) for _ in queues]
    taken, locked = new_id(both.dice), {"type": "bulk.locked", "unique": {"keys": ["type"]}}
    for stored in (job_in("elsewhere", id=taken), {**job_in("elsewhere"), **locked}, job_in(queues[-1])):
        await both.ok("POST", "/jobs", stored, status=201)
    free = next(f"c{n}" for n in range(1_000) if home_of(f"c{n}", HOMES) == HOMES - 1)
    impossible = [
        (409, "duplicate", job_in(free, id=taken)),
        (409, "duplicate", {**job_in(free, id=mine[-1]), **locked}),
        (429, "QUEUE_FULL", job_in(queues[-1], id=mine[-1])),
    ]
    jobs = [job_in(queue, id=one) for queue, one in zip(queues[:-1], mine[:-1], strict=True)]
    for number, (refused, code, last) in enumerate(impossible):
        for path, status in (("/jobs/batch", refused), ("/jobs/bulk", 422)):
            wanted = {"jobs": [*jobs, last], "atomicity": "atomic"}
            answer = await both.ask("POST", path, wanted, key=f"{path} {number}")
            assert answer.status == status, str(answer)
        assert [item["error"]["code"] for item in answer.body["items"]] == ["bulk_failed"] * 7 + [code]
        for queue in queues[:-1]:
            assert await both.counts(queue) == {}
    made = await both.ask("POST", "/jobs/batch", {"jobs": jobs})
    assert made.status == 201, str(made)


async def each_for_itself(both: Both) -> None:
    mine = new_id(both.dice)
    jobs = [job_in("parts"), {"type": "", "args": []}, job_in("parts", id=mine), job_in("parts", id=mine)]
    body = {"jobs": jobs, "idempotency_key": "in the body"}
    mixed = await both.ok("POST", "/jobs/bulk", body, status=207)
    assert [item["status"] for item in mixed["items"]] == ["created", "failed", "created", "failed"]
    assert (mixed["total"], mixed["succeeded"], mixed["failed"]) == (4, 2, 2)
    assert await both.ok("POST", "/jobs/bulk", body, status=207) == mixed
    assert await both.counts("parts") == {"available": 2}
    taken = await both.ok("POST", "/jobs/bulk", {"jobs": [job_in("x", id=mine)]}, status=422)
    assert (taken["error"]["code"], taken["items"][0]["error"]["code"]) == ("bulk_failed", "duplicate")
    await both.ok("POST", "/jobs/bulk", {"jobs": [job_in("parts")] * 10})
    await both.ok("POST", "/jobs/bulk", {"jobs": [{}] * 1_001}, status=413)


async def change_many(both: Both) -> None:
    """Cancel, retry and delete, by ids over all homes and by a filter."""
    made = [job_in(queue, id=new_id(both.dice), type=f"kind.k{n % 2}") for n, queue in enumerate(QUEUES * 2)]
    ids = [job["id"] for job in (await both.ok("POST", "/jobs/batch", {"jobs": made}, status=201))["jobs"]]
    unknown = new_id(both.dice)
    told = await both.ok("POST", "/jobs/bulk/cancel", {"job_ids": [*ids, unknown, "no id"]}, status=207)
    assert (told["total_matched"], told["cancelled"], told["skipped"], told["failed"]) == (16, 16, 0, 2)
    assert [item["job_id"] for item in told["items"]] == [*ids, unknown, "no id"]
    again = await both.ok("POST", "/jobs/bulk/cancel", {"job_ids": ids})
    assert (again["cancelled"], again["skipped"]) == (0, 16)
    retried = await both.ok("POST", "/admin/jobs/bulk/retry", {"job_ids": ids[:8], "confirm": True})
    assert (retried["action"], retried["matched"], retried["succeeded"]) == ("retry", 8, 8)
    await both.ok(
        "POST", "/admin/jobs/bulk/retry", {"filter": {"state": "discarded"}, "confirm": False}, status=400
    )
    await both.ok("POST", "/jobs/bulk/delete", {"filter": {"stat": "cancelled"}}, status=400)
    deleted = await both.ok("POST", "/jobs/bulk/delete", {"filter": {"state": "cancelled", "type": "kind.k1"}})
    assert (deleted["total_matched"], deleted["deleted"], deleted["more"]) == (4, 4, False)
    await both.ok("POST", "/jobs/batch", {"jobs": [job_in("flood")] * 450}, status=201)
    flood = await both.ok("POST", "/jobs/bulk/cancel", {"filter": {"queue": "flood"}})
    assert (flood["cancelled"], await both.counts("flood")) == (450, {"cancelled": 450})
    none = await both.ok("POST", "/jobs/bulk/delete", {"filter": {"queue": "flood", "older_than": "P1D"}})
    assert none["deleted"] == 0
    gone = await both.ok("POST", "/jobs/bulk/delete", {"filter": {"queue": "flood"}})
    assert (gone["deleted"], await both.counts("flood")) == (450, {})


async def change_priority(both: Both) -> None:
    ids = [(await both.ok("POST", "/jobs", job_in("ranks", priority=p), status=201))["id"] for p in (0, 0, 5)]
    changed = await both.ok("PATCH", f"/jobs/{ids[1]}", {"priority": 9})
    assert (changed["job"]["priority"], changed["previous_priority"]) == (9, 0)
    stats = await both.ok("GET", "/queues/ranks/priority-stats")
    assert stats["distribution"] == [{"priority": p, "count": 1} for p in (9, 5, 0)]
    taken = await both.ok("POST", "/workers/fetch", {"queues": ["ranks"], "count": 3})
    assert [job["id"] for job in taken["jobs"]] == [ids[1], ids[2], ids[0]]
    await both.ok("PATCH", f"/admin/jobs/{ids[0]}", {"priority": 1}, status=409)
    await both.ok("PATCH", f"/jobs/{ids[0]}", {"priority": 1, "type": "x"}, status=400)
    nack = {"job_id": ids[0], "error": {"code": "bad", "message": "no", "retryable": False}}
    await both.ok("POST", "/workers/nack", nack)
    retries = await both.ok("GET", f"/jobs/{ids[0]}/retries")
    assert [one["failure"]["message"] for one in retries["retries"]] == ["no"]
    retried = await both.ok("POST", f"/admin/jobs/{ids[0]}/retry")
    assert (retried["job"]["state"], retried["job"]["attempt"]) == ("available", 0)


async def a_repeat_after_a_kill(both: Both, kill: Any) -> None:
    """The worker dies with the answer: whoever repeats elsewhere gets the job that may be there, or the first."""
    asked = [
        both.client.ask(both.urls[0], "POST", "/jobs", job_in(f"kill{n}"), key=f"kill {n}") for n in range(20)
    ]
    under_way = asyncio.gather(*asked)
    await asyncio.sleep(0.01)  # some are in the log, some are not
    kill()
    before = await under_way
    for number, lost in enumerate(before):

        async def repeat(number: int = number) -> Any:
            answer = await both.client.ask(
                both.urls[1], "POST", "/jobs", job_in(f"kill{number}"), key=f"kill {number}"
            )
            return answer if answer.status == 201 else None

        answer = await until(repeat, "the repeat is answered")
        assert not lost.accepted or lost.body["id"] == answer.body["id"]
    # A home of the dead worker has its jobs when it is taken over.
    for number in range(len(before)):

        async def arrived(number: int = number) -> Any:
            stats = await both.client.stats(both.urls[1], f"kill{number}")
            assert stats["available"] <= 1
            return stats["available"]

        await until(arrived, "the job is in its queue")
