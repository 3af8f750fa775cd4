"""Bad input: what the view refuses is not in the log, what the fold refuses changes nothing, garbage is buried."""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import WorkerFactory
from tests.support.client import Client, until
from tests.support.replay import first_difference, replay_difference, stored_dumps
from tests.support.servers import BrokerHandle, RedisHandle
from tests.support.stranger import end_offsets, producer_to, read_topic

QUEUE = "bad-input"
JOB = {"type": "bad.job", "args": [], "queue": QUEUE}
REFUSED_BODIES = {
    "empty": b"",
    "no JSON": b"{nope",
    "invalid UTF-8": b'{"type":"a","args":["\xff"]}',
    "a lone surrogate": b'{"type":"a","args":["\\ud800"]}',
    "NaN": b'{"type":"a","args":[NaN]}',
    "an array": b"[]",
    "no type": b'{"args":[]}',
    "a type that is a number": b'{"type":5,"args":[]}',
    "no args": b'{"type":"a"}',
    "args that are an object": b'{"type":"a","args":{}}',
    "a queue with a space": b'{"type":"a","args":[],"queue":"a b"}',
    "a priority out of bounds": b'{"type":"a","args":[],"options":{"priority":101}}',
    "an id that is no UUIDv7": b'{"type":"a","args":[],"id":"1"}',
    "a wrong retry policy": b'{"type":"a","args":[],"options":{"retry":{"max_attempts":-1}}}',
    "too deep": b'{"type":"a","args":' + b"[" * 500 + b"]" * 500 + b"}",
    "huge": b'{"type":"a","args":["' + b"x" * (5 * 1024 * 1024) + b'"]}',
}

ODD_VALUES = (
    b"[ 123456789012345678901234567890 ,-0.0,1e400,\t1.10 ]",
    b'[ {"b" :1,"a":\n[ ] } ]',
    b'["\\u0041\\/",{"a":1,"a":2}]',
)


async def test_what_the_view_refuses_is_not_in_the_log(
    worker_factory: WorkerFactory, kafka: BrokerHandle, namespace: str
) -> None:
    worker = await worker_factory(partitions=2)
    async with Client() as client:
        before = await end_offsets(kafka.bootstrap, f"{namespace}.commands")
        answers = {
            name: await client.ask(worker.url, "POST", "/jobs", body) for name, body in REFUSED_BODIES.items()
        }
        answers["ack without id"] = await client.ask(worker.url, "POST", "/workers/ack", {})
        answers["fetch without queues"] = await client.ask(worker.url, "POST", "/workers/fetch", {"queues": []})
        answers["unknown path"] = await client.ask(worker.url, "POST", "/nothing", {})
        after = await end_offsets(kafka.bootstrap, f"{namespace}.commands")
    wrong = [str(answer) for answer in answers.values() if not 400 <= answer.status < 500 or not answer.code]
    assert wrong == []
    assert answers["huge"].status == 413
    assert after == before


async def test_what_the_fold_refuses_changes_no_record(
    worker_factory: WorkerFactory, kafka: BrokerHandle, redis_server: RedisHandle, namespace: str
) -> None:
    worker = await worker_factory(partitions=2)
    async with Client() as client:
        done = await client.enqueue(worker.url, QUEUE)
        await client.fetch(worker.url, [QUEUE], "w")
        await client.ack(worker.url, done["id"])
        chosen = "0193ffff-0000-7000-8000-00000000000"
        for digit in "12345":
            await client.enqueue(worker.url, f"{QUEUE}-{digit}", id=chosen + digit)
        leased = await client.enqueue(worker.url, QUEUE)
        await client.fetch(worker.url, [QUEUE], "owner")
        before = await stored_dumps(kafka.bootstrap, redis_server.url, namespace)
        ends = await end_offsets(kafka.bootstrap, f"{namespace}.commands")
        nobody = _other_id(done["id"], "ffff")
        error = {"code": "x", "message": "y"}
        asked: list[tuple[int, str, str, Any]] = [
            (409, "POST", "/workers/ack", {"job_id": done["id"]}),
            (409, "POST", "/workers/nack", {"job_id": done["id"], "error": error}),
            (409, "DELETE", f"/jobs/{done['id']}", None),
            (409, "POST", f"/jobs/{done['id']}/activate", {}),
            (409, "POST", "/workers/ack", {"job_id": leased["id"], "worker_id": "thief"}),
            (404, "POST", "/workers/ack", {"job_id": nobody}),
            (404, "DELETE", f"/jobs/{nobody}", None),
            (404, "POST", f"/dead-letter/{done['id']}/retry", {}),
            *((409, "POST", "/jobs", {**JOB, "id": chosen + digit}) for digit in "12345"),
        ]
        answers = [await client.ask(worker.url, method, path, sent) for _, method, path, sent in asked]
        wrong = [str(a) for a, (status, *_) in zip(answers, asked, strict=True) if a.status != status]
        assert wrong == []
        after = await stored_dumps(kafka.bootstrap, redis_server.url, namespace)
        assert await end_offsets(kafka.bootstrap, f"{namespace}.commands") != ends, "some reached the fold"
    for dump in before + after:
        del dump["applied"], dump["home"]
    assert first_difference(after, before) == ""


async def test_args_and_result_come_back_byte_for_byte(worker_factory: WorkerFactory) -> None:
    worker = await worker_factory(partitions=2)
    async with Client() as client:
        for args in ODD_VALUES:
            await _there_and_back(client, worker.url, args)


