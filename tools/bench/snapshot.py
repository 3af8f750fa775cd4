"""`python -m tools.bench.snapshot [jobs]`: what a snapshot of one partition costs, and whom.

A server of its own with one partition gets the jobs in batches. Then clients enqueue at a modest rate, first
alone, then beside `ojs-stream snapshot`: the first one folds the whole log, the second one only what came since.
At last Redis is wiped, and the partition comes back from the snapshot.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from secrets import token_hex
from statistics import quantiles

import aiohttp
from redis.asyncio import Redis

from ojs_stream.dev.process import free_port
from ojs_stream.dev.stack import DevStack
from ojs_stream.dev.worker import WorkerProcess

JOBS = 100_000
BATCH = 500
CLIENTS = 4
PAUSE_S = 0.01
ALONE_S = 8.0
BACK_S = 120.0
MIB = 1024 * 1024


def _job() -> dict[str, object]:
    """About 300 bytes of arguments, a half of which no compression makes smaller."""
    person = token_hex(64)
    args = {"to": f"{person}@example.org", "template": "welcome", "data": {"name": "Some Body", "n": [*range(20)]}}
    return {"type": "email.send", "queue": "mail", "args": [args]}


class Bench:
    """A worker and its clients."""

    def __init__(self, session: aiohttp.ClientSession, url: str, env: dict[str, str]) -> None:
        self._session = session
        self._url = url
        self._env = env

    async def fill(self, jobs: int) -> None:
        """Enqueue so many jobs."""
        for _ in range(jobs // BATCH):
            await self._post("/jobs/batch", {"jobs": [_job() for _ in range(BATCH)]})

    async def alone(self) -> list[float]:
        """Latencies in ms while nothing else goes on."""
        return await self._latencies(asyncio.sleep(ALONE_S))

    async def beside_a_snapshot(self) -> tuple[list[float], str]:
        """Latencies in ms while a snapshot is made, and what it says."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ojs_stream.cli", "snapshot"), env=self._env, stdout=asyncio.subprocess.PIPE
        )
        said = asyncio.create_task(process.communicate())
        took = await self._latencies(asyncio.shield(said))
        return took, (await said)[0].decode().strip()

    async def back_s(self) -> float:
        """How long until the stats of the queue are answered."""
        began = time.monotonic()
        while time.monotonic() - began < BACK_S:
            async with self._session.get(self._url + "/ojs/v1/queues/mail/stats") as answer:
                if answer.status == 200:
                    break
            await asyncio.sleep(PAUSE_S)
        return time.monotonic() - began

    async def _latencies(self, until: object) -> list[float]:
        found: list[float] = []
        clients = [asyncio.create_task(self._enqueue(found)) for _ in range(CLIENTS)]
        await until  # type: ignore[misc]
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        return found

    async def _enqueue(self, found: list[float]) -> None:
        while True:
            began = time.perf_counter()
            await self._post("/jobs", _job())
            found.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(PAUSE_S)

    async def _post(self, path: str, body: object) -> None:
        async with self._session.post(self._url + "/ojs/v1" + path, json=body) as answer:
            assert answer.status in (200, 201), await answer.text()


def _line(name: str, took: list[float]) -> str:
    cuts = quantiles(took, n=100)
    return f"{name}: p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, max {max(took):.1f} ms of {len(took)} enqueues"


async def _main(jobs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with DevStack(Path(folder), env={}) as stack, aiohttp.ClientSession() as session:
            servers = {"KAFKA_BROKERS": stack.kafka_brokers, "REDIS_URL": stack.redis_url}
            env = {**os.environ, **servers, "OJS_PARTITIONS": "1"}
            worker = await WorkerProcess(Path(folder) / "worker", port=free_port(), env=env).start()
            bench = Bench(session, worker.url, env)
            await bench.fill(jobs)
            print(_line("alone", await bench.alone()))
            for name in ("first snapshot", "next snapshot"):
                took, said = await bench.beside_a_snapshot()
                print(said)
                print(_line(f"beside the {name}", took))
                await bench.fill(jobs // 10)
            async with Redis.from_url(stack.redis_url) as redis:
                used = (await redis.info("memory"))["used_memory"] / MIB
                peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
                print(f"memory: {used:.0f} MiB in Redis, {peak:.0f} MiB at most in the process of the snapshots")
                await redis.flushall()
            print(f"wiped Redis: the queue answers after {await bench.back_s():.1f} s")
            await worker.stop()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]) if sys.argv[1:] else JOBS))
