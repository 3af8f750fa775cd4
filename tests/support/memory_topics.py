"""Topics in memory: what reads and writes the log, without a broker and without a wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from ojs_stream.log.producer import Record
from ojs_stream.log.reader import LogRecord

STEP = 7
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing, but lets others go first now and then."""
    while True:
        try:
            work.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


class MemoryTopics:
    """Reader and sender over the same partitions. ``now`` is the time of the next records."""

    def __init__(self) -> None:
        self.now = 1_900_000_000_000
        self.reads: list[tuple[int, int]] = []
        self._partitions: dict[tuple[str, int], list[LogRecord]] = {}
        self._begin: dict[tuple[str, int], int] = {}

    def partition(self, topic: str, partition: int) -> list[LogRecord]:
        return self._partitions.setdefault((topic, partition), [])

    async def send_many(self, topic: str, partition: int, records: Sequence[Record], **_: Any) -> int:
        log = self.partition(topic, partition)
        first = len(log)
        for record in records:
            log.append(LogRecord(len(log), self.now, record.key, record.value or b"", tuple(record.headers)))
        return first

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return self._begin.get((topic, partition), 0), len(self.partition(topic, partition))

    async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncIterator[list[LogRecord]]:
        assert start >= self._begin.get((topic, partition), 0), "an offset that is gone"
        self.reads.append((start, stop))
        for at in range(start, min(stop, len(self.partition(topic, partition))), STEP):
            yield [record for record in self.partition(topic, partition)[at : min(at + STEP, stop)] if record.key]

    def compact(self, topic: str, partition: int) -> None:
        """Only the last record of each key is left; tombstones are gone too."""
        log = self.partition(topic, partition)
        last = {record.key: record.offset for record in log}
        gone = LogRecord(0, 0, None, b"", ())
        log[:] = [r if last[r.key] == r.offset and r.value else gone for r in log]

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        self._begin[topic, partition] = offset

    def replace(self, topic: str, partition: int, offset: int, value: bytes) -> None:
        """A record rots."""
        log = self.partition(topic, partition)
        old = log[offset]
        log[offset] = LogRecord(offset, old.timestamp_ms, old.key, value, old.headers)
