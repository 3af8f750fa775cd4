"""A file of ``ojs-stream export`` becomes the state of an empty namespace: ``ojs-stream import``.

Everything goes through the log: the records are written to it as commands, in parts, to the homes that they have
with this number of partitions. Before anything is written, and again when all parts are, the log is folded in
memory: the first time to see that nothing is there (or some of this very import, which then goes on), the second
time to see that every home has all of its parts. Only then the homes are told that the import has ended. So
workers may run or not, and the tool may die and be started again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from ojs_stream.core.commands import LATER_KINDS, Command, Entry, ImportEnd, ImportPart
from ojs_stream.core.fold.importing import PROGRESS
from ojs_stream.core.records import (
    Control,
    ImportRecord,
    JobRecord,
    Key,
    QueueRecord,
    Record,
    decode_record,
    stored_json,
)
from ojs_stream.core.rehoming import Move
from ojs_stream.core.world import SYSTEM
from ojs_stream.errors import OjsError, UnavailableError
from ojs_stream.log.beginning import begin_log
from ojs_stream.log.codec import encode_pack, pack_headers
from ojs_stream.log.producer import LogProducer
from ojs_stream.log.reader import LogReader
from ojs_stream.replay.folding import HomeFold, Nothing, fold_log
from ojs_stream.store import keys
from ojs_stream.store.base import is_record
from ojs_stream.store.memory import MemoryStore
from ojs_stream.transfer.archive import Header, archive_lines, read_archive

PART_RECORDS = 500
PART_BYTES = 512 * 1024
"""A part is closed at either; one record alone may be larger."""
SEND_ATTEMPTS_MAX = 10
SEND_TIMEOUT_S = 10.0


class NotEmptyNamespaceError(OjsError):
    """The namespace has a state already."""


class Target(NamedTuple):
    """Where an import goes to."""

    producer: LogProducer
    reader: LogReader
    topic: str
    homes: int


class Imported(NamedTuple):
    """What an import was."""

    header: Header
    records: int
    """In the file."""
    written: int
    """In the homes, with the notes that lead to jobs and the copies of configurations."""


class Log:
    """The parts of one import on their way into the log."""

    def __init__(self, target: Target, digest: str, sequence: int, done: list[int]) -> None:
        self._target = target
        self._digest = digest
        self._sequence = sequence
        self._done = done
        """By home how many parts its log has: they are not written again."""
        self._entries: list[list[Entry]] = [[] for _ in range(target.homes)]
        self._bytes = [0] * target.homes
        self.parts = [0] * target.homes
        self.written = 0

    async def add(self, home: int, key: Key, record: Record) -> None:
        """One more record for a home."""
        data = stored_json(record)
        self._entries[home].append(Entry(key, Raw(data)))
        self._bytes[home] += len(data)
        self.written += 1
        if len(self._entries[home]) >= PART_RECORDS or self._bytes[home] >= PART_BYTES:
            await self._close_part(home)

    async def close(self) -> None:
        """No more records come."""
        for home, entries in enumerate(self._entries):
            if entries:
                await self._close_part(home)

    async def _close_part(self, home: int) -> None:
        entries, self._entries[home], self._bytes[home] = self._entries[home], [], 0
        part = self.parts[home]
        self.parts[home] += 1
        if part < self._done[home]:
            return
        command = _sealed(ImportPart, id=self._digest, part=part, entries=tuple(entries), sequence=self._sequence)
        await self._send(home, command, "import_part")

    async def end(self) -> None:
        """Every home is told that the import is complete."""
        for home, parts in enumerate(self.parts):
            await self._send(home, _sealed(ImportEnd, id=self._digest, parts=parts), "import_end")

    async def _send(self, home: int, command: Command, kind: str) -> None:
        """Write it until it is known to be in the log: a home takes each part once."""
        value = encode_pack([msgspec.json.encode(command)])
        headers = pack_headers(1, [kind])
        for attempt in range(1, SEND_ATTEMPTS_MAX + 1):
            try:
                await self._target.producer.send(
                    self._target.topic, home, value, headers=headers, timeout_s=SEND_TIMEOUT_S
                )
            except UnavailableError:
                if attempt == SEND_ATTEMPTS_MAX:
                    raise
            else:
                return


def _sealed(kind: type[Command], **fields: Any) -> Command:
    return kind(v=LATER_KINDS[kind], actor=SYSTEM, **fields)


async def import_file(path: Path, target: Target, *, tell: Callable[[int, int], None]) -> Imported:
    """Bring a file into an empty namespace. ``tell`` hears of (records written, records in all)."""
    header, footer = read_archive(path)
    digest = footer.sha256
    done = [await _parts_of(target, home, digest) for home in range(target.homes)]
    for home in range(target.homes):
        if (await target.reader.bounds(target.topic, home))[1] == 0:
            await begin_log(target.producer, target.topic, home, homes=target.homes)
    move = _move_of(path, header.homes, target.homes)
    log, count = Log(target, digest, header.sequence, done), 0
    for count, (key, record) in enumerate(_records(path), 1):
        for placed in move.records(key, record):
            await log.add(*placed)
        tell(count, footer.records)
    await log.close()
    await _check_parts(target, digest, log.parts)
    await log.end()
    return Imported(header, count, log.written)


def _records(path: Path) -> Iterator[tuple[Key, Record]]:
    for line in archive_lines(path):
        yield line.key, decode_record(line.key, bytes(line.record))


def _move_of(path: Path, before: int, homes: int) -> Move:
    """With the names of all queues, and the seats of the jobs that other records name."""
    move = Move(before, homes)
    for _, record in _records(path):
        if isinstance(record, QueueRecord):
            move.queues.append(record.name)
        elif isinstance(record, JobRecord) and _is_named(record.ctl):
            move.seats[record.job.id] = move.seat_of(record)
    return move


def _is_named(ctl: Control) -> bool:
    """By a lock, by a workflow or a cron entry, by a checkpoint."""
    return ctl.unique is not None or bool(ctl.watchers) or ctl.checkpoint > 0


async def _parts_of(target: Target, home: int, digest: str) -> int:
    """How many parts of this very import a home has; ``NotEmptyNamespaceError`` when it has anything else."""
    store = MemoryStore("import")
    begin, end = await target.reader.bounds(target.topic, home)
    if begin > 0:
        raise _not_empty(target, home, f"begins at offset {begin}")
    fold = await HomeFold.begin(store, home, homes=target.homes, outgoing=Nothing())
    await fold_log(fold, target.reader, target.topic, end)
    data = store.data.get(keys.record(store.namespace, home, PROGRESS))
    progress = None if data is None else decode_record(PROGRESS, data)
    if isinstance(progress, ImportRecord):
        if progress.id != digest:
            raise _not_empty(target, home, "was filled by another import")
        return progress.parts
    if any(is_record(name) for name in await store.dump(home)):
        raise _not_empty(target, home, "has commands that have made a state")
    return 0


def _not_empty(target: Target, home: int, what: str) -> NotEmptyNamespaceError:
    return NotEmptyNamespaceError(
        f"Partition {home} of {target.topic} {what}. An import needs an empty namespace: choose another "
        "OJS_NAMESPACE, or another cluster."
    )


async def _check_parts(target: Target, digest: str, parts: list[int]) -> None:
    """Fold what is in the log now: every home must have taken all of its parts."""
    for home, wanted in enumerate(parts):
        have = await _parts_of(target, home, digest)
        if have != wanted:
            raise NotEmptyNamespaceError(
                f"Home {home} has taken {have} of its {wanted} parts: somebody else writes to {target.topic}. "
                "Choose another OJS_NAMESPACE, or stop its clients and import again."
            )
