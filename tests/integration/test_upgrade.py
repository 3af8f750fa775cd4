"""Upgrades: today's code goes on from what an earlier state of it has left, and works beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from ojs_stream.agents.owner import entry_of
from ojs_stream.core.commands import Command
from ojs_stream.log.reader import LogRecord
from ojs_stream.store.redis import RedisStore
from tests.conftest import WorkerFactory
from tests.support.audit import audit
from tests.support.builders import claim, enqueue, fold_round, job, pack, queue_at, tick
from tests.support.client import Client, Load, finish_all, until
from tests.support.recorded import DATA, RECORDINGS, Recording, in_todays_words, load, unpack_code
from tests.support.recount import recount
from tests.support.replay import first_difference, fold_log
from tests.support.servers import BrokerHandle, RedisHandle, Worker

QUEUES = [f"up-{number}" for number in range(8)]
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
TAKE_OVER_S = 25.0
JOBS = 20


def _what_follows(home: int, homes: int, log: Sequence[LogRecord], queues: Sequence[str]) -> list[LogRecord]:
    """Records that touch all that is stored: new jobs, claims of everything, and the end of every deadline."""
    last, now = log[-1].offset, log[-1].timestamp_ms
    follow: list[LogRecord] = []

    def write(after_ms: int, *commands: Command) -> None:
        follow.append(LogRecord(last + 1 + len(follow), now + after_ms, None, pack(commands), ()))

    write(10, enqueue(*[job(queue_at(home, homes), homes=homes) for _ in range(3)]))
    write(20, *[claim(queue, count=50) for queue in queues])
    for after_ms in (HOUR_MS, 3 * HOUR_MS, 8 * DAY_MS, 40 * DAY_MS, 200 * DAY_MS):
        write(after_ms, tick("run"), tick("reap"), *[claim(queue, count=10) for queue in queues])
    return follow


@pytest.mark.parametrize("name", RECORDINGS)
async def test_todays_code_goes_on_from_the_recorded_state(
    redis_server: RedisHandle, namespace: str, name: str
) -> None:
    recording = Recording.read(name)
    homes = len(recording.logs)
    async with Redis.from_url(redis_server.url) as redis:
        await load(redis, namespace, recording)
        store = RedisStore(redis, namespace)
        for home, log in enumerate(recording.logs):
            queues = [key[6:] for key in recording.states[home] if key.startswith("queue:")]
            follow = _what_follows(home, homes, log, queues)
            applied, state = await store.position(home)
            for entry in map(entry_of, follow):
                assert state is not None
                done, commit = await fold_round(store, state, [entry], homes=homes, expected=applied)
                assert await store.commit([commit]) == [None]
                state, applied = done.world.state(), entry.offset
            stored = await store.dump(home)
            folded = await fold_log([*log, *follow], home=home, homes=homes)
            assert first_difference([in_todays_words(stored)], [in_todays_words(folded)]) == ""
            assert recount(stored) == []


async def _all_answer(client: Client, url: str) -> None:
    """Every home takes a job and shows it."""

    async def taken(queue: str) -> Any:
        wanted = {"type": "probe.job", "args": [], "queue": queue}
        answer = await client.ask(url, "POST", "/jobs", wanted)
        if answer.status == 201:
            client.history.wanted[answer.body["id"]] = wanted
        return answer.status == 201

    asked = [until(partial(taken, queue), f"{queue} at {url}", TAKE_OVER_S, 0.2) for queue in QUEUES]
    await asyncio.gather(*asked)


async def _applied_by_both(client: Client, workers: Sequence[Worker]) -> bool:
    """Each of them owns homes that have applied more than their genesis."""
    for worker in workers:
        ready = await client.ask(worker.url, "GET", "/../../ready")
        if not any((each["applied"] or 0) > 0 for each in (ready.body or {}).get("partitions", ())):
            return False
    return True


async def _more_jobs(client: Client) -> None:
    known = len(client.history.wanted)

    async def made() -> bool:
        return len(client.history.wanted) >= known + JOBS

    await until(made, f"{JOBS} jobs more", TAKE_OVER_S)


async def _take_over(client: Client, victim: Worker, heir: Worker) -> float:
    """Seconds from the death of one until the other has answered for every home."""
    await _more_jobs(client)
    victim.kill()
    begun = time.monotonic()
    await _all_answer(client, heir.url)
    return time.monotonic() - begun


@pytest.mark.timeout(180)
async def test_both_versions_share_a_group_and_take_over_from_each_other(
    worker_factory: WorkerFactory, kafka: BrokerHandle, redis_server: RedisHandle, namespace: str, tmp_path: Path
) -> None:
    code = unpack_code(DATA / RECORDINGS[-1], tmp_path / "code")
    old, new = await asyncio.gather(worker_factory(code=code), worker_factory())
    async with Client() as client:
        load = Load(client, [old.url, new.url], QUEUES, clients=6, pause_s=0.1)
        await until(lambda: _applied_by_both(client, [old, new]), "both versions apply commands", 30, 0.2)
        after_old = await _take_over(client, old, new)
        await old.start()
        await until(lambda: _applied_by_both(client, [old, new]), "both versions apply commands", 30, 0.2)
        after_new = await _take_over(client, new, old)
        await load.stop()
        await finish_all(client, old.url, QUEUES)
        wrong = await audit(
            client,
            old.url,
            bootstrap=kafka.bootstrap,
            redis_url=redis_server.url,
            namespace=namespace,
            releases=2,
        )
    print(f"new after old {after_old:.1f} s, old after new {after_new:.1f} s; {len(client.history.wanted)} jobs")
    assert wrong == []
    assert [str(answer) for answer in load.wrong + load.unsettled] == []
