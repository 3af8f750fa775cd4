"""The demo is a test of its own: real jobs and a workflow, each result compared with a direct computation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import BrokerHandle, Worker, clean_env

ROOT = Path(__file__).parents[2]
FILES = 150
DEMO_S = 150


@pytest.mark.timeout(DEMO_S + 30)
async def test_the_demo_ends_with_nothing_failed(
    worker_factory: object, kafka: BrokerHandle, namespace: str
) -> None:
    worker: Worker = await worker_factory(partitions=4)  # type: ignore[operator]
    words = ["--url", worker.url, "--brokers", kafka.bootstrap, "--namespace", namespace, "--files", str(FILES)]
    ended = subprocess.run(
        [sys.executable, "-m", "tools.demo", *words],
        cwd=ROOT,
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=DEMO_S,
        check=False,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    assert re.search(r"[1-9]\d* passed, 0 failed", said), said
    assert re.search(r"pass +the workflow completed .* ([1-9]\d+) of \1 jobs completed, 0 failed", said), said
    assert re.search(r"pass +what it made of all results.* [1-9]\d+ files", said), said
