"""kill -9 under load: nothing accepted is lost, nothing is applied twice, nobody waits long."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import pytest

from tests.conftest import WorkerFactory
from tests.support.audit import audit
from tests.support.client import Client, Load, finish_all, until
from tests.support.history import Answer
from tests.support.servers import BrokerHandle, RedisHandle, Worker

QUEUES = [f"kill-{number}" for number in range(8)]
KILLS = 5
ANSWER_S = 8.0
SLACK_S = 3.0
"""What a noisy machine may add; the figure itself is printed."""


async def _each_queue_answers(client: Client, urls: list[str]) -> None:
    """Every home takes a job at every worker that is left."""

    async def taken(url: str, queue: str) -> Answer | None:
        answer = await client.ask(url, "POST", "/jobs", {"type": "probe.job", "args": [], "queue": queue})
        if answer.status == 201:
            client.history.wanted[answer.body["id"]] = answer.sent
        return answer if answer.status == 201 else None

    def ask(url: str, queue: str) -> Callable[[], object]:
        return lambda: taken(url, queue)

    await asyncio.gather(
        *(until(ask(url, queue), f"{queue} at {url}", 25, 0.2) for url in urls for queue in QUEUES)  # type: ignore[arg-type]
    )


async def _kill_and_restart(client: Client, workers: list[Worker], victim: Worker) -> float:
    """Seconds until the others have answered for every home."""
    victim.kill()
    begun = time.monotonic()
    await _each_queue_answers(client, [worker.url for worker in workers if worker is not victim])
    healed_s = time.monotonic() - begun
    await victim.start()
    return healed_s


@pytest.mark.timeout(200)
async def test_a_killed_worker_costs_no_job_and_little_time(
    worker_factory: WorkerFactory, kafka: BrokerHandle, redis_server: RedisHandle, namespace: str
) -> None:
    workers = list(await asyncio.gather(*(worker_factory(partitions=6) for _ in range(3))))
    dice = random.Random(9)
    async with Client() as client:
        load = Load(client, [worker.url for worker in workers], QUEUES, clients=8, pause_s=0.12)
        healed = [await _kill_and_restart(client, workers, dice.choice(workers)) for _ in range(KILLS)]
        await load.stop()
        await finish_all(client, workers[0].url, QUEUES)
        wrong = await audit(
            client,
            workers[0].url,
            bootstrap=kafka.bootstrap,
            redis_url=redis_server.url,
            namespace=namespace,
        )
    longest = client.history.longest_wait()
    print(f"kill -9: others answered after {', '.join(f'{s:.1f}' for s in healed)} s; longest wait {longest}")
    print(f"{len(client.history.wanted)} jobs, answers {dict(client.history.statuses())}")
    assert wrong == []
    assert [str(answer) for answer in load.wrong + load.unsettled] == []
    assert longest.took_s < ANSWER_S + SLACK_S
    assert max(healed) < ANSWER_S + SLACK_S
