"""A small history, and a worker that comes to its end at each of its steps, one after the other.

A step is a hop over a wire: between two of them nobody else can see a difference. The seeds meet most of them by
chance, here none is left out. Each time another worker takes over, alone, beside a zombie, with a Redis that is
empty, or with one that has lost its tail; then all that was promised must hold.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation.clients import Client
from tests.simulation.cluster import Cluster
from tests.simulation.network import Network
from tests.simulation.scenario import Scenario

HOMES = 2
REQUESTS = 8
AWAY_S = 6.0
ENOUGH = 80
"""So many steps the history has at least; fewer would mean that it is not told any more."""
Fate = Callable[["Doomed"], None]


class Doomed(Scenario):
    """Two workers, one client; the first worker meets its ``fate`` at its step number ``step``."""

    def __init__(self, seed: int, step: int, fate: Fate) -> None:
        super().__init__(seed)
        self.homes = HOMES
        self.met = False
        self._step = step
        self._fate = fate

    async def _main(self) -> None:
        self.net = Network(self.rng, self.loop, self.clock.broker)
        self._begin_log()
        self.cluster = Cluster(self.net, self.homes, 2)
        first = self.first = self.cluster.workers[0]
        for home in range(self.homes):
            self.cluster.give(home, first)
        first.link.steps_left, first.link.on_crash = self._step, self._meet
        client = Client(self.cluster, self.history, self.rng)
        await client.run(REQUESTS)
        await self._end_well(client)

    def _meet(self) -> None:
        self.met = True
        self._fate(self)


def crash(doomed: Doomed) -> None:
    """SIGKILL."""
    doomed.first.crash()


def pause(doomed: Doomed) -> None:
    """SIGSTOP; when it goes on, its homes have long been another's, and it does not know yet."""
    doomed.first.link.frozen_until = doomed.loop.time() + AWAY_S
    doomed.cluster.rebalance(zombies=True)


def crash_and_wipe(doomed: Doomed) -> None:
    """The machine is gone, and with it a Redis without persistence."""
    doomed.first.crash()
    doomed.net.store.wipe(range(HOMES))


def crash_and_roll_back(doomed: Doomed) -> None:
    """The machine is gone, and with it the last commits."""
    doomed.first.crash()
    doomed.net.roll_back(range(HOMES))


@pytest.mark.parametrize(("fate", "seed"), [(crash, 1), (pause, 2), (crash_and_wipe, 3), (crash_and_roll_back, 4)])
def test_at_every_step(fate: Fate, seed: int) -> None:
    step = 0
    while True:
        step += 1
        doomed = Doomed(seed, step, fate)
        assert doomed.run().problems == [], f"{fate.__name__} at step {step}"
        if not doomed.met:
            break
    assert step > ENOUGH
