"""Servers of the runner's own: one embedded Kafka and Redis, one worker process a configuration.

A configuration is a number of partitions; it has a namespace of its own, so all of them run side by side.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ojs_stream.dev.stack import DevStack
    from ojs_stream.dev.worker import WorkerProcess


@asynccontextmanager
async def own_servers(partitions: Sequence[int]) -> AsyncIterator[dict[str, list[str]]]:
    """Give the URLs of one fresh server for each configuration, by its name (``N=8``)."""
    from ojs_stream.dev.stack import DevStack  # noqa: PLC0415 - the extra [dev], needed only here

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ojs-conformance-")))
        embedded = await stack.enter_async_context(DevStack(folder / "stack", env={}))
        workers = {f"N={number}": _worker(embedded, folder, number) for number in partitions}
        for worker in workers.values():
            stack.push_async_callback(worker.stop)
        await asyncio.gather(*(worker.start() for worker in workers.values()))
        yield {name: [worker.url] for name, worker in workers.items()}


def _worker(embedded: DevStack, folder: Path, partitions: int) -> WorkerProcess:
    from ojs_stream.dev.process import free_port  # noqa: PLC0415 - as above
    from ojs_stream.dev.worker import WorkerProcess  # noqa: PLC0415 - as above

    env = {
        **os.environ,
        "KAFKA_BROKERS": embedded.kafka_brokers,
        "REDIS_URL": embedded.redis_url,
        "OJS_NAMESPACE": f"conformance-{uuid.uuid4().hex[:8]}",
        "OJS_PARTITIONS": str(partitions),
        "OJS_TEST_MODE": "1",
    }
    return WorkerProcess(folder / f"n{partitions}", port=free_port(), env=env)
