"""When a worker believes that it hangs, and when it must not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from ojs_stream.agents.hangs import STEP_S_MAX, Hang, Hangs
from ojs_stream.errors import UnavailableError
from ojs_stream.log import reader

LIMIT_S = 30.0


class Bench:
    """One home, a clock, and a log whose end the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.end = 10
        self.outage = ""
        self.kafka_is_there = True
        self.hangs: list[Hang] = []
        self.owner = self.new_owner()
        self.watch = Hangs(
            owners=lambda: [self.owner],
            ends=self,
            outage=lambda: self.outage,
            give_up=self.hangs.append,
            limit_s=LIMIT_S,
            clock=lambda: self.now,
        )

    def new_owner(self) -> Any:
        vitals = SimpleNamespace(heard=-1, read_to=10, excuses=0)
        return _Owner(vitals)

    async def end_offsets(self, partitions: Any) -> dict[int, int]:
        if not self.kafka_is_there:
            raise UnavailableError("away")
        return dict.fromkeys(partitions, self.end)

    def apply(self, offset: int) -> None:
        self.owner.applied, self.owner.next = offset, offset + 1

    async def look(self, seconds: float, step_s: float = 1.0) -> None:
        for _ in range(round(seconds / step_s)):
            self.now += step_s
            await self.watch.run_once()


class _Owner:
    home = 3
    working = True
    story = "catching_up; 4 recoveries"

    def __init__(self, vitals: Any) -> None:
        self.applied, self.next, self.vitals = 9, 10, vitals


@pytest.fixture
async def bench() -> Bench:
    bench = Bench()
    await bench.look(2)
    return bench


async def test_records_that_nobody_applies_are_a_hang(bench: Bench) -> None:
    bench.end = 12
    await bench.look(LIMIT_S)
    assert bench.hangs == []
    await bench.look(1)
    assert bench.hangs[0] == Hang(
        3, "records are in the log and nothing is applied", 9, -1, 12, LIMIT_S, "catching_up; 4 recoveries"
    )


async def test_a_lag_that_gets_shorter_is_none(bench: Bench) -> None:
    bench.end = 1_000
    for offset in range(10, 20):
        bench.apply(offset)
        bench.owner.vitals.heard = offset
        await bench.look(LIMIT_S - 2)
    assert bench.hangs == []


async def test_a_log_that_a_catch_up_has_read_to_its_end_is_none(bench: Bench) -> None:
    """Its last offsets hold no record: markers of a transaction."""
    bench.end = bench.owner.vitals.read_to = 12
    bench.owner.vitals.heard = 11
    await bench.look(3 * LIMIT_S)
    assert bench.hangs == []


async def test_a_consumer_that_delivers_nothing_is_a_hang_though_recoveries_read_the_log(bench: Bench) -> None:
    for offset in range(10, 10 + round(LIMIT_S) + 1):
        bench.end = offset + 1
        await bench.look(1)
        bench.apply(offset)
        bench.owner.vitals.read_to = offset + 1
    assert [hang.what for hang in bench.hangs] == ["records were appended and the consumer delivers none"]


async def test_what_was_in_the_log_before_need_not_be_delivered_again(bench: Bench) -> None:
    await bench.look(3 * LIMIT_S)
    assert bench.hangs == []


async def test_an_outage_is_no_hang(bench: Bench) -> None:
    bench.end = 12
    for _ in range(3):
        await bench.look(LIMIT_S - 2)
        bench.outage = "Redis is out of memory"
        await bench.look(1)
        bench.outage = ""
        await bench.look(LIMIT_S - 2)
        bench.kafka_is_there = False
        await bench.look(1)
        bench.kafka_is_there = True
        await bench.look(LIMIT_S - 2)
        bench.owner.vitals.excuses += 1
        bench.owner.vitals.heard += 1
    assert bench.hangs == []


async def test_the_sleep_of_the_whole_process_does_not_count(bench: Bench) -> None:
    bench.end = 12
    await bench.look(600, step_s=100)
    assert bench.hangs == []
    await bench.look(LIMIT_S - 7 * STEP_S_MAX, step_s=1)
    assert bench.hangs == []


async def test_a_home_that_is_refused_or_new_is_not_judged(bench: Bench) -> None:
    bench.end = 12
    await bench.look(LIMIT_S - 2)
    bench.owner = bench.new_owner()
    await bench.look(LIMIT_S - 2)
    bench.owner.working = False
    await bench.look(2 * LIMIT_S)
    bench.owner.working = True
    await bench.look(LIMIT_S - 2)
    assert bench.hangs == []


class _Consumer:
    """A client that answers no more after its first failure."""

    def __init__(self, answers: bool) -> None:
        self.answers, self.stopped = answers, False

    async def end_offsets(self, places: Any) -> dict[Any, int]:
        if not self.answers:
            raise KafkaConnectionError("deaf")
        return dict.fromkeys(places, 7)

    async def stop(self) -> None:
        self.stopped = True


async def test_a_client_that_answers_no_more_does_not_blind_the_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [_Consumer(answers=False), _Consumer(answers=True)]
    waiting = iter(made)

    async def started(_bootstrap: str) -> _Consumer:
        return next(waiting)

    monkeypatch.setattr(reader, "lone_consumer", started)
    ends = reader.LogEnds("nowhere:1", "t.commands")
    with pytest.raises(UnavailableError):
        await ends.end_offsets([0])
    assert made[0].stopped
    assert await ends.end_offsets([0, 1]) == {0: 7, 1: 7}
    assert not made[1].stopped
