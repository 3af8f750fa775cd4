"""What is measured beside a fault: when every home serves again, what ``/ready`` promised, a bare producer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from tests.support.client import Client, new_id
from tools.chaos.crowd import VISIBILITY_MS
from tools.chaos.site import Site

PROBE_EVERY_S = 0.2
GIVE_UP_S = 120.0
READY_EVERY_S = 0.1
BARE_EVERY_S = 0.1
BARE_TIMEOUT_MS = 5_000


async def all_served(site: Site, urls: Sequence[str], dice: Random) -> float:
    """The moment at which each home has taken a new job at each of the workers; ``inf`` if that never came."""
    places = [(url, queue) for url in urls for queue in site.probes]
    return max(await asyncio.gather(*(_served(site.client, url, queue, dice) for url, queue in places)))


async def _served(client: Client, url: str, queue: str, dice: Random) -> float:
    deadline = time.monotonic() + GIVE_UP_S
    while time.monotonic() < deadline:
        wanted: dict[str, Any] = {"id": new_id(dice), "type": "chaos.probe", "args": [], "queue": queue}
        wanted["options"] = {"visibility_timeout_ms": VISIBILITY_MS}
        answer = await client.ask(url, "POST", "/jobs", wanted)
        if answer.status == 201:
            client.history.wanted[wanted["id"]] = wanted
            return time.monotonic()
        await asyncio.sleep(PROBE_EVERY_S)
    return float("inf")


class Aside:
    """A loop that runs beside a fault."""

    def __init__(self, step: Callable[[], Awaitable[None]]) -> None:
        self._step = step

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._step()


class ReadyWatch(Aside):
    """Looks at ``/ready`` of all workers, and keeps what they promise."""

    def __init__(self, site: Site) -> None:
        super().__init__(self._look)
        self._site = site
        self.promised_at = 0.0
        """The latest moment that a first prediction of some partition named; 0: none was needed."""
        self.commands = 0
        """The most commands that some partition had still to fold."""
        self._known: set[tuple[str, int]] = set()

    async def _look(self) -> None:
        for url in self._site.urls:
            answer = await self._site.client.ask(url, "GET", "/../../ready")
            for partition in answer.body["partitions"] if answer.status in (200, 503) else ():
                self._take(url, partition, answer.begun)
        await asyncio.sleep(READY_EVERY_S)

    def _take(self, url: str, partition: dict[str, Any], at: float) -> None:
        shown = partition["catching_up"]
        place = (url, partition["partition"])
        if shown["seconds_left"] is not None and place not in self._known:
            self._known.add(place)
            self.promised_at = max(self.promised_at, at + shown["seconds_left"])
            self.commands = max(self.commands, shown["commands_left"])


class BareProducer(Aside):
    """A plain aiokafka producer that writes all the time: when it is served, Kafka is back."""

    def __init__(self, site: Site) -> None:
        super().__init__(self._send)
        self._bootstrap = site.kafka.bootstrap
        self._topic = f"{site.namespace}.bare"
        self._times: list[tuple[float, float]] = []

    async def __aenter__(self) -> Self:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(self._topic, 1, 1)])
        finally:
            await admin.close()
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, acks="all", request_timeout_ms=BARE_TIMEOUT_MS
        )
        await self._producer.start()
        return await super().__aenter__()

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        with suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(5):
                await self._producer.stop()

    async def _send(self) -> None:
        begun = time.monotonic()
        with suppress(KafkaError):
            await self._producer.send_and_wait(self._topic, b"bare")
            self._times.append((begun, time.monotonic()))
        await asyncio.sleep(BARE_EVERY_S)

    async def served_after(self, since: float) -> float:
        """The moment at which a record was acknowledged that was still to be acknowledged at ``since``."""
        deadline = time.monotonic() + GIVE_UP_S
        while time.monotonic() < deadline:
            for _, ended in self._times:
                if ended > since:
                    return ended
            await asyncio.sleep(BARE_EVERY_S)
        return float("inf")
