"""The cron timer: it computes instants of what is due and submits them; what cannot be computed stops nobody."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec import Raw, structs

from ojs_stream import stamp
from ojs_stream.agents.owner import Owner
from ojs_stream.core.commands import Command, Fire
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import CronRecord
from ojs_stream.errors import UnavailableError
from ojs_stream.timers.cron import CronTicker

NOW = 1_900_000_000_000
ENTRY = CronRecord(
    name="often",
    expression="@every 10s",
    template=Raw(b"{}"),
    job=Raw(b"{}"),
    serial=1,
    version=3,
    anchor=NOW - 35_000,
    created=0,
    updated=0,
    next_at=NOW - 25_000,
)


class Bench:
    """A live owner whose earliest entry is overdue, and a timer over it."""

    def __init__(self, *entries: CronRecord) -> None:
        self.entries = list(entries)
        self.fires: list[Command] = []
        self.answer: Outcome | Exception = Outcome(data={"moved": 1, "running": 0})
        self.owner = Owner(0, cast("Any", SimpleNamespace(store=self)))
        self.owner.phase = "live"
        self.owner.deadlines["cron"] = self.earliest_at = NOW - 25_000
        self.ticker = CronTicker(self.due, owners=lambda: [self.owner], submit=self.submit)

    async def earliest(self, home: int, index: str) -> int | None:
        return self.earliest_at

    async def due(self, home: int, now_ms: int) -> list[CronRecord]:
        assert now_ms == NOW
        return self.entries

    async def submit(self, home: int, command: Command) -> Outcome:
        self.fires.append(command)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def look(self) -> tuple[int, ...]:
        result = await self.ticker.run_once()
        for _ in range(20):
            await asyncio.sleep(0)
        return result.ticked


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamp, "now_ms", lambda: NOW)


async def test_the_latest_instant_is_fired_and_the_missed_are_counted() -> None:
    bench = Bench(ENTRY)
    assert await bench.look() == (0,)
    (fire,) = bench.fires
    assert isinstance(fire, Fire)
    assert (fire.name, fire.tick, fire.next_at) == ("often", NOW - 5_000, NOW + 5_000)
    assert (fire.missed, fire.version) == (2, 3)


async def test_an_entry_whose_zone_is_unknown_here_does_not_stop_the_others() -> None:
    lost = structs.replace(ENTRY, name="lost", expression="0 * * * *", timezone="Europe/Atlantis")
    bench = Bench(lost, ENTRY)
    await bench.look()
    assert [cast("Fire", fire).name for fire in bench.fires] == ["often"]


async def test_what_moves_nothing_is_asked_for_later() -> None:
    bench = Bench(ENTRY)
    bench.answer = Outcome(data={"moved": 0})
    await bench.look()
    assert await bench.look() == (), "it waits: the clock of the log is behind ours"
    assert len(bench.fires) == 1


async def test_an_outage_is_waited_for() -> None:
    bench = Bench(ENTRY)
    bench.answer = UnavailableError("Kafka is down")
    await bench.look()
    assert await bench.look() == ()


async def test_what_is_not_due_is_left_alone() -> None:
    bench = Bench(ENTRY)
    bench.owner.deadlines["cron"] = bench.earliest_at = NOW + 1
    assert await bench.look() == ()
    assert bench.fires == []


async def test_jobs_that_pile_up_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(structs.replace(ENTRY, overlap="enqueue"))
    bench.answer = Outcome(data={"moved": 1, "running": 3})
    await bench.look()
    assert "pile up" in capsys.readouterr().out
