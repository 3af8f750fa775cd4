"""A consumer that falls silent for good: the worker says why, ends with code 70, and the next one goes on."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from ojs_stream.runtime import EXIT_HANG
from tests.conftest import WorkerFactory
from tests.support.client import Client
from tests.support.servers import Worker
from tests.support.stranger import producer_to, read_topic

QUEUE = "hang"
HANG_S = 5
ENDS_S = 60.0


class OtherWorker:
    """Writes a job to the log twice a second, as another worker would."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self.ids: list[str] = []

    async def write_until_ended(self, worker: Worker) -> None:
        (records,) = (await read_topic(self._bootstrap, self._topic)).values()
        asked = next(c for r in records for c in json.loads(r.value)["commands"] if c["kind"] == "enqueue")
        deadline = time.monotonic() + ENDS_S
        async with producer_to(self._bootstrap) as producer:
            while not await worker.process.wait(0.5):
                assert time.monotonic() < deadline, "it did not end by itself"
                await producer.send_and_wait(self._topic, self._another(asked), partition=0)

    def _another(self, asked: dict[str, Any]) -> bytes:
        (job,) = asked["jobs"]
        job_id = f"{job['id'][:-7]}{len(self.ids):04x}{job['id'][-3:]}"
        self.ids.append(job_id)
        command = {**asked, "jobs": [{**job, "id": job_id}], "submit": "other:1"}
        return json.dumps({"v": 1, "commands": [command]}).encode()


async def _freeze(
    worker_factory: WorkerFactory, namespace: str, flag: Path, what: str, client: Client
) -> tuple[Worker, OtherWorker]:
    """A worker with frozen consumers, until it has ended; and what was written to its log meanwhile."""
    env = {"FROZEN_FLAG": str(flag), "FROZEN_WHAT": what, "OJS_HANG_S": str(HANG_S)}
    worker = await worker_factory(partitions=1, env=env, app="tests.support.frozen", namespace=namespace)
    await client.enqueue(worker.url, QUEUE)
    flag.touch()
    other = OtherWorker(worker.brokers, f"{namespace}.commands")
    await other.write_until_ended(worker)
    return worker, other


def _assert_it_says_why(worker: Worker, why: str) -> None:
    assert worker.process.exit_code == EXIT_HANG
    said = worker.log_tail(200)
    assert "this worker hangs and ends, to be restarted" in said
    assert why in said
    assert "recoveries, the last one because: " in said


async def test_a_worker_whose_consumers_are_frozen_ends_and_another_goes_on(
    worker_factory: WorkerFactory, namespace: str, tmp_path: Path
) -> None:
    async with Client() as client:
        (deaf, other), (stuck, _) = await asyncio.gather(
            _freeze(worker_factory, namespace, tmp_path / "deaf", "consumer", client),
            _freeze(worker_factory, f"{namespace}-all", tmp_path / "stuck", "everything", client),
        )
        _assert_it_says_why(deaf, "records were appended and the consumer delivers none")
        _assert_it_says_why(stuck, "records are in the log and nothing is applied")
        second = await worker_factory(partitions=1)
        for job_id in other.ids:
            assert await client.job(second.url, job_id), "what was written meanwhile is applied"