async def _there_and_back(client: Client, url: str, args: bytes) -> None:
    made = await client.ask(url, "POST", "/jobs", b'{"type":"exact.job","queue":"exact","args":' + args + b"}")
    job_id = made.body["id"]
    result = b'{"job_id":"' + job_id.encode() + b'","result":' + args + b"}"
    answers = [
        made,
        await client.ask(url, "GET", f"/jobs/{job_id}"),
        await client.ask(url, "POST", "/workers/fetch", {"queues": ["exact"]}),
        await client.ask(url, "POST", "/workers/ack", result),
        await client.ask(url, "GET", f"/jobs/{job_id}"),
    ]
    for answer in answers:
        assert answer.accepted, str(answer)
        assert b'"args":' + args in answer.raw
    assert b'"result":' + args in answers[-1].raw


def _pack(*commands: Any, v: int = 1) -> bytes:
    return json.dumps({"v": v, "commands": commands}).encode()


async def _own_enqueue(bootstrap: str, topic: str, home: int) -> dict[str, Any]:
    """The last enqueue of a partition, to be produced again under other ids."""
    records = (await read_topic(bootstrap, topic))[home]
    commands = [c for r in records for c in json.loads(r.value)["commands"] if c["kind"] == "enqueue"]
    return {key: value for key, value in commands[-1].items() if key != "submit"}


def _other_id(job_id: str, middle: str) -> str:
    """Another id of the same home: that is in the last three digits."""
    return f"{job_id[:-7]}{middle}{job_id[-3:]}"


def _renamed(command: dict[str, Any], middle: str, **more: Any) -> dict[str, Any]:
    (job,) = command["jobs"]
    return {**command, "jobs": [{**job, "id": _other_id(job["id"], middle), **more}]}


async def test_garbage_in_the_log_is_buried_and_the_partition_moves_on(
    worker_factory: WorkerFactory, kafka: BrokerHandle, redis_server: RedisHandle, namespace: str
) -> None:
    worker = await worker_factory(partitions=1)
    topic = f"{namespace}.commands"
    async with Client() as client:
        await client.enqueue(worker.url, QUEUE)
        good = await _own_enqueue(kafka.bootstrap, topic, 0)
        (job,) = good["jobs"]
        garbage = {
            b"\xff\xfe": "no pack",
            b"": "no pack",
            b"[1,2]": "no pack",
            _pack(v=1000): "pack version 1000 is unknown",
            _pack({"v": 1, "actor": "x", "kind": "nope"}): "no command",
            _pack({"v": 0, "actor": "x", "kind": "ack", "job_id": "x"}): "command version 0 is unknown",
            _pack(_renamed(good, "0003", delay_ms=2**61)): "Error: ",
            _pack(_renamed(good, "0001"), {"kind": "ack"}, _renamed(good, "0002")): "no command",
        }
        async with producer_to(kafka.bootstrap) as producer:
            for value in garbage:
                await producer.send_and_wait(topic, value, partition=0)
            await producer.send_and_wait(topic, None, key=b"tombstone", partition=0)
        after = await client.enqueue(worker.url, QUEUE)
        for middle in ("0001", "0002"):
            assert (await client.job(worker.url, _other_id(job["id"], middle)) or {})["state"] == "available"
        assert (await client.stats(worker.url, QUEUE))["available"] == 4

        async def buried() -> list[Any] | None:
            (records,) = (await read_topic(kafka.bootstrap, f"{namespace}.commands.dead")).values()
            return records if len(records) >= len(garbage) else None

        records = await until(buried, "dead records of all garbage", 15, 0.3)
        assert await client.job(worker.url, after["id"])
    reasons = [json.loads(record.value)["reason"] for record in records]
    for value, reason in garbage.items():
        assert any(reason in said for said in reasons), f"{value!r}: {reason!r} is not in {reasons}"
    assert all(reasons)
    assert await replay_difference(kafka.bootstrap, redis_server.url, namespace) == ""


async def test_garbage_in_the_bulk_topic_is_buried_and_the_rest_goes_on(
    worker_factory: WorkerFactory, kafka: BrokerHandle, namespace: str
) -> None:
    worker = await worker_factory(partitions=2)
    bad = [None, b"", b"\xff", b"[]", b'{"type":"A B","args":[]}', b'{"type":"a.b"}', b'{"args":[NaN],"type":"a"}']
    async with producer_to(kafka.bootstrap) as producer:
        for number, value in enumerate(bad):
            good = json.dumps({**JOB, "args": [number]}).encode()
            for each in (value, good):
                topic = f"{namespace}.commands.bulk"
                await producer.send_and_wait(topic, each, key=b"any", partition=number % 2)
    async with Client() as client:

        async def all_there() -> bool:
            return bool((await client.stats(worker.url, QUEUE))["available"] == len(bad))

        await until(all_there, "the good ones are jobs", 20, 0.2)

    async def all_buried() -> list[Any] | None:
        found = await read_topic(kafka.bootstrap, f"{namespace}.commands.dead")
        flat = [record for records in found.values() for record in records]
        return flat if len(flat) >= len(bad) else None

    records = await until(all_buried, "the bad ones are buried", 15, 0.3)
    assert len(records) == len(bad)
    assert all(json.loads(record.value)["reason"] and dict(record.headers)["ojs-error"] for record in records)
