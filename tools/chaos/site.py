"""What a round plays on: a Kafka, a Redis and three workers, all of them real processes, with proxies between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ojs_stream.core.homes import home_of
from ojs_stream.dev.process import free_port
from ojs_stream.dev.redis import EmbeddedRedis
from tests.support.client import Client
from tests.support.servers import FillableKafka, RedisHandle, Worker
from tools.chaos.proxy import Proxy

WORKERS = 3
PARTITIONS = 6
QUEUES = 8
START_S = 90.0
"""A busy machine starts three workers at once, and a Kafka before."""


@dataclass(frozen=True, slots=True)
class Lines:
    """The two lines of one worker that can be disturbed."""

    kafka: Proxy
    redis: Proxy


@dataclass(slots=True, kw_only=True)
class Site:
    """Servers, workers, and the client whose history the audit reads."""

    client: Client
    kafka: FillableKafka
    redis: RedisHandle
    namespace: str
    workers: list[Worker]
    lines: list[Lines] = field(default_factory=list)
    """By worker; none when they speak to the servers directly."""
    partitions: int = PARTITIONS
    older: Path | None = None
    """Where a copy of an older Redis is kept."""

    @property
    def urls(self) -> list[str]:
        """Every worker, whether it lives or not."""
        return [worker.url for worker in self.workers]

    @property
    def queues(self) -> list[str]:
        """Where the crowd works."""
        return [f"chaos-{number}" for number in range(QUEUES)]

    @property
    def probes(self) -> list[str]:
        """One queue a home: who has asked them all, has asked everybody."""
        names = (f"probe-{number}" for number in range(100 * self.partitions))
        by_home: dict[int, str] = {}
        for name in names:
            by_home.setdefault(home_of(name, self.partitions), name)
        return list(by_home.values())


@asynccontextmanager
async def open_site(folder: Path, *, namespace: str, durable: bool, proxied: bool) -> AsyncIterator[Site]:
    """Start everything, and end it."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(EmbeddedRedis(folder / "redis", durable=durable))
        kafka, lines = await _kafka(folder / "kafka", redis.port, stack, proxied=proxied)
        client = await stack.enter_async_context(Client())
        workers = [
            _worker(folder / f"worker-{number}", namespace, kafka, redis, line)
            for number, line in enumerate(lines or [None] * WORKERS)
        ]
        for worker in workers:
            stack.callback(worker.kill)
        await start_all(workers)
        yield Site(
            client=client,
            kafka=kafka,
            redis=redis,
            namespace=namespace,
            workers=workers,
            lines=lines,
            older=folder,
        )


async def start_all(workers: Sequence[Worker]) -> None:
    """Start workers side by side."""
    await asyncio.gather(*(worker.start(START_S) for worker in workers))


def _worker(
    folder: Path, namespace: str, kafka: FillableKafka, redis: EmbeddedRedis, line: Lines | None
) -> Worker:
    brokers, url = kafka.bootstrap, redis.url
    if line is not None:
        brokers, url = f"127.0.0.1:{line.kafka.port}", f"redis://127.0.0.1:{line.redis.port}/0"
    return Worker(folder, brokers=brokers, redis_url=url, namespace=namespace, partitions=PARTITIONS)


async def _kafka(
    folder: Path, redis_port: int, stack: AsyncExitStack, *, proxied: bool
) -> tuple[FillableKafka, list[Lines]]:
    """A Kafka, with a listener for each worker that tells it the address of its own proxy."""
    if not proxied:
        return await stack.enter_async_context(FillableKafka(folder)), []
    targets = [free_port() for _ in range(WORKERS)]
    lines = [
        Lines(await stack.enter_async_context(Proxy(port)), await stack.enter_async_context(Proxy(redis_port)))
        for port in targets
    ]
    port = free_port()
    settings = _listeners(port, targets, [line.kafka.port for line in lines])
    return await stack.enter_async_context(FillableKafka(folder, port=port, settings=settings)), lines


def _listeners(port: int, targets: Sequence[int], proxies: Sequence[int]) -> dict[str, str]:
    controller = free_port()
    names = [f"WORKER{number}" for number in range(len(targets))]

    def addresses(ports: Sequence[int]) -> list[str]:
        return [f"{name}://127.0.0.1:{one}" for name, one in zip(names, ports, strict=True)]

    direct = f"PLAINTEXT://127.0.0.1:{port}"
    return {
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": ",".join([direct, f"CONTROLLER://127.0.0.1:{controller}", *addresses(targets)]),
        "advertised.listeners": ",".join([direct, *addresses(proxies)]),
        "listener.security.protocol.map": ",".join(
            f"{name}:PLAINTEXT" for name in ("PLAINTEXT", "CONTROLLER", *names)
        ),
        "inter.broker.listener.name": "PLAINTEXT",
    }
