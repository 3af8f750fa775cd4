"""The official conformance cases: with one home, with eight, with eight shared by two workers, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.servers import BrokerHandle, RedisHandle
from tools.conformance import REQUIRED, Case, CaseResult, lanes_of, load_cases, regressions, run_lanes
from tools.conformance.report import shrunk
from tools.conformance.servers import serve

RUN_S = 600


@pytest.mark.timeout(RUN_S)
async def test_the_required_levels_pass_in_every_configuration(
    kafka: BrokerHandle, redis_server: RedisHandle, tmp_path: Path
) -> None:
    cases = load_cases(levels=REQUIRED)
    lanes = lanes_of(cases)
    async with serve(
        tmp_path, brokers=kafka.bootstrap, redis_url=redis_server.url, lanes=len(lanes)
    ) as configurations:
        runs = await asyncio.gather(*(run_lanes(servers, lanes) for servers in configurations.values()))
    wrong = [
        f"{name} {text}" for name, run in zip(configurations, runs, strict=True) for text in _wrong(run, cases)
    ]
    assert wrong == []


def _wrong(results: Sequence[CaseResult], cases: Sequence[Case]) -> list[str]:
    judged = [result.case for result in results]
    lost = [case.id for case in cases if case not in judged]
    return [*lost, *shrunk(judged, REQUIRED), *regressions(results, REQUIRED)]
