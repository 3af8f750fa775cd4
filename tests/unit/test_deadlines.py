"""The earliest deadline of a home, noted by commits and read from the store at the same time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from ojs_stream import stamp
from ojs_stream.agents.owner import Owner
from ojs_stream.agents.work import Work
from ojs_stream.core.commands import Tick
from ojs_stream.core.index import Index
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import HomeState
from ojs_stream.core.world import World
from ojs_stream.timers.ticker import Ticker

PAST = 1_000
HOUR_MS = 3_600_000


class SlowStore:
    """Its answers are as of when they were asked, and come when they are let go."""

    def __init__(self, earliest: int | None) -> None:
        self.earliest_at = earliest
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def earliest(self, home: int, index: str) -> int | None:
        earliest = self.earliest_at
        self.asked.set()
        await self.answer.wait()
        return earliest


def live_owner(store: SlowStore) -> Owner:
    owner = Owner(0, cast("Any", SimpleNamespace(store=store)))
    owner.phase = "live"
    return owner


def commit_deadline(owner: Owner, at: int) -> None:
    """A round of this worker has set a deadline."""
    world = World(HomeState(home=0), homes=1)
    world.indexes["due", "run"] = Index([], complete=True)
    world.indexes["due", "run"].set("job:x", at)
    Work(1, lambda _: owner).committed(owner, world)


async def refreshed_around(owner: Owner, store: SlowStore, at: int) -> int | None:
    """The deadline that is known when ``at`` was committed while the store was read."""
    refresh = asyncio.create_task(owner.refresh_deadline("run"))
    await store.asked.wait()
    commit_deadline(owner, at)
    store.answer.set()
    await refresh
    return owner.deadlines["run"]


async def test_a_deadline_that_is_committed_during_the_read_is_kept() -> None:
    store = SlowStore(earliest=None)
    owner = live_owner(store)
    owner.deadlines["run"] = PAST
    assert await refreshed_around(owner, store, PAST + 5) == PAST + 5


async def test_what_the_store_has_counts_whatever_is_committed_during_the_read() -> None:
    store = SlowStore(earliest=PAST)
    assert await refreshed_around(live_owner(store), store, PAST + 5) == PAST


async def test_refreshes_of_one_home_do_not_forget_for_each_other() -> None:
    store = SlowStore(earliest=None)
    owner = live_owner(store)
    first = asyncio.create_task(owner.refresh_deadline("run"))
    await store.asked.wait()
    commit_deadline(owner, PAST)
    store.earliest_at = PAST
    second = asyncio.create_task(owner.refresh_deadline("run"))
    await asyncio.sleep(0)
    store.answer.set()
    await first
    assert owner.deadlines["run"] == PAST
    await second
    assert owner.deadlines["run"] == PAST


async def test_a_deadline_of_a_job_that_has_moved_on_makes_no_tick() -> None:
    later = stamp.now_ms() + HOUR_MS
    store = SlowStore(earliest=later)
    owner = live_owner(store)
    owner.deadlines["run"] = PAST
    ticks: list[Tick] = []

    async def submit(_home: int, tick: Tick) -> Outcome:
        ticks.append(tick)
        return Outcome(data={"moved": 0})

    ticker = Ticker("run", owners=lambda: [owner], submit=submit)
    await ticker.run_once()
    await store.asked.wait()
    commit_deadline(owner, later + 1)
    store.answer.set()
    await asyncio.sleep(0.01)  # the tick's own task ends
    assert not ticks
    assert owner.deadlines["run"] == later
    assert (await ticker.run_once()).ticked == ()
