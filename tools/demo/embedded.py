"""An embedded server for one tool run: a real Kafka, a real Redis and one worker, each a process of its own.

The data is in a temporary folder; all three end with the tool, and nothing else is touched.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from ojs_stream.dev.process import ServerError, free_port
from ojs_stream.dev.stack import DevStack
from ojs_stream.dev.worker import WorkerProcess
from tools.demo.target import DEFAULT_NAMESPACE, Target, TargetError, Wish

_OTHER_SERVERS = ("OJS_", "KAFKA_BROKERS", "REDIS_URL")
"""Prefixes of environment variables that are meant for another server than ours."""


@contextlib.asynccontextmanager
async def embedded(wish: Wish) -> AsyncIterator[Target]:
    """Yield an embedded server that is ready; raise TargetError when a part of it does not start."""
    with tempfile.TemporaryDirectory(prefix="ojs-tool-") as name:
        folder = Path(name)
        try:
            async with DevStack(folder, env={}) as stack, _worker(folder, wish, stack) as target:
                yield target
        except ServerError as error:
            raise TargetError(str(error)) from error


@contextlib.asynccontextmanager
async def _worker(folder: Path, wish: Wish, stack: DevStack) -> AsyncIterator[Target]:
    namespace = wish.namespace or DEFAULT_NAMESPACE
    settings = {
        "KAFKA_BROKERS": stack.kafka_brokers,
        "REDIS_URL": stack.redis_url,
        "OJS_NAMESPACE": namespace,
        "OJS_PARTITIONS": str(wish.partitions),
        "OJS_KAFKA_QUEUE_TOPICS": "0",
    }
    worker = WorkerProcess(folder, port=free_port(), env=_environment(settings))
    try:
        await worker.start()
        yield Target(url=worker.url, brokers=stack.kafka_brokers, namespace=namespace, embedded=True)
    finally:
        await worker.stop()


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return our environment without what was meant for another server, and with the given settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OTHER_SERVERS)}
    return {**inherited, **settings}
