"""SIGTERM: the worker that goes answers what it took, the one that stays serves everybody."""

from __future__ import annotations

import asyncio
import time

from tests.conftest import WorkerFactory
from tests.support.audit import audit
from tests.support.client import Client, Load, finish_all
from tests.support.history import NO_ANSWER, Answer
from tests.support.servers import BrokerHandle, RedisHandle, Worker

QUEUES = ["term-a", "term-b", "term-c", "term-d"]
STAYS_WAIT_S = 10.0
STOP_S = 15.0


def _cut(answer: Answer) -> bool:
    """The connection ended after the request was sent; a refused connection never took it."""
    return answer.status == NO_ANSWER and "ClientConnectorError" not in answer.problem


async def _stop_under_load(at_stays: Client, at_goes: Client, stays: Worker, goes: Worker) -> float:
    """Load at both, SIGTERM to one, its clients go over to the other; seconds until it has ended."""
    load = Load(at_stays, [stays.url], QUEUES, clients=4, pause_s=0.08, seed=1)
    other = Load(at_goes, [goes.url], QUEUES, clients=4, pause_s=0.08, seed=2)
    await asyncio.sleep(2)
    begun = time.monotonic()
    stopping = asyncio.create_task(goes.terminate())
    await asyncio.sleep(0.05)
    other.urls[:] = [goes.url, stays.url]
    assert await stopping, "it ended by itself"
    stopped_s = time.monotonic() - begun
    other.urls[:] = [stays.url]
    await asyncio.sleep(2)
    await asyncio.gather(load.stop(), other.stop())
    assert [str(answer) for answer in load.wrong + other.wrong + load.unsettled + other.unsettled] == []
    return stopped_s


async def test_a_worker_that_is_told_to_stop_cuts_nobody_off(
    worker_factory: WorkerFactory, kafka: BrokerHandle, redis_server: RedisHandle, namespace: str
) -> None:
    stays, goes = await asyncio.gather(worker_factory(), worker_factory())
    async with Client() as at_stays, Client() as at_goes:
        at_goes.history.wanted = at_stays.history.wanted
        stopped_s = await _stop_under_load(at_stays, at_goes, stays, goes)
        await finish_all(at_stays, stays.url, QUEUES)
        at_stays.history.answers += at_goes.history.answers
        servers = {"bootstrap": kafka.bootstrap, "redis_url": redis_server.url, "namespace": namespace}
        assert await audit(at_stays, stays.url, **servers) == []
    assert goes.process.exit_code == 0
    assert stopped_s < STOP_S
    at_other = [answer for answer in at_stays.history.answers if answer.url == stays.url]
    longest = max(answer.took_s for answer in at_other)
    print(f"SIGTERM: ended after {stopped_s:.1f} s; the other's longest wait {longest:.2f} s")
    assert [str(answer) for answer in at_other if answer.unknown] == []
    assert longest < STAYS_WAIT_S
    left = [answer for answer in at_stays.history.answers if answer.url == goes.url]
    assert [str(answer) for answer in left if _cut(answer)] == []
    assert all(answer.status == 503 and answer.retry_after for answer in left if answer.status >= 500)
