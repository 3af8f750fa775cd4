"""What a worker knows of its queues without asking Redis."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ojs_stream.agents.work import Work
from ojs_stream.core.records import Counts, HomeState, Maintenance, QueueLimit, QueueRecord, Window
from ojs_stream.core.world import World

LIMITED = QueueLimit(concurrency=2, rate=Window(3, 1_000))
ROWS = [
    (QueueRecord(name="q", created_at="", counts=Counts(available=2), held=2), False),
    (QueueRecord(name="q", created_at="", counts=Counts(available=2), held=1), True),
    (QueueRecord(name="q", created_at="", counts=Counts(available=1, active=2), limit=LIMITED), False),
    (QueueRecord(name="q", created_at="", counts=Counts(available=1, active=1), limit=LIMITED, starts=3), False),
    (QueueRecord(name="q", created_at="", counts=Counts(available=1, active=1), limit=LIMITED, starts=2), True),
    (QueueRecord(name="q", created_at="", counts=Counts(available=1)), True),
    (QueueRecord(name="q", created_at="", counts=Counts(available=1), paused=True), False),
    (QueueRecord(name="q", created_at="", counts=Counts(scheduled=1, retryable=1)), False),
    (QueueRecord(name="q", created_at="", counts=Counts(active=1)), False),
    (None, False),
]


def knowing(record: QueueRecord | None, *, live: bool = True, state: HomeState | None = None) -> Work:
    owner = cast("Any", SimpleNamespace(home=0, live=live, state=state or HomeState(home=0)))
    work = Work(1, lambda _: owner)
    world = World(HomeState(home=0), homes=1)
    world.changed["queue", "q"] = record
    work.committed(owner, world)
    return work


@pytest.mark.parametrize(("record", "sure"), ROWS)
def test_a_hint_is_sure_of_work_or_says_nothing(record: QueueRecord | None, sure: bool) -> None:
    assert knowing(record).hint("q") is sure


def test_nothing_is_worth_asking_for_during_maintenance() -> None:
    ready = QueueRecord(name="q", created_at="", counts=Counts(available=1))
    assert knowing(ready).hint("q")
    assert not knowing(ready, state=HomeState(home=0, maintenance=Maintenance(since=1))).hint("q")


def test_a_home_that_is_not_live_gives_no_hints() -> None:
    record = QueueRecord(name="q", created_at="", counts=Counts(available=1))
    assert knowing(record, live=False).hint("q") is False


def test_a_home_that_is_forgotten_gives_no_hints() -> None:
    work = knowing(QueueRecord(name="q", created_at="", counts=Counts(available=1)))
    work.forget(0)
    assert work.hint("q") is False


async def test_who_waits_for_work_that_is_there_already_does_not_wait() -> None:
    """It may come after the caller has looked, and before it waits: nobody would wake it."""
    work = knowing(QueueRecord(name="q", created_at="", counts=Counts(available=1)))
    async with asyncio.timeout(1.0):
        await work.wait(("other", "q"), 60.0)
