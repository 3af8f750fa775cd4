"""The official conformance cases of levels 0 and 1, with one home and with eight, side by side."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.servers import BrokerHandle, RedisHandle, Worker
from tools.conformance import REQUIRED, CaseResult, regressions, run_suite
from tools.conformance.report import shrunk

PARTITIONS = (1, 8)
LEVELS = sorted(REQUIRED)


@pytest.mark.timeout(300)
async def test_the_required_levels_pass_with_one_home_and_with_eight(
    kafka: BrokerHandle, redis_server: RedisHandle, namespace: str, tmp_path: Path
) -> None:
    workers = [
        Worker(
            tmp_path / f"n{n}",
            brokers=kafka.bootstrap,
            redis_url=redis_server.url,
            namespace=f"{namespace}-{n}",
            partitions=n,
        )
        for n in PARTITIONS
    ]
    try:
        await asyncio.gather(*(worker.start() for worker in workers))
        runs = await asyncio.gather(*(run_suite([worker.url], LEVELS) for worker in workers))
    finally:
        for worker in workers:
            worker.kill()
    assert [text for run in runs for text in _wrong(run)] == []


def _wrong(results: list[CaseResult]) -> list[str]:
    cases = [result.case for result in results]
    return [*shrunk(cases, REQUIRED), *regressions(results, REQUIRED)]
