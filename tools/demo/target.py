"""Which server a tool talks to: the one that was named, one that is running already, or an own embedded one.

This module never starts anything itself; `tools.demo.embedded` does.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_NAMESPACE = "ojs"
DEV_DATA = Path(".ojs")
EMBEDDED_PARTITIONS = 8
_PROBE = aiohttp.ClientTimeout(total=2.0)


class TargetError(Exception):
    """There is no server to talk to, or not enough is known about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server that is ready."""

    url: str
    #: Bootstrap servers of its Kafka; empty when nobody said and the tool does not need them.
    brokers: str
    namespace: str
    embedded: bool

    @property
    def description(self) -> str:
        """Return how the report calls it."""
        kind = "one embedded worker with its own Kafka and Redis" if self.embedded else "a running server"
        return f"{kind} at {self.url}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the command line and the environment say about the server."""

    url: str = ""
    brokers: str = ""
    namespace: str = ""
    #: Talk to whatever answers on the default port before starting an own one.
    look_around: bool = True
    needs_brokers: bool = True
    partitions: int = EMBEDDED_PARTITIONS


@contextlib.asynccontextmanager
async def open_target(wish: Wish) -> AsyncIterator[Target]:
    """Yield a server that is ready; an embedded one is stopped afterwards."""
    if wish.url:
        yield await _named(wish, wish.url)
    elif wish.look_around and await is_ready(DEFAULT_URL):
        yield await _named(wish, DEFAULT_URL)
    else:
        from tools.demo.embedded import embedded  # noqa: PLC0415 - only then is the extra [dev] needed

        async with embedded(wish) as target:
            yield target


async def _named(wish: Wish, url: str) -> Target:
    if not await is_ready(url):
        raise TargetError(
            f"{url}/ready does not answer 200: start the server, or leave --url out for an embedded one"
        )
    brokers = wish.brokers or os.environ.get("KAFKA_BROKERS", "") or embedded_brokers(DEV_DATA)
    if wish.needs_brokers and not brokers:
        raise TargetError(f"the Kafka of {url} is not known: give --brokers or set KAFKA_BROKERS")
    namespace = wish.namespace or os.environ.get("OJS_NAMESPACE", "") or DEFAULT_NAMESPACE
    return Target(url=url.rstrip("/"), brokers=brokers, namespace=namespace, embedded=False)


def embedded_brokers(data: Path) -> str:
    """Return the address of the Kafka that `make run` keeps below a data folder, empty when there is none."""
    settings = data / "kafka" / "server.properties"
    lines = settings.read_text().splitlines() if settings.is_file() else []
    listeners = (line.partition("=")[2] for line in lines if line.startswith("advertised.listeners="))
    return next(listeners, "").rpartition("//")[2]


async def is_ready(url: str) -> bool:
    """Return whether a server answers 200 on `/ready`."""
    try:
        async with (
            aiohttp.ClientSession(timeout=_PROBE) as session,
            session.get(f"{url.rstrip('/')}/ready") as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
