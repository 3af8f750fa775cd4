"""``ojs-stream replay``, ``verify`` and ``rebuild`` as an operator uses them: beside a server that is at work."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from ojs_stream.core.homes import home_of
from ojs_stream.core.names import DEFAULT_CONFIG
from tests.conftest import WorkerFactory
from tests.support.client import Client, Load, finish_all, until
from tests.support.history import Answer
from tests.support.servers import BrokerHandle, RedisHandle
from tests.support.tool import Tool, database

HOMES = 4
QUEUES = [
    next(f"r{home}-{n}" for n in range(100) if home_of(f"r{home}-{n}", HOMES) == home) for home in range(HOMES)
]
# Stats of every queue look at the home of the template, too.
REBUILT = (home_of(DEFAULT_CONFIG, HOMES) + 1) % HOMES


async def _enqueue_in_all_states(client: Client, url: str) -> list[str]:
    """Some of everything; gives the ids of jobs that nobody touches, one a home."""
    waiting = [(await client.enqueue(url, queue, options={"scheduled_at": "+PT1H"}))["id"] for queue in QUEUES]
    for queue in QUEUES:
        failing = {"max_attempts": 1, "on_exhaustion": "dead_letter"}
        job = await client.enqueue(url, queue, options={"retry": failing, "priority": 9})
        (taken,) = await client.fetch(url, [queue], "w")
        assert taken["id"] == job["id"]
        failure = {"code": "bad", "message": "no"}
        await client.must(url, "POST", "/workers/nack", {"job_id": job["id"], "error": failure})
    steps = [{"type": "step", "args": [], "options": {"queue": queue}} for queue in QUEUES]
    await client.must(url, "POST", "/workflows", {"type": "group", "name": "all", "jobs": steps})
    return waiting


@pytest.mark.timeout(240)
async def test_a_server_at_work_is_verified_and_one_of_its_partitions_folded_anew(
    worker_factory: WorkerFactory, kafka: BrokerHandle, own_redis: RedisHandle, namespace: str
) -> None:
    tool, mine, copy = Tool(kafka, namespace), database(own_redis, 0), database(own_redis, 1)
    worker = await worker_factory(redis_url=mine, partitions=HOMES)
    async with Client() as client, Redis.from_url(mine) as redis:
        waiting = await _enqueue_in_all_states(client, worker.url)
        load = Load(client, [worker.url], QUEUES, clients=3, pause_s=0.15)
        equal = await tool("verify", mine)
        assert (equal.code, equal.out[:6]) == (0, "Equal,"), equal

        lost = f"job:{waiting[REBUILT]}"
        await redis.delete(f"{{{namespace}:{REBUILT}}}:{lost}")
        found = await tool("verify", mine, "--partition", str(REBUILT))
        assert (found.code, f"Partition {REBUILT}, key {lost}:\n  Redis: nothing\n" in found.out) == (1, True), (
            found
        )
        others: list[Answer] = []
        looking = asyncio.create_task(_look_at_others(client, worker.url, others))
        again = await tool("rebuild", "--partition", str(REBUILT), mine)
        looking.cancel()
        assert (again.code, f"Partition {REBUILT} is live again" in again.out) == (0, True), again
        assert any(answer.accepted for answer in others)
        assert [str(answer) for answer in others if "rebuilt from the log" in str(answer)] == []
        assert (await tool("verify", mine)).code == 0
        await load.stop()
        # The load may have asked for the job that was taken away.
        wrong = [str(answer) for answer in load.wrong + load.unsettled if waiting[REBUILT] not in answer.path]
        assert wrong == []
        await finish_all(client, worker.url, QUEUES, 90)
        assert await worker.terminate()
        await _replay_into_a_copy(tool, mine, copy)
        second = await worker_factory(redis_url=copy, partitions=HOMES)
        await client.enqueue(second.url, QUEUES[0])

        async def sent() -> bool:
            async with Redis.from_url(copy) as there:
                return not any([await there.exists(f"{{{namespace}:{home}}}:outbox") for home in range(HOMES)])

        await until(sent, "nothing is left in the outboxes of the rebuilt Redis", 60)


async def _look_at_others(client: Client, url: str, answers: list[Answer]) -> None:
    """The other partitions go on."""
    others = [queue for home, queue in enumerate(QUEUES) if home != REBUILT]
    while True:
        answers += [await client.ask(url, "GET", f"/queues/{queue}/stats") for queue in others]
        await asyncio.sleep(0.02)


async def _replay_into_a_copy(tool: Tool, mine: str, copy: str) -> None:
    one = await tool("replay", "--into", copy, "--partition", "1")
    assert (one.code, one.out[:20]) == (0, "Rebuilt partition 1:"), one
    refused = await tool("replay", "--into", copy)
    assert (refused.code, "empty Redis only" in refused.err) == (2, True), refused
    async with Redis.from_url(copy) as redis:
        await redis.flushdb()
    every = await tool("replay", "--into", copy)
    assert (every.code, every.out[:21]) == (0, "Rebuilt 4 partitions:"), every
    assert (await tool("verify", mine, copy)).code == 0
