"""How late a scheduled job becomes available, while many others wait for a day that is far away."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

from tests.conftest import WorkerFactory
from tests.support.client import Client, until

WAITING = 20_000
DUE = 500
OVER_S = 4.0
QUEUES = [f"schedule-{number}" for number in range(8)]
LATE_MS = 100.0
"""At p99 on a machine that has nothing else to do; tests share theirs, so they ask for half of the jobs only."""
BATCH = 1_000


def _job(number: int, at: float) -> dict[str, Any]:
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    queue = QUEUES[number % len(QUEUES)]
    return {"type": "late.job", "args": [number], "queue": queue, "options": {"scheduled_at": moment}}


async def _schedule(client: Client, url: str, jobs: list[dict[str, Any]]) -> None:
    for start in range(0, len(jobs), BATCH):
        await client.must(url, "POST", "/jobs/batch", {"jobs": jobs[start : start + BATCH]})


async def _late_ms(client: Client, url: str) -> list[float]:
    """By the server's own records: when each job became available, less when it was to be."""
    late = []
    for queue in QUEUES:
        page = await client.must(url, "GET", f"/jobs?queue={queue}&state=available&limit=200")
        for job in page["jobs"]:
            times = [datetime.fromisoformat(job[name]) for name in ("scheduled_at", "enqueued_at")]
            late.append((times[1] - times[0]).total_seconds() * 1000)
    return sorted(late)


async def test_promotion_is_prompt_however_many_wait(worker_factory: WorkerFactory) -> None:
    worker = await worker_factory(partitions=4)
    async with Client() as client:
        far = time.time() + 365 * 86_400
        await _schedule(client, worker.url, [_job(number, far + number) for number in range(WAITING)])
        soon = time.time() + 1.5
        await _schedule(client, worker.url, [_job(n, soon + n * OVER_S / DUE) for n in range(DUE)])
        await asyncio.sleep(max(0.0, soon + OVER_S - time.time()))  # nobody asks meanwhile: a fetch would promote

        async def promoted() -> bool:
            found = [await client.stats(worker.url, queue) for queue in QUEUES]
            return sum(stats["available"] for stats in found) == DUE

        await until(promoted, f"{DUE} jobs are available", 20)
        late = await _late_ms(client, worker.url)
        waiting = sum([(await client.stats(worker.url, queue))["scheduled"] for queue in QUEUES])
    assert waiting == WAITING
    assert len(late) == DUE
    assert late[0] >= 0, "never before its time"
    p50, p99 = late[DUE // 2], late[DUE * 99 // 100]
    print(f"promotion with {WAITING} waiting: p50 {p50:.0f} ms, p99 {p99:.0f} ms, latest {late[-1]:.0f} ms late")
    assert p50 < LATE_MS
