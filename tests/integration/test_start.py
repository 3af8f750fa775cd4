"""How a worker starts: quickly from nothing, and not at all on a log that does not fit."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from tests.conftest import WorkerFactory
from tests.support.client import Client, until
from tests.support.history import Answer
from tests.support.servers import BrokerHandle, Worker, make_broker
from tests.support.stranger import topics_of

COLD_START_S = 5.0
SLACK_S = 5.0
"""What a noisy machine may add; the figure itself is printed."""


async def _status_of_ready(client: Client, worker: Worker) -> Answer:
    return await client.ask(worker.url, "GET", "/../../ready")


async def test_a_cold_start_answers_within_seconds(tmp_path: Path, worker_factory: WorkerFactory) -> None:
    broker = make_broker(tmp_path / "empty")
    await broker.start()
    try:
        begun = time.monotonic()
        worker = await worker_factory(ready=False, brokers=broker.bootstrap, partitions=8)
        async with Client() as client:
            seen: list[Answer] = []

            async def answered() -> Answer | None:
                seen.append(await _status_of_ready(client, worker))
                answer = await client.ask(worker.url, "POST", "/jobs", {"type": "first.job", "args": []})
                return answer if answer.status == 201 else None

            await until(answered, "the first job was taken", 30, 0.02)
            took_s = time.monotonic() - begun
            await until(lambda: _is_ready(client, worker), "ready", 10)
        print(f"cold start: first 201 after {took_s:.1f} s; /ready said {[a.status for a in seen if a.status]}")
        assert took_s < COLD_START_S + SLACK_S
        assert {answer.status for answer in seen} <= {0, 200, 503}
    finally:
        broker.kill()
        await broker.stop()


async def _is_ready(client: Client, worker: Worker) -> bool:
    return (await _status_of_ready(client, worker)).status == 200


async def test_another_number_of_partitions_ends_the_start_with_a_sentence(
    worker_factory: WorkerFactory,
) -> None:
    first = await worker_factory(partitions=2)
    second = await worker_factory(partitions=3, ready=False)
    assert await second.process.wait(30), "it ended by itself"
    assert second.process.exit_code != 0
    assert "OJS_PARTITIONS is 3, but the topic" in second.log_tail(200)
    assert first.alive


async def _delete_topic(bootstrap: str, namespace: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic])
    finally:
        await admin.close()

    async def gone() -> bool:
        return topic not in await topics_of(bootstrap, namespace)

    await until(gone, f"{topic} is deleted", 20, 0.2)


async def test_another_log_under_a_kept_redis_is_refused_in_words(
    worker_factory: WorkerFactory, kafka: BrokerHandle, namespace: str
) -> None:
    first = await worker_factory(partitions=1)
    async with Client() as client:
        job = await client.enqueue(first.url, "identity")
        await first.terminate()
        await _delete_topic(kafka.bootstrap, namespace, f"{namespace}.commands")
        second = await worker_factory(partitions=1, ready=False)

        async def refused() -> dict[str, object] | None:
            answer = await _status_of_ready(client, second)
            found = answer.body["partitions"] if answer.status else []
            return found[0] if found and found[0]["state"] == "refused" else None

        partition = await until(refused, "/ready says refused", 30, 0.1)
        reason = str(partition["reason"])
        assert "another" in reason
        assert "OJS_NAMESPACE" in reason
        asked = [
            client.ask(second.url, "POST", "/jobs", {"type": "a.b", "args": [], "queue": "identity"}),
            client.ask(second.url, "POST", "/workers/fetch", {"queues": ["identity"]}),
            client.ask(second.url, "GET", f"/jobs/{job['id']}"),
            client.ask(second.url, "GET", "/queues/identity/stats"),
        ]
        answers = await asyncio.gather(*asked)
        assert [answer.status for answer in answers] == [503] * len(answers)
        assert all(answer.retry_after and "is refused" in answer.raw.decode() for answer in answers)
        assert max(answer.took_s for answer in answers) < SLACK_S
