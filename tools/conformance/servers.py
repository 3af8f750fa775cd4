"""Servers of the runner's own: one embedded Kafka and Redis, and on them a few workers for each configuration.

A configuration is a number of partitions and of workers that share them. It has a lane for each group of cases
that must not see the others' resets; a lane is a namespace of its own, so all of them run side by side.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from ojs_stream.errors import OjsError

if TYPE_CHECKING:
    from ojs_stream.dev.worker import WorkerProcess

Urls = list[str]
"""The workers of one namespace: a request may go to any of them."""

START_TIMEOUT_S = 90.0
"""How long all workers together may take to start: a dozen of them share the cores of the machine."""

SHARE_TIMEOUT_S = 60.0
SHARE_POLL_S = 0.2
_STEERING = ("OJS_", "KAFKA_", "REDIS_", "FAUST_")


class ShareError(OjsError):
    """The workers of one namespace do not divide its partitions among themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One way to run the server: how many homes the log has, and how many workers share them."""

    name: str
    partitions: int
    workers: int = 1


CONFIGURATIONS = (
    Configuration(name="N=1", partitions=1),
    Configuration(name="N=8", partitions=8),
    Configuration(name="N=8, 2 workers", partitions=8, workers=2),
)


@asynccontextmanager
async def own_servers(lanes: int) -> AsyncIterator[dict[str, list[Urls]]]:
    """Give what `serve` gives, on an embedded Kafka and Redis in a temporary folder."""
    from ojs_stream.dev.stack import DevStack  # noqa: PLC0415 - the extra [dev], needed only here

    with tempfile.TemporaryDirectory(prefix="ojs-conformance-") as name:
        folder = Path(name)
        async with (
            DevStack(folder / "stack", env={}) as embedded,
            serve(folder, brokers=embedded.kafka_brokers, redis_url=embedded.redis_url, lanes=lanes) as served,
        ):
            yield served


@asynccontextmanager
async def serve(
    folder: Path,
    *,
    brokers: str,
    redis_url: str,
    lanes: int,
    configurations: Sequence[Configuration] = CONFIGURATIONS,
) -> AsyncIterator[dict[str, list[Urls]]]:
    """Give for each configuration, by its name, the URLs of ready workers of each of its lanes.

    Raises OjsError when a worker does not start or the workers of a lane do not share its partitions.
    """
    common = {"KAFKA_BROKERS": brokers, "REDIS_URL": redis_url, "OJS_TEST_MODE": "1"}
    started = {
        one.name: [_workers(folder / f"{place}-{lane}", one, common) for lane in range(lanes)]
        for place, one in enumerate(configurations)
    }
    everyone = [worker for of_one in started.values() for of_lane in of_one for worker in of_lane]
    served = {name: [[worker.url for worker in of_lane] for of_lane in of_one] for name, of_one in started.items()}
    try:
        await asyncio.gather(*(worker.start(START_TIMEOUT_S) for worker in everyone))
        await asyncio.gather(*(_shared(urls, one) for one in configurations for urls in served[one.name]))
        yield served
    finally:
        await asyncio.gather(*(worker.stop() for worker in everyone))


def _workers(folder: Path, one: Configuration, common: Mapping[str, str]) -> list[WorkerProcess]:
    """Make the workers of one lane, which share a namespace; none is started yet."""
    from ojs_stream.dev.process import free_port  # noqa: PLC0415 - as above
    from ojs_stream.dev.worker import WorkerProcess  # noqa: PLC0415 - as above

    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_STEERING)}
    namespace = f"conformance-{uuid.uuid4().hex[:8]}"
    env = {**inherited, **common, "OJS_NAMESPACE": namespace, "OJS_PARTITIONS": str(one.partitions)}
    return [WorkerProcess(folder / f"worker-{number}", port=free_port(), env=env) for number in range(one.workers)]


async def _shared(urls: Urls, one: Configuration) -> None:
    """Wait until every worker is ready, owns a partition, and no partition is without an owner."""
    deadline = time.monotonic() + SHARE_TIMEOUT_S
    async with aiohttp.ClientSession() as session:
        owned = [await _owned(session, url) for url in urls]
        while not _are_divided(owned, one.partitions):
            if time.monotonic() > deadline:
                raise ShareError(
                    f"The workers of {one.name} own {owned} after {SHARE_TIMEOUT_S:.0f} s; "
                    f"each should own some of the {one.partitions} partitions."
                )
            await asyncio.sleep(SHARE_POLL_S)
            owned = [await _owned(session, url) for url in urls]


async def _owned(session: aiohttp.ClientSession, url: str) -> list[int]:
    """Name the partitions of a worker, none while it is not ready."""
    async with session.get(f"{url}/ready") as answer:
        said = await answer.json(content_type=None)
        return [part["partition"] for part in said["partitions"]] if answer.status == 200 else []


def _are_divided(owned: Sequence[Sequence[int]], partitions: int) -> bool:
    return all(owned) and sorted(part for of_one in owned for part in of_one) == list(range(partitions))
