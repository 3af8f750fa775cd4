"""The log does not grow for ever: snapshots, a log without its beginning, and a Redis that has nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from redis.asyncio import Redis

from ojs_stream.core.homes import home_of
from ojs_stream.log.producer import Record
from ojs_stream.log.reader import LogReader, LogRecord
from ojs_stream.log.snapshots import Manifest, newest
from ojs_stream.replay.folding import HomeFold, Nothing
from ojs_stream.store.base import Dump
from ojs_stream.store.memory import MemoryStore
from tests.conftest import WorkerFactory
from tests.support.client import Client, until
from tests.support.replay import first_difference, stored_dumps
from tests.support.servers import BrokerHandle, RedisHandle, clean_env
from tests.support.stranger import producer_to, read_topic

HOMES = 2
QUEUES = [next(f"s{n}" for n in range(100) if home_of(f"s{n}", HOMES) == home) for home in range(HOMES)]
AFTER = 30
"""Commands: then a worker makes a snapshot by itself."""
RETRY = {"max_attempts": 2, "initial_interval": "PT1H", "on_exhaustion": "dead_letter"}


class Log:
    """The log as a stranger has read it, before somebody deletes its beginning."""

    def __init__(self, bootstrap: str, namespace: str) -> None:
        self.bootstrap = bootstrap
        self.namespace = namespace
        self._seen: dict[int, dict[int, Any]] = {}

    async def remember(self) -> None:
        for home, records in (await read_topic(self.bootstrap, f"{self.namespace}.commands")).items():
            self._seen.setdefault(home, {}).update((record.offset, record) for record in records)

    async def folds(self, last: list[int]) -> list[Dump]:
        """The fold of all records that there ever were, from the first on."""
        await self.remember()
        return [await self._fold(home, last[home]) for home in range(HOMES)]

    async def _fold(self, home: int, last: int) -> Dump:
        store, seen = MemoryStore("replay"), self._seen[home]
        fold = await HomeFold.begin(store, home, homes=HOMES, outgoing=Nothing())
        taken = [seen[at] for at in sorted(seen) if at <= last]
        await fold.take([LogRecord(one.offset, one.timestamp, None, one.value, ()) for one in taken])
        return await store.dump(home)

    async def begins(self) -> list[int]:
        async with LogReader.open(self.bootstrap) as reader:
            return [(await reader.bounds(f"{self.namespace}.commands", home))[0] for home in range(HOMES)]

    async def newest(self, home: int) -> Manifest:
        async with LogReader.open(self.bootstrap) as reader:
            (found,) = await newest(reader, f"{self.namespace}.snapshots", home, limit=1)
            return found.manifest

    async def add_damaged(self, home: int) -> None:
        """A newer snapshot whose second chunk is not what its checksum says."""
        good = await self.newest(home)
        bad = msgspec.structs.replace(good, id="bad", offset=good.offset + 1)
        keys = [b"bad:0", b"bad:manifest"]
        values = [b"rotten", msgspec.json.encode(bad)]
        async with producer_to(self.bootstrap) as producer:
            for record in (Record(key, value) for key, value in zip(keys, values, strict=True)):
                topic = f"{self.namespace}.snapshots"
                await producer.send_and_wait(topic, record.value, record.key, partition=home)

    async def delete_all(self, home: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        place = TopicPartition(f"{self.namespace}.commands", home)
        await admin.delete_records({place: RecordsToDelete(before_offset=-1)})
        await admin.close()


async def _tool(log: Log, redis: RedisHandle, *words: str) -> str:
    ours = {"KAFKA_BROKERS": log.bootstrap, "REDIS_URL": redis.url, "OJS_NAMESPACE": log.namespace}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ojs_stream.cli", *words),
        env={**clean_env(), **ours},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, (out, err)
    return out.decode()


async def _work(client: Client, url: str) -> None:
    """Jobs in many states, and messages between the homes."""
    for number in range(40):
        await client.enqueue(url, QUEUES[number % HOMES], args=[number], options={"retry": RETRY})
    for queue in QUEUES:
        await client.enqueue(url, queue, options={"scheduled_at": "+PT1H"})
    taken = await client.fetch(url, QUEUES, "keeper", count=12)
    for job in taken[:4]:
        await client.ack(url, job["id"], worker_id="keeper", result={"n": 2**70})
    for job in taken[4:8]:
        failure = {"code": "bad", "message": "no", "retryable": job is not taken[4]}
        await client.must(url, "POST", "/workers/nack", {"job_id": job["id"], "error": failure})
    steps = [{"type": "step", "args": [], "options": {"queue": queue}} for queue in QUEUES]
    await client.must(url, "POST", "/workflows", {"type": "group", "name": "all", "jobs": steps})


def _positions(events: Mapping[int, list[Any]]) -> list[set[int]]:
    return [
        {int(dict(record.headers)["ojs-position"]) for record in records} for _, records in sorted(events.items())
    ]


async def _wipe(redis: RedisHandle) -> None:
    async with Redis.from_url(redis.url) as connection:
        await connection.flushall()


async def _tear(redis: RedisHandle, namespace: str) -> None:
    """Home 0 as a load leaves it that was killed in the middle, home 1 as an old copy has it."""
    async with Redis.from_url(redis.url) as connection:
        await connection.set(f"{{{namespace}:0}}:applied", -7)
        await connection.delete(f"{{{namespace}:0}}:home", f"{{{namespace}:0}}:state:{QUEUES[0]}:available")
        await connection.set(f"{{{namespace}:1}}:applied", 2)


async def _difference(log: Log, redis: RedisHandle) -> str:
    stored = await stored_dumps(log.bootstrap, redis.url, log.namespace)
    return first_difference(stored, await log.folds([int(dump["applied"]) for dump in stored]))


async def test_a_log_without_its_beginning_and_a_wiped_redis_give_the_same_state(
    worker_factory: WorkerFactory, kafka: BrokerHandle, own_redis: RedisHandle, namespace: str
) -> None:
    log = Log(kafka.bootstrap, namespace)
    first = await worker_factory(redis_url=own_redis.url, partitions=HOMES)
    async with Client() as client:
        await _work(client, first.url)
        said = await _tool(log, own_redis, "snapshot", "--trim")
        assert said.count("snapshot of offset") == said.count("two whole snapshots are needed") == HOMES, said
        await _work(client, first.url)
        await log.remember()
        older = [(await log.newest(home)).offset for home in range(HOMES)]
        said = await _tool(log, own_redis, "snapshot", "--trim")
        assert said.count("snapshot of offset") == said.count("trimmed") == HOMES, said
        assert await log.begins() == [offset + 1 for offset in older]
        await _work(client, first.url)
        assert await first.terminate()
        await log.add_damaged(1)
        await _wipe(own_redis)

        second = await worker_factory(redis_url=own_redis.url, partitions=HOMES)
        text = second.log.read_text()
        assert text.count("a snapshot was loaded") == HOMES
        assert text.count("a snapshot is damaged, the one before it is tried") == 1
        assert (await _tool(log, own_redis, "verify")).startswith("Equal")
        await _tear(own_redis, namespace)
        for queue in QUEUES:
            await until(lambda queue=queue: _answers(client, second.url, queue), "the torn homes are back")
        assert second.log.read_text().count("a snapshot was loaded") == 2 * HOMES
        assert (await _tool(log, own_redis, "rebuild", "--partition", "1")).startswith("Partition 1 is live again")
        for queue in QUEUES:
            await client.enqueue(second.url, queue)
        assert await second.terminate()
        assert await _difference(log, own_redis) == ""
        for positions in _positions(await read_topic(kafka.bootstrap, f"{namespace}.events")):
            assert positions == set(range(1, max(positions) + 1)), "every event is in its topic"


async def _answers(client: Client, url: str, queue: str) -> bool:
    return (await client.ask(url, "GET", f"/queues/{queue}/stats")).accepted


async def test_a_gap_that_nothing_fills_is_said_and_the_other_partitions_go_on(
    worker_factory: WorkerFactory, kafka: BrokerHandle, own_redis: RedisHandle, namespace: str
) -> None:
    log = Log(kafka.bootstrap, namespace)
    by_number = {"OJS_SNAPSHOT_EVERY": "0", "OJS_SNAPSHOT_COMMANDS": str(AFTER)}
    worker = await worker_factory(redis_url=own_redis.url, partitions=HOMES, env=by_number)
    async with Client() as client:
        for queue in QUEUES:
            await asyncio.gather(*(client.enqueue(worker.url, queue) for _ in range(AFTER)))

        async def made() -> bool:
            return worker.log.read_text().count("snapshot of offset") == HOMES

        await until(made, "the worker has made a snapshot of each home by itself", 40)
        for queue in QUEUES:
            await client.enqueue(worker.url, queue)
        await log.delete_all(0)
        (begin, _), covered = await log.begins(), (await log.newest(0)).offset
        await _wipe(own_redis)

        async def refused() -> Any:
            answer = await client.ask(worker.url, "GET", f"/queues/{QUEUES[0]}/stats")
            return answer.body if answer.status == 503 and "cannot be rebuilt" in str(answer.body) else None

        sentence = str(await until(refused, "the home without a past is refused"))
        for part in (
            f"Partition 0 of {namespace}.commands no longer has offsets 0 to {begin - 1}",
            f"no whole snapshot reaches offset {begin - 1}",
            "Restore the snapshot topic or the log from a copy, or a Redis backup",
            "another OJS_NAMESPACE",
        ):
            assert part in sentence
        assert covered < begin - 1
        refusal = await client.ask(
            worker.url, "POST", "/jobs", {"type": "test.job", "args": [], "queue": QUEUES[0]}
        )
        assert (refusal.status, "cannot be rebuilt" in str(refusal.body)) == (503, True)
        async with Redis.from_url(own_redis.url) as redis:
            await until(lambda: redis.exists(f"{{{namespace}:1}}:applied"), "the other home is back")
        await client.enqueue(worker.url, QUEUES[1])
        ready = await client.ask(worker.url, "GET", "/../../ready")
        assert [one["state"] for one in ready.body["partitions"]] == ["refused", "live"]
        assert "cannot be rebuilt" in ready.body["partitions"][0]["reason"]
