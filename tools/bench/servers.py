"""Own servers for a measurement: a Kafka, a Redis and some workers, each a process, in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ojs_stream.dev.process import ServerError, free_port
from ojs_stream.dev.stack import DevStack
from ojs_stream.dev.worker import WorkerProcess
from tools.demo.target import DEFAULT_NAMESPACE, TargetError

_OTHER_SERVERS = ("OJS_", "KAFKA_", "REDIS_", "FAUST_")
"""Prefixes of environment variables that are meant for another server than ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What runs, and where."""

    workers: list[WorkerProcess]
    brokers: str
    redis_url: str
    namespace: str
    partitions: int

    @property
    def ports(self) -> list[int]:
        """The workers' ports on the loopback address."""
        return [worker.port for worker in self.workers]

    def log_of(self, worker: WorkerProcess) -> list[str]:
        """What a worker has logged: warnings and worse."""
        return [line for line in worker.process.lines() if '"level":"warning"' in _dense(line) or "rror" in line]


def _dense(line: str) -> str:
    return line.replace('": "', '":"')


@contextlib.asynccontextmanager
async def own_servers(
    *, workers: int, partitions: int, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Servers]:
    """Yield servers that are ready and share out the partitions; raise TargetError when one does not start."""
    with tempfile.TemporaryDirectory(prefix="ojs-tool-") as name:
        folder = Path(name)
        try:
            async with DevStack(folder, env={}) as stack, contextlib.AsyncExitStack() as cleanup:
                ours = {
                    "KAFKA_BROKERS": stack.kafka_brokers,
                    "REDIS_URL": stack.redis_url,
                    "OJS_NAMESPACE": DEFAULT_NAMESPACE,
                    "OJS_PARTITIONS": str(partitions),
                    "OJS_KAFKA_QUEUE_TOPICS": "0",
                    **(settings or {}),
                }
                started = [
                    WorkerProcess(folder / f"worker-{number + 1}", port=free_port(), env=_environment(ours))
                    for number in range(workers)
                ]
                for worker in started:
                    cleanup.push_async_callback(worker.stop)
                    await worker.start()
                # The first was ready alone: it has given partitions away since.
                for worker in started:
                    await worker.wait_ready()
                yield Servers(
                    workers=started,
                    brokers=stack.kafka_brokers,
                    redis_url=stack.redis_url,
                    namespace=DEFAULT_NAMESPACE,
                    partitions=partitions,
                )
        except ServerError as error:
            raise TargetError(str(error)) from error


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment without what was meant for another server, and with the given settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OTHER_SERVERS)}
    return {**inherited, **settings}
