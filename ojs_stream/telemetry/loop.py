"""How late the event loop is: what sleeps on it wakes too late by as much."""

from __future__ import annotations

import asyncio

from ojs_stream.telemetry.meters import LAG_BOUNDS_S, Histogram

LOOK_S = 0.2


class LoopMeter:
    """Sleeps, and notes by how much it overslept."""

    def __init__(self) -> None:
        self.lag = Histogram(LAG_BOUNDS_S)

    async def run_once(self) -> None:
        """One look."""
        loop = asyncio.get_running_loop()
        due = loop.time() + LOOK_S
        await asyncio.sleep(LOOK_S)
        self.lag.observe(max(0.0, loop.time() - due))
