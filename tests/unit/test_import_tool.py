"""The import tool against a log in memory that loses answers, and a tool that dies and is started again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from ojs_stream.core.records import RECORD_KINDS, stored_json
from ojs_stream.errors import UnavailableError
from ojs_stream.log.reader import LogRecord
from ojs_stream.replay.folding import HomeFold, Nothing
from ojs_stream.store.base import Dump
from ojs_stream.store.memory import MemoryStore
from ojs_stream.transfer import importing
from ojs_stream.transfer.archive import FORMAT, KINDS, VERSION, ArchiveWriter, Header, read_archive
from ojs_stream.transfer.importing import NotEmptyNamespaceError, Target, import_file
from tests.support.builders import START, Fold, enqueue, job, pack, queue_at, run
from tests.support.recount import jobs, recount_all
from tests.unit.test_import import exported

HOMES = 3
JOBS = 40


class DiedError(Exception):
    """The tool is killed."""


class Log:
    """A producer and a reader of the same topic."""

    def __init__(self, seed: int = 0) -> None:
        self.records: list[list[LogRecord]] = [[] for _ in range(HOMES)]
        self.dice = Random(seed)
        self.unknown = 0.0
        self.dies_after: int | None = None
        self.sent = 0
        self.stranger = b""
        """What somebody else writes just before the first part for home 2."""

    def append(self, home: int, value: bytes) -> None:
        log = self.records[home]
        log.append(LogRecord(len(log), START + len(log), None, value, ()))

    async def send(self, _topic: str, home: int, value: bytes, **_: Any) -> None:
        self.sent += 1
        if self.sent == self.dies_after:
            raise DiedError
        if self.stranger and home == 2 and b"import_part" in value:
            self.append(home, self.stranger)
            self.stranger = b""
        lost, late = self.dice.random() < self.unknown, self.dice.random() < 0.5
        if not lost or late:
            self.append(home, value)
        if lost:
            raise UnavailableError("nobody knows", unknown=True)

    async def bounds(self, _topic: str, home: int) -> tuple[int, int]:
        return 0, len(self.records[home])

    async def read(self, _topic: str, home: int, start: int, stop: int) -> AsyncIterator[list[LogRecord]]:
        if start < stop:
            yield self.records[home][start:stop]

    @property
    def target(self) -> Target:
        return Target(cast("Any", self), cast("Any", self), "commands", HOMES)


@pytest.fixture
def fold() -> Fold:
    made = Fold(4)
    for number in range(JOBS):
        made.do(enqueue(job(queue_at(number % 4, 4), homes=4)))
    return made


@pytest.fixture
def file(fold: Fold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(importing, "PART_RECORDS", 5)
    sequence = max(json.loads(dump["home"])["sequence"] for dump in fold.dumps())
    header = Header(
        format=FORMAT, version=VERSION, namespace="n", homes=4, applied=[0], log_ids=[""], sequence=sequence
    )
    with ArchiveWriter(tmp_path / "file", header) as writer:
        for key, record in exported(fold):
            writer.add(key, stored_json(record))
        writer.end()
    return tmp_path / "file"


def dumps(log: Log) -> list[Dump]:
    return [run(_dump(log, home)) for home in range(HOMES)]


async def _dump(log: Log, home: int) -> Dump:
    store = MemoryStore("mem")
    await (await HomeFold.begin(store, home, homes=HOMES, outgoing=Nothing())).take(log.records[home])
    return await store.dump(home)


def check(log: Log, fold: Fold) -> None:
    found = dumps(log)
    assert recount_all(found) == []
    assert not any("importing" in json.loads(dump["home"]) for dump in found)
    have = {job_id: record["job"] for dump in found for job_id, record in jobs(dump).items()}
    assert have == {job_id: record["job"] for dump in fold.dumps() for job_id, record in jobs(dump).items()}
    assert len(have) == JOBS


def bring(file: Path, log: Log) -> None:
    told: list[tuple[int, int]] = []
    run(import_file(file, log.target, tell=lambda done, total: told.append((done, total))))
    assert told[-1][0] == told[-1][1] >= JOBS


@pytest.mark.parametrize("seed", range(8))
def test_lost_answers_change_nothing(file: Path, fold: Fold, seed: int) -> None:
    log, again = Log(seed), True
    log.unknown = 0.3
    while again:
        with suppress(UnavailableError):
            bring(file, log)
            again = False
    check(log, fold)


def test_a_tool_that_died_goes_on_where_the_log_ends(file: Path, fold: Fold) -> None:
    whole = Log()
    bring(file, whole)
    for dies_after in range(1, whole.sent + 1):
        log = Log()
        log.dies_after = dies_after
        with pytest.raises(DiedError):
            bring(file, log)
        bring(file, log)
        check(log, fold)
        assert sum(map(len, log.records)) <= whole.sent + HOMES, "only the ends come twice"


def test_what_is_there_already_is_not_touched(file: Path) -> None:
    log = Log()
    log.append(1, pack([enqueue(job(queue_at(1, HOMES), homes=HOMES))]))
    with pytest.raises(
        NotEmptyNamespaceError, match="Partition 1 of commands has commands that have made a state"
    ):
        bring(file, log)
    assert sum(map(len, log.records)) == 1


def test_a_namespace_is_filled_by_one_file_only(file: Path, fold: Fold) -> None:
    log = Log()
    bring(file, log)
    bring(file, log)
    check(log, fold)
    with ArchiveWriter(file, read_archive(file)[0]) as writer:
        writer.end()
    with pytest.raises(NotEmptyNamespaceError, match="Partition 0 of commands was filled by another import"):
        bring(file, log)


def test_who_writes_meanwhile_is_noticed_and_the_import_does_not_end(file: Path) -> None:
    log = Log()
    log.stranger = pack([enqueue(job(queue_at(2, HOMES), homes=HOMES))])
    with pytest.raises(NotEmptyNamespaceError, match="Partition 2 of commands has commands"):
        bring(file, log)
    assert any("importing" in json.loads(dump["home"]) for dump in dumps(log))


def test_every_kind_of_record_is_moved_or_made_anew() -> None:
    assert {*KINDS, "id", "stage", "import"} == RECORD_KINDS
