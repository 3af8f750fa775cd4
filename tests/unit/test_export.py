"""An export is of one quiet moment, or it is refused with a sentence and leaves no file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from ojs_stream.core.records import HomeState, decode_record
from ojs_stream.store import keys
from ojs_stream.store.base import Dump
from ojs_stream.transfer.archive import archive_lines, read_archive
from ojs_stream.transfer.exporting import NotQuietError, Source, export
from tests.support.builders import NAMESPACE, Fold, client_id, enqueue, job, queue_at, run
from tests.support.recount import jobs
from tests.unit.test_import import exported

HOMES = 3


class Store:
    """The part of the Redis store that an export needs, on what a fold has."""

    namespace = NAMESPACE

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        self.before_read: Callable[[], object] = lambda: None

    async def position(self, home: int) -> tuple[int | None, HomeState | None]:
        return await self.fold.store.position(home)

    async def names(self, home: int) -> AsyncIterator[list[str]]:
        for name in self.fold.dump(home):
            yield [name]

    async def read_at_once(self, home: int, names: Sequence[str]) -> tuple[int | None, Dump]:
        self.before_read()
        (applied,) = await self.fold.store.applied([home])
        return applied, self.fold.store.contents(home, names)

    async def bounds(self, _topic: str, home: int) -> tuple[int, int]:
        return 0, len(self.fold.logs[home])


def _export(fold: Fold, path: Path, *, meanwhile: Callable[[], object] = lambda: None) -> list[tuple[int, int]]:
    store, told = Store(fold), []
    store.before_read = meanwhile
    source = Source(cast("Any", store), cast("Any", store), "commands", HOMES)
    run(export(source, path, tell=lambda done, total: told.append((done, total))))
    return told


def _some() -> Fold:
    fold = Fold(HOMES)
    for number in range(9):
        made = {"id": client_id(HOMES), "client_id": True} if number % 2 else {}
        fold.do(enqueue(job(queue_at(number % HOMES, HOMES), homes=HOMES, **made)))
    fold.configure("mail", max_size=3)
    return fold


def test_every_record_is_written_once(tmp_path: Path) -> None:
    fold = _some()
    told = _export(fold, tmp_path / "x")
    header, footer = read_archive(tmp_path / "x")
    found = [(line.key, decode_record(line.key, bytes(line.record))) for line in archive_lines(tmp_path / "x")]
    assert found == exported(fold)
    assert footer.records == len(found) == told[-1][0]
    assert sum(key[0] == "job" for key, _ in found) == sum(len(jobs(dump)) for dump in fold.dumps()) == 9
    assert [key for key, _ in found].count(("config", "mail")) == 1, "it is at every home"
    assert header.applied == [len(log) - 1 for log in fold.logs]


def _with_a_message_under_way() -> Fold:
    fold = _some()
    fold.deliver = False
    fold.do(enqueue(job(queue_at(1, HOMES), homes=HOMES)), home=0)
    return fold


def _with_a_record_that_is_not_applied() -> Fold:
    fold = _some()
    fold.logs[1].append((fold.now, b"{}"))
    return fold


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (_with_a_message_under_way, "Home 0 has sent home 1 . messages, which has folded"),
        (_with_a_record_that_is_not_applied, "Partition 1 of commands ends at offset .*, and Redis has applied"),
    ],
)
def test_what_is_at_work_is_not_exported(tmp_path: Path, made: Callable[[], Fold], said: str) -> None:
    with pytest.raises(NotQuietError, match=said):
        _export(made(), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_waits_is_not_exported(tmp_path: Path) -> None:
    fold = _some()
    data = b'{"id":"0-1","command":{},"waiting":[1],"deadline":1}'
    fold.store.data[keys.record(NAMESPACE, 0, ("stage", "0-1"))] = data
    with pytest.raises(NotQuietError, match="Home 0 is deciding on 1 enqueues"):
        _export(fold, tmp_path / "x")


@pytest.mark.parametrize("reads", [1, 4, 9])
def test_who_goes_on_while_it_is_read_is_noticed(tmp_path: Path, reads: int) -> None:
    fold, left = _some(), [reads]

    def put() -> None:
        left[0] -= 1
        if not left[0]:
            fold.put(queue_at(2, HOMES))

    with pytest.raises(NotQuietError, match="went on while it was read"):
        _export(fold, tmp_path / "x", meanwhile=put)
    assert list(tmp_path.iterdir()) == []
