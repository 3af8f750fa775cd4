"""The wall clocks of a simulation, and the places where the product reads time and dice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import structlog

from ojs_stream import stamp
from ojs_stream.agents import bulk, engine, owner
from ojs_stream.log import gateway
from ojs_stream.timers import ticker
from tests.simulation.history import EPOCH_MS
from tests.simulation.loop import VirtualLoop
from tests.simulation.releases import whose

VARIED: dict[tuple[Any, str], tuple[float, ...]] = {
    # Few messages are held in a short run: some seeds let go of them all the time.
    (owner, "HELD_MESSAGES_MAX"): (0, 3, owner.HELD_MESSAGES_MAX),
    # What nobody tells is polled: mostly less often than in the product, which only makes it later.
    (gateway, "SWEEP_S"): (gateway.SWEEP_S, 3 * gateway.SWEEP_S),
    (gateway, "AWAIT_POLL_S"): (gateway.AWAIT_POLL_S, 5 * gateway.AWAIT_POLL_S),
}
"""Constants of the product that a run may have in another size."""


class Clock:
    """The wall clocks of the simulation: one of the broker, one of all workers, both may step."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.broker_ms = 0
        self.local_ms = 0
        self._ahead_ms = 0

    def _now(self, offset: int) -> int:
        return EPOCH_MS + int(self._loop.time() * 1000) + offset

    def broker(self) -> int:
        """What the broker writes into a record."""
        return self._now(self.broker_ms)

    def local(self) -> int:
        """What a worker believes."""
        worker = whose.get()
        return self._now(self.local_ms + (0 if worker is None else worker.skew_ms))

    def step(self, broker_ms: int, local_ms: int) -> None:
        """Somebody sets the clocks."""
        self.broker_ms += broker_ms
        self.local_ms += local_ms
        self._ahead_ms = max(self._ahead_ms, self.broker_ms)

    def heal(self) -> None:
        """All agree, and no instant lies in their future that was promised in the log's past."""
        self.broker_ms = self.local_ms = self._ahead_ms


@contextmanager
def patched(loop: VirtualLoop, clock: Clock, rng: Random, journal: list[dict[str, Any]]) -> Iterator[None]:
    """Time and dice of the product come from the simulation; what it logs goes to ``journal``."""

    def note(_logger: Any, level: str, entry: Any) -> Any:
        journal.append({"at": round(loop.time(), 4), "level": level, **entry})
        raise structlog.DropEvent

    places = [(module, "monotonic") for module in (bulk, engine, gateway, owner, ticker)]
    before = [(module, name, getattr(module, name)) for module, name in places]
    before += [(stamp, name, getattr(stamp, name)) for name in ("now_ms", "dice", "new_token")]
    before += [(module, name, getattr(module, name)) for module, name in VARIED]
    before.append((asyncio, "sleep", asyncio.sleep))
    configured = structlog.get_config()
    try:
        for module, name in places:
            setattr(module, name, loop.time)
        for (module, name), values in VARIED.items():
            setattr(module, name, rng.choice(values))
        asyncio.sleep = loop.sleep  # type: ignore[assignment]
        stamp.now_ms = clock.local
        stamp.dice = rng.random
        stamp.new_token = lambda size=6: f"{rng.getrandbits(8 * size):0{2 * size}x}"
        structlog.configure(processors=[note])
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        structlog.configure(**configured)
