"""A short chaos round: kill -9 and FLUSHALL under load, and nothing is lost, repeated or falsely confirmed.

``make chaos`` has all faults, more of each, and servers of their own.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.conftest import WorkerFactory
from tests.support.client import Client
from tests.support.servers import BrokerHandle, RedisHandle
from tools.chaos.faults import Fault, Scene, flush_once, kill_one
from tools.chaos.rounds import disturb
from tools.chaos.site import PARTITIONS, WORKERS, Site

SEED = 9
CALM_S = 1.5
ANSWER_S = 8.0
SLACK_S = 6.0
"""What a slow and busy machine may add; the figures themselves are printed."""


async def _some(scene: Scene) -> None:
    """A seeded order of two kills and a wiped Redis."""
    for hit in scene.dice.sample(["kill", "kill", "flush"], 3):
        await scene.calm()
        if hit == "kill":
            await kill_one(scene, scene.dice.choice(scene.site.workers))
        else:
            await flush_once(scene)


@pytest.mark.timeout(240)
async def test_killed_workers_and_a_wiped_redis_cost_no_job_and_little_time(
    worker_factory: WorkerFactory, kafka: BrokerHandle, own_redis: RedisHandle, namespace: str
) -> None:
    hired = (worker_factory(partitions=PARTITIONS, redis_url=own_redis.url) for _ in range(WORKERS))
    workers = list(await asyncio.gather(*hired))
    async with Client() as client:
        site = Site(client=client, kafka=kafka, redis=own_redis, namespace=namespace, workers=workers)
        scene = Scene(site=site, dice=random.Random(SEED), calm_s=CALM_S)
        verdict = await disturb(scene, Fault(name="some", run=_some), seed=SEED)
    longest = client.history.longest_wait()
    print("; ".join(f"{back.what}: {back.seconds:.1f} s" for back in scene.backs), f"; longest wait {longest}")
    print(f"{verdict.jobs} jobs, {verdict.checked} in order, answers {dict(client.history.statuses())}: {verdict}")
    assert (verdict.lost, verdict.twice, verdict.false, verdict.other) == ([], [], [], [])
    assert verdict.checked > 100
    assert [back for back in scene.backs if back.seconds > back.bound_s + SLACK_S] == []
    assert longest.took_s < ANSWER_S + SLACK_S
