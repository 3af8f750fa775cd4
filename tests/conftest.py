"""Fixtures for every test: servers are lazy, so a unit test starts nothing."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.servers import BrokerHandle, RedisHandle, ServerHandle, Worker, make_broker, make_redis

WorkerFactory = Callable[..., Awaitable[Worker]]

Handle = TypeVar("Handle", bound=ServerHandle)
#: What is said to the tests, not to a server.
OURS = frozenset({"OJS_TEST_SERVERS", "OJS_CONFORMANCE_SUITES"})
REPORTS = pytest.StashKey[dict[str, bool]]()


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_developer() -> None:
    """A shell with KAFKA_BROKERS or OJS_* set must not steer a test."""
    for name in list(os.environ):
        if name.startswith(("OJS_", "KAFKA_", "REDIS_", "FAUST_")) and name not in OURS:
            del os.environ[name]


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerHandle]:
    """One Kafka for the session; a test that kills it starts it again."""
    yield from _running(make_broker(tmp_path_factory.mktemp("kafka")))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisHandle]:
    """One Redis for the session; a test that kills it starts it again."""
    yield from _running(make_redis(tmp_path_factory.mktemp("redis")))


@pytest.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[RedisHandle]:
    """A Redis that one test alone uses: it is killed or wiped."""
    server = make_redis(tmp_path / "own-redis")
    await server.start()
    yield server
    await server.stop()


def _running(server: Handle) -> Iterator[Handle]:
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture
def namespace() -> str:
    """A prefix of its own for topics, group and keys: stacks share the servers side by side."""
    return "t" + uuid.uuid4().hex[:8]


@pytest.fixture
def worker_factory(
    kafka: BrokerHandle,
    redis_server: RedisHandle,
    namespace: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[WorkerFactory]:
    """``await worker_factory(partitions=4, env={...})`` gives a ready worker; its log is shown on failure."""
    workers: list[Worker] = []

    async def make(*, ready: bool = True, **options: Any) -> Worker:
        settings = {
            "brokers": kafka.bootstrap,
            "redis_url": redis_server.url,
            "namespace": namespace,
            **options,
        }
        worker = Worker(tmp_path / f"worker-{len(workers) + 1}", **settings)
        workers.append(worker)
        if ready:
            return await worker.start()
        worker.launch()
        return worker

    yield make
    for worker in workers:
        worker.kill()
    if not request.node.stash.get(REPORTS, {}).get("call", True):
        for worker in workers:
            print(f"--- {worker.process.name} ---\n{worker.log_tail()}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember whether a phase passed, for fixtures that show logs on failure."""
    report = yield
    item.stash.setdefault(REPORTS, {})[report.when] = report.passed
    return report
