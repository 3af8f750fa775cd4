"""Reading as a stranger: every record of every topic is text that any Kafka tool shows."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.conftest import WorkerFactory
from tests.support.client import Client, until
from tests.support.servers import BrokerHandle
from tests.support.stranger import producer_to, read_topic, topics_of

QUEUE = "stranger"
MIRRORS = {f"queue.{QUEUE}", f"queue.{QUEUE}.retry", f"dead.{QUEUE}", "scheduled"}
WITH_RECORDS = {"commands", "events", "retry", "dead", "commands.dead", *MIRRORS}


async def _a_bit_of_everything(client: Client, url: str) -> list[str]:
    """Enqueue, schedule, complete, retry, dead-letter and cancel; gives the ids."""
    retry = {"max_attempts": 2, "initial_interval": "PT0.1S", "jitter": False, "on_exhaustion": "dead_letter"}
    jobs = [await client.enqueue(url, QUEUE, args=["grün", n], options={"retry": retry}) for n in range(4)]
    later = await client.enqueue(url, QUEUE, options={"scheduled_at": "+PT1H"})
    await client.must(url, "DELETE", f"/jobs/{later['id']}")
    for _ in range(2):
        (job,) = await until(lambda: client.fetch(url, [QUEUE], "reader"), "a job")
        await client.ack(url, job["id"], result=["ok"])
    failure = {"code": "bad", "message": "no"}

    async def all_dead() -> bool:
        for job in await client.fetch(url, [QUEUE], "reader", count=2):
            await client.must(url, "POST", "/workers/nack", {"job_id": job["id"], "error": failure})
        return len((await client.must(url, "GET", "/dead-letter"))["jobs"]) == 2

    await until(all_dead, "two dead letters")
    return [job["id"] for job in jobs] + [later["id"]]


async def _garbage(bootstrap: str, namespace: str) -> None:
    async with producer_to(bootstrap) as producer:
        await producer.send_and_wait(f"{namespace}.commands", b"\xff no json", partition=0)


def _text(record: Any) -> tuple[Any, dict[str, str]]:
    """The value as JSON and the headers as text; raises when either is not."""
    return json.loads(record.value.decode()), {name: value.decode() for name, value in record.headers}


async def test_every_record_is_json_with_text_headers(
    worker_factory: WorkerFactory, kafka: BrokerHandle, namespace: str
) -> None:
    worker = await worker_factory(partitions=2, env={"OJS_KAFKA_QUEUE_TOPICS": "1"})
    async with Client() as client:
        ids = await _a_bit_of_everything(client, worker.url)
    await _garbage(kafka.bootstrap, namespace)

    async def filled() -> dict[str, list[Any]] | None:
        names = await topics_of(kafka.bootstrap, namespace)
        if not {f"{namespace}.{name}" for name in WITH_RECORDS} <= names:
            return None
        short = [name.removeprefix(namespace + ".") for name in names]
        read = await asyncio.gather(*(read_topic(kafka.bootstrap, f"{namespace}.{name}") for name in short))
        flat = [[record for records in topic.values() for record in records] for topic in read]
        found = dict(zip(short, flat, strict=True))
        return found if all(found[name] for name in WITH_RECORDS) else None

    found = await until(filled, f"records in {sorted(WITH_RECORDS)}", 30, 0.3)
    for name in WITH_RECORDS - {"commands"}:
        for record in found[name]:
            _text(record)
    _look_at_commands(found["commands"])
    _look_at_events(found["events"], ids)
    for name in ("retry", "dead"):
        _look_at_jobs(found[name], ids)
    (buried,) = found["commands.dead"]
    value, headers = _text(buried)
    assert "no pack" in value["reason"]
    assert headers["ojs-error"] == value["reason"]


def _look_at_commands(records: list[Any]) -> None:
    good = [record for record in records if not record.value.startswith(b"\xff")]
    assert len(good) == len(records) - 1
    for record in good:
        pack, headers = _text(record)
        assert (pack["v"], headers["ojs-version"], headers["content-type"]) == (1, "1", "application/json")
        assert len(pack["commands"]) == int(headers["ojs-pack-size"])
        for command in pack["commands"]:
            assert command["v"] == 1
            assert command["actor"]
            assert command["kind"]


def _look_at_events(records: list[Any], ids: list[str]) -> None:
    assert {record.key.decode() for record in records} >= set(ids)
    for record in records:
        event, headers = _text(record)
        assert event["specversion"] == "1.0"
        assert record.key.decode() == event["subject"] == headers["ojs-job-id"]
        assert headers["ojs-event-type"] == event["type"]
        assert headers["ojs-queue"] == event["data"].get("queue", "")
        assert headers["ojs-position"].isdigit()


def _look_at_jobs(records: list[Any], ids: list[str]) -> None:
    for record in records:
        value, headers = _text(record)
        assert record.key.decode() in ids
        assert value.get("job_id", value.get("id")) == record.key.decode()
        assert value["queue"] == headers["ojs-queue"] == QUEUE
