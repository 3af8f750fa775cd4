"""The scheduler and the reaper: when they look, how long they rest, whatever the wall clock does."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec import structs

from ojs_stream import stamp
from ojs_stream.agents.owner import Owner
from ojs_stream.core.commands import Command
from ojs_stream.core.outcomes import Outcome
from ojs_stream.timers import ticker as ticker_module
from ojs_stream.timers.ticker import PULSE_MS, Ticker

NOW = 1_900_000_000_000
HOUR_MS = 3_600_000


class Bench:
    """A live owner with something due, whose clock and stop watch the test moves."""

    def __init__(self, patch: pytest.MonkeyPatch, *, due_at: int | None = NOW - 1, watched: int = 0) -> None:
        self.wall_ms, self.elapsed_s = NOW, 100.0
        self.due_at = due_at
        self.ticks: list[Command] = []
        self.owner = Owner(0, cast("Any", SimpleNamespace(store=self)))
        self.owner.phase = "live"
        self.owner.deadlines["reap"] = due_at
        self.owner.state = structs.replace(self.owner.state, watched=watched, last=NOW)
        self.ticker = Ticker("reap", owners=lambda: [self.owner], submit=self.submit)
        patch.setattr(stamp, "now_ms", lambda: self.wall_ms)
        patch.setattr(ticker_module, "monotonic", lambda: self.elapsed_s)

    async def earliest(self, _home: int, _index: str) -> int | None:
        return self.due_at

    async def submit(self, _home: int, command: Command) -> Outcome:
        self.ticks.append(command)
        return Outcome(data={"moved": 0})

    async def look(self) -> tuple[int, ...]:
        result = await self.ticker.run_once()
        for _ in range(20):
            await asyncio.sleep(0)
        return result.ticked


async def test_a_tick_that_moved_nothing_is_repeated_after_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    assert await bench.look() == (0,)
    assert await bench.look() == ()
    bench.elapsed_s += 1.0
    assert await bench.look() == (0,)
    assert len(bench.ticks) == 2


async def test_a_rest_does_not_last_longer_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, due_at=NOW - HOUR_MS - 1)
    assert await bench.look() == (0,)
    bench.wall_ms -= HOUR_MS
    bench.elapsed_s += 1.0
    assert await bench.look() == (0,)


async def test_a_home_that_watches_is_pulsed_also_after_the_clock_was_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch, due_at=None, watched=1)
    bench.owner.state = structs.replace(bench.owner.state, last=NOW - HOUR_MS - PULSE_MS - 1)
    assert await bench.look() == (0,)
    assert await bench.look() == (), "the last pulse is under way"
    bench.wall_ms -= HOUR_MS
    bench.elapsed_s += PULSE_MS / 1000 + 0.1
    assert await bench.look() == (0,)
    assert len(bench.ticks) == 2
