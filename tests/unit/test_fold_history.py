"""What happened in a queue: minutes for an hour, then hours. However its log falls into rounds."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from msgspec import Raw

from ojs_stream.core.commands import Ack, DeleteQueue
from ojs_stream.store.memory import MemoryStore
from tests.support.builders import DAY, HOUR, MINUTE, NAMESPACE, SECOND, Fold, command, nack, replay, run


def spans(fold: Fold, queue: str = "default") -> Iterator[dict[str, int]]:
    for name, data in fold.dump().items():
        if name.startswith(f"minute:{queue}:"):
            yield json.loads(data)
        elif name.startswith(f"day:{queue}:"):
            yield from json.loads(data)["hours"].values()


def work(fold: Fold, after: int) -> None:
    fold.now += after
    done = fold.active()
    fold.do(command(Ack, job_id=done, result=Raw(b"1")), after=SECOND)


def test_each_minute_counts_once_in_a_minute_or_an_hour() -> None:
    fold = Fold()
    for after in (0, MINUTE, HOUR, HOUR, 3 * HOUR, DAY, 2 * MINUTE):
        work(fold, after)
    failed = fold.active()
    fold.do(nack(failed))
    found = list(spans(fold))
    assert sum(span["enqueued"] for span in found) == 8
    assert sum(span["completed"] for span in found) == 7
    assert sum(span["failed"] for span in found) == 1
    assert sum(span["duration_ms"] for span in found) == 7 * SECOND
    days = [json.loads(data) for name, data in fold.dump().items() if name.startswith("day:")]
    assert days
    for day in days:
        for hour, span in day["hours"].items():
            assert span["minute"] == day["day"] * 1_440 + int(hour) * 60


def test_a_day_leaves_when_its_slot_is_used_again() -> None:
    fold = Fold()
    work(fold, 0)
    for _ in range(3):
        work(fold, 31 * DAY)
    assert len([name for name in fold.dump() if name.startswith("day:")]) == 1
    assert sum(span["completed"] for span in spans(fold)) == 2


@pytest.mark.parametrize("size", [2, 5, 100])
def test_rounds_of_any_size_give_the_same_history(size: int) -> None:
    fold = Fold()
    for after in (0, HOUR, HOUR, MINUTE, 2 * HOUR, DAY, -HOUR, HOUR, -3 * HOUR):
        work(fold, after)
    store = MemoryStore(NAMESPACE)
    run(replay(store, fold.logs[0], 0, homes=1, sizes=[size] * 100))
    assert run(store.dump(0)) == fold.dump()
    assert sum(span["completed"] for span in spans(fold)) == 9


def test_the_history_of_a_queue_goes_with_it() -> None:
    fold = Fold()
    for _ in range(2):
        work(fold, HOUR)
    fold.do(command(DeleteQueue, queue="default", strategy="discard"))
    assert list(spans(fold)) == []
