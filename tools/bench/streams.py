"""`python -m tools.bench.streams [streams] [jobs]`: many open event streams on one worker.

Servers of its own. All streams listen to everything; then jobs are enqueued, one after the other, and every stream
must get every event, once. It prints how long an event took from its request to the last stream.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from ojs_stream.dev.process import free_port
from ojs_stream.dev.stack import DevStack
from ojs_stream.dev.worker import WorkerProcess

STREAMS = 2_000
JOBS = 20
PARTITIONS = 4
OPENERS = 50
"""Connections that are opened side by side."""
WITHIN_S = 120.0
QUEUES = [f"streams-{number}" for number in range(8)]


def _resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def _ids(answer: aiohttp.ClientResponse, count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        line = await answer.content.readline()
        assert line, "the server has ended the stream"
        if line.startswith(b"id: "):
            found.append(line[4:].decode())
    return found


async def _enqueue(session: aiohttp.ClientSession, url: str, number: int) -> None:
    job = {"type": "email.send", "args": [number], "options": {"queue": QUEUES[number % len(QUEUES)]}}
    async with session.post(f"{url}/ojs/v1/jobs", json=job) as answer:
        assert answer.status == 201, await answer.text()


async def _rounds(
    session: aiohttp.ClientSession, url: str, answers: list[aiohttp.ClientResponse], jobs: int
) -> str:
    took: list[float] = []
    known: set[str] = set()
    for number in range(jobs):
        begun = time.perf_counter()
        reading = asyncio.gather(*(_ids(answer, 1) for answer in answers))
        await _enqueue(session, url, number)
        told = {event_id for (event_id,) in await reading}
        took.append(time.perf_counter() - begun)
        assert len(told) == 1, "every stream gets the same event"
        assert not told & known, "no event comes twice"
        known |= told
    took.sort()
    return (
        f"{jobs} events to {len(answers)} streams: median {took[len(took) // 2]:.3f} s, slowest {took[-1]:.3f} s"
    )


async def _run(worker: WorkerProcess, streams: int, jobs: int) -> list[str]:
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    turn = asyncio.Semaphore(OPENERS)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout, connector=connector))

        async def connect() -> aiohttp.ClientResponse:
            async with turn:
                asked = session.get(f"{worker.url}/ojs/v1/events/stream?types=job.enqueued")
                answer = await stack.enter_async_context(asked)
                assert answer.status == 200, await answer.text()
                return answer

        before, begun = _resident_mib(worker.process.pid), time.perf_counter()
        answers = await asyncio.gather(*(connect() for _ in range(streams)))
        opened = f"{streams} streams opened in {time.perf_counter() - begun:.1f} s"
        told = await _rounds(session, worker.url, answers, jobs)
        grown = _resident_mib(worker.process.pid) - before
        return [opened, told, f"the worker grew by {grown:.0f} MiB, {grown * 1024 / streams:.0f} KiB a stream"]


async def _measure(streams: int, jobs: int) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="ojs-tool-") as name:
        folder = Path(name)
        async with DevStack(folder, env={}) as stack:
            env = {
                **os.environ,
                "KAFKA_BROKERS": stack.kafka_brokers,
                "REDIS_URL": stack.redis_url,
                "OJS_PARTITIONS": str(PARTITIONS),
            }
            worker = await WorkerProcess(folder / "worker", port=free_port(), env=env).start()
            try:
                async with asyncio.timeout(WITHIN_S):
                    return await _run(worker, streams, jobs)
            finally:
                await worker.stop()


def main() -> int:
    """Print what was measured."""
    streams, jobs = [int(text) for text in sys.argv[1:3]] + [STREAMS, JOBS][len(sys.argv[1:3]) :]
    print("\n".join(asyncio.run(_measure(streams, jobs))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
