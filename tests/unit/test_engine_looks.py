"""What the watchdog of the homes takes for standing still."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ojs_stream.agents import engine as engine_module
from ojs_stream.agents.engine import STUCK_S, Engine
from ojs_stream.errors import UnavailableError


class World:
    """One live home at offset 4, its log, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.end, self.down = 100.0, 5, False
        self.alarms: list[str] = []
        monkeypatch.setattr(engine_module, "monotonic", lambda: self.now)
        wiring: Any = SimpleNamespace(store=self)
        self.engine: Any = Engine(wiring, self)
        self.owner: Any = SimpleNamespace(applied=4, next=5, alarm=self.alarms.append)

    async def applied(self, homes: list[int]) -> list[int | None]:
        return [4 for _ in homes]

    async def end_offsets(self, homes: list[int]) -> dict[int, int]:
        if self.down:
            raise UnavailableError("Kafka is away")
        return dict.fromkeys(homes, self.end)

    async def look(self, after_s: float) -> list[str]:
        self.now += after_s
        await self.engine._look({0: self.owner})
        return self.alarms


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def test_a_record_that_is_not_delivered_for_long_is_an_alarm(world: World) -> None:
    assert await world.look(0.5) == []
    world.end = 6
    assert await world.look(STUCK_S - 0.5) == []
    (alarm,) = await world.look(1.0)
    assert "offset 5 is in the log and was not delivered" in alarm


async def test_after_an_outage_the_first_look_is_no_alarm(world: World) -> None:
    assert await world.look(0.5) == []
    world.down = True
    assert await world.look(30.0) == []
    world.down, world.end = False, 6
    assert await world.look(30.0) == []
    assert await world.look(STUCK_S - 0.5) == []
    assert len(await world.look(1.0)) == 1
