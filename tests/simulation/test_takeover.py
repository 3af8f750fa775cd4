"""What a new owner finds and sends: chosen situations, where the seeds only meet them by chance."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ojs_stream.agents.owner import Owner
from ojs_stream.store import keys
from tests.simulation.cluster import Cluster, SimWorker
from tests.simulation.network import NAMESPACE, Network
from tests.simulation.scenario import Scenario
from tests.support.builders import enqueue, job, queue_at

SOON_S = 3.0


class Story(Scenario):
    """One worker without bad luck; ``tell`` says what happens to it."""

    def __init__(self, tell: Callable[[Story], Awaitable[None]], homes: int = 1) -> None:
        super().__init__(1)
        self.homes = homes
        self._tell = tell

    async def _main(self) -> None:
        self.net = Network(self.rng, self.loop, self.clock.broker)
        self._begin_log()
        self.cluster = Cluster(self.net, self.homes, 1)
        self.cluster.rebalance()
        await asyncio.sleep(SOON_S)
        await self._tell(self)

    @property
    def worker(self) -> SimWorker:
        return self.cluster.alive[0]

    def owner(self, home: int) -> Owner:
        return self.worker.engine.owners[home]

    async def enqueue(self, count: int, home: int = 0) -> None:
        queue = queue_at(home, self.homes)
        outcome = await self.worker.call(home, enqueue(*[job(queue, homes=self.homes) for _ in range(count)]))
        assert not outcome.refused
        await asyncio.sleep(SOON_S)

    async def take_over(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """The worker dies; another one has its homes after a while."""
        self.worker.crash()
        meanwhile()
        await asyncio.sleep(5 * SOON_S)

    def positions(self, topic: str, home: int = 0) -> list[int]:
        records = self.net.partition(f"{NAMESPACE}.{topic}", home)
        return [int(dict(record.headers)["ojs-position"]) for record in records]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.result.journal if str(entry["event"]).startswith(event)]


def told(tell: Callable[[Story], Awaitable[None]], homes: int = 1) -> Story:
    story = Story(tell, homes)
    assert story.run().problems == []
    return story


def test_events_are_not_sent_again_after_their_retention() -> None:
    async def tell(story: Story) -> None:
        await story.enqueue(30)
        await story.enqueue(1)
        await story.take_over(story.net.expire)
        assert story.owner(0).live

    # The last round's were acknowledged after the last commit: nobody knows it any more.
    assert told(tell).positions("events") == [*range(1, 32), 31]


def test_events_that_the_ring_has_lost_are_told_and_the_rest_is_sent() -> None:
    async def tell(story: Story) -> None:
        await story.enqueue(30)

        def overrun() -> None:
            story.net.partition(f"{NAMESPACE}.events", 0).clear()
            del story.net.store.data[keys.acked(NAMESPACE, 0)]
            ring = story.net.store.data[keys.events(NAMESPACE, 0)]
            for number in range(1, 11):
                del ring[str(number)]

        await story.take_over(overrun)
        assert story.owner(0).lost_events == 10

    story = told(tell)
    assert [entry["lost"] for entry in story.said("events were lost")] == [10]
    assert story.positions("events") == [*range(11, 31)]
