"""`python -m tools.bench.footprint [jobs]`: what a job takes in Redis and in each topic, in each part of its life.

Servers of its own. Many equal jobs are enqueued in batches, then fetched, then acknowledged, and after each step
everything is measured; what an empty stack takes is subtracted.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from redis.asyncio import Redis

from ojs_stream.dev.process import free_port
from ojs_stream.dev.stack import DevStack
from ojs_stream.dev.worker import WorkerProcess
from ojs_stream.log.topics import Topics

JOBS = 100_000
"""Many beside the 10,000 events that each partition keeps."""
BATCH = 500
FETCH = 100
CLIENTS = 16
PARTITIONS = 4
QUEUES = [f"footprint-{number}" for number in range(8)]
JOB = {"type": "email.send", "args": [{"to": "somebody@example.org", "template": "welcome", "n": 4711}]}
SETTLE_S = 2.0
"""Events follow their jobs."""


class Life:
    """Clients that take all jobs one step further."""

    def __init__(self, session: aiohttp.ClientSession, url: str, jobs: int) -> None:
        self._session = session
        self._url = f"{url}/ojs/v1"
        self._jobs = jobs
        self._ids: list[str] = []

    async def enqueue(self) -> None:
        """Batches over all queues."""
        for number in range(self._jobs // BATCH):
            job = {**JOB, "queue": QUEUES[number % len(QUEUES)]}
            await self._post("/jobs/batch", {"jobs": [job] * BATCH})

    async def fetch(self) -> None:
        """All that there is."""
        for queue in itertools.cycle(QUEUES):
            asked = {"queues": [queue], "count": FETCH, "worker_id": "w", "visibility_timeout_ms": 3_600_000}
            self._ids += [job["id"] for job in (await self._post("/workers/fetch", asked))["jobs"]]
            if len(self._ids) >= self._jobs:
                return

    async def ack(self) -> None:
        """All that was fetched, by some clients side by side."""
        left = iter(self._ids)
        await asyncio.gather(*(self._ack_each(left) for _ in range(CLIENTS)))

    async def _ack_each(self, left: Any) -> None:
        for job_id in left:
            await self._post("/workers/ack", {"job_id": job_id, "worker_id": "w", "result": {"ok": True}})

    async def _post(self, path: str, body: object) -> Any:
        async with self._session.post(self._url + path, json=body) as answer:
            assert answer.status in (200, 201), await answer.text()
            return await answer.json(content_type=None)


async def _sizes(folder: Path, redis: Redis) -> Counter[str]:
    """Bytes in Redis, and of each topic on the broker's disk (one replica)."""
    await asyncio.sleep(SETTLE_S)
    found = Counter({"Redis": int((await redis.info("memory"))["used_memory"])})
    for segment in folder.glob("**/*.log"):
        topic, dash, partition = segment.parent.name.rpartition("-")
        if dash and partition.isdigit():
            found[topic] += segment.stat().st_size
    return found


def _rows(steps: Mapping[str, Counter[str]], jobs: int) -> list[str]:
    topics = Topics("ojs")
    names = ["Redis", topics.commands, topics.events]
    empty = steps["empty"]
    head = f"| bytes a job | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}"
    rows = [
        f"| {step} | {' | '.join(f'{(sizes[name] - empty[name]) / jobs:,.0f}' for name in names)} |"
        for step, sizes in steps.items()
        if step != "empty"
    ]
    return [head, *rows]


async def _measure(jobs: int) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="ojs-tool-") as name:
        folder = Path(name)
        async with DevStack(folder, env={}) as stack, aiohttp.ClientSession() as session:
            env = {
                **os.environ,
                "KAFKA_BROKERS": stack.kafka_brokers,
                "REDIS_URL": stack.redis_url,
                "OJS_PARTITIONS": str(PARTITIONS),
            }
            worker = await WorkerProcess(folder / "worker", port=free_port(), env=env).start()
            redis = Redis.from_url(stack.redis_url)
            try:
                life = Life(session, worker.url, jobs)
                steps = {"empty": await _sizes(folder, redis)}
                for step, work in (("waiting", life.enqueue), ("active", life.fetch), ("completed", life.ack)):
                    await work()
                    steps[step] = await _sizes(folder, redis)
                return _rows(steps, jobs)
            finally:
                await redis.aclose()
                await worker.stop()


def main() -> int:
    """Print the table as markdown."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else JOBS
    print("\n".join(asyncio.run(_measure(jobs))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
