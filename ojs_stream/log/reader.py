"""Reading the log without a group: gaps, tails, ends. It never commits and never resets an offset by itself.

``auto_offset_reset='none'`` on purpose: an offset that is not there any more must be seen by somebody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from msgspec import Struct

from ojs_stream.errors import LogRefusedError, StalledError, UnavailableError
from ojs_stream.log.connection import Bootstrap, client_arguments
from ojs_stream.log.consumers import close_consumer, start_consumer
from ojs_stream.log.producer import quiet_aiokafka

POSITION_HEADER = "ojs-position"
READ_RECORDS_MAX = 1_000
"""Records a step: between two steps the event loop runs."""
FETCH_BYTES_MAX = 4 * 1024 * 1024
POLL_MS = 500
FETCH_WAIT_MS = 20
"""A fetch that waits at the end for records holds up the next read of the same reader."""
STALL_S = 10.0
"""A read that gets nothing for so long although there is something gives up."""
REQUEST_TIMEOUT_MS = 10_000
BOUNDS_TIMEOUT_S = 5.0
TAIL_RECORDS_MAX = 2_000
TAIL_BYTES_MAX = 4 * 1024 * 1024
TAIL_FIRST_RECORDS = 64
TAIL_GROWTH = 8


class LogRecord(Struct, frozen=True, gc=False):
    """A record as it is in the log. A record without a value (a tombstone) has an empty one."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


class LogReader:
    """A consumer without a group for one task at a time.

    ``async with LogReader.open(bootstrap) as reader``. Every method raises ``UnavailableError`` when Kafka
    does not answer, and ``LogRefusedError`` when it does not have what was asked for.
    """

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._bootstrap = bootstrap
        self._consumer: AIOKafkaConsumer | None = None

    @classmethod
    def open(cls, bootstrap: Bootstrap) -> Self:
        """A reader to be entered."""
        return cls(bootstrap)

    async def __aenter__(self) -> Self:
        self._consumer = await lone_consumer(self._bootstrap)
        return self

    async def __aexit__(self, *_: object) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await close_consumer(consumer)

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset that is still there, and the offset the next record will get."""
        place, consumer = TopicPartition(topic, partition), self._open_consumer()
        try:
            async with asyncio.timeout(BOUNDS_TIMEOUT_S):
                begin = await consumer.beginning_offsets([place])
                end = await consumer.end_offsets([place])
        except (KafkaError, OSError, TimeoutError) as error:
            raise _unavailable(place, error) from error
        return begin[place], end[place]

    async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncIterator[list[LogRecord]]:
        """Records with ``start <= offset < stop`` in order, in lists of at most 1,000, never an empty one.

        Offsets without a record (transaction markers, compaction) are passed over. ``LogRefusedError`` when
        ``start`` is not in the log.
        """
        if start >= stop:
            return
        place, consumer = TopicPartition(topic, partition), self._open_consumer()
        consumer.assign([place])
        consumer.seek(place, start)
        position, moved = start, time.monotonic()
        try:
            while position < stop:
                got, now_at = await self._step(consumer, place, position)
                if now_at > position:
                    position, moved = now_at, time.monotonic()
                elif time.monotonic() - moved > STALL_S:
                    raise StalledError(f"{_where(place)}: stuck at offset {position} for {STALL_S:g} s.")
                records = [record_of(one) for one in got if one.offset < stop]
                if records:
                    yield records
        finally:
            _rest(consumer, place)

    async def tail_position(self, topic: str, partition: int) -> int:
        """The highest ``ojs-position`` in the last 2,000 records or 4 MiB; 0 if there is none.

        It reads backwards in growing windows, so that a tail of large records is not read ten times over.
        """
        begin, end = await self.bounds(topic, partition)
        first, highest, seen_bytes, window = max(begin, end - TAIL_RECORDS_MAX), 0, 0, TAIL_FIRST_RECORDS
        while end > first and seen_bytes < TAIL_BYTES_MAX:
            start = max(first, end - window)
            async for records in self.read(topic, partition, start, end):
                for record in records:
                    seen_bytes += len(record.value)
                    highest = max(highest, position_of(record))
            end, window = start, window * TAIL_GROWTH
        return highest

    def _open_consumer(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise UnavailableError("The log reader is not open.")
        return self._consumer

    async def _step(
        self, consumer: AIOKafkaConsumer, place: TopicPartition, position: int
    ) -> tuple[Sequence[Any], int]:
        """What came, and where the reader is now: past the last record, and past a tail without records."""
        try:
            got = await consumer.getmany(place, timeout_ms=POLL_MS, max_records=READ_RECORDS_MAX)
            return got.get(place, ()), await consumer.position(place)
        except OffsetOutOfRangeError as error:
            begin, end = await self.bounds(place.topic, place.partition)
            raise LogRefusedError(
                f"Partition {place.partition} of {place.topic} has offsets {begin} to {end - 1}, "
                f"offset {position} is needed: records were deleted or the topic is another one; restore it, "
                "or start with another OJS_NAMESPACE."
            ) from error
        except (KafkaError, OSError) as error:
            raise _unavailable(place, error) from error


class LogEnds:
    """End offsets of one topic over one connection that is kept open; any number of tasks may ask at once."""

    def __init__(self, bootstrap: Bootstrap, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._consumer: AIOKafkaConsumer | None = None
        self._opening = asyncio.Lock()

    async def stop(self) -> None:
        """Disconnect."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await close_consumer(consumer)

    async def end_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """The offset that the next record of each partition will get. One request a broker; 5 s at most."""
        places = [TopicPartition(self._topic, partition) for partition in partitions]
        if not places:
            return {}
        try:
            async with asyncio.timeout(BOUNDS_TIMEOUT_S):
                consumer = await self._connected()
                ends = await consumer.end_offsets(places)
        except (KafkaError, OSError, TimeoutError) as error:
            # The next call gets a new connection: a client that hangs must not blind the watchdog for good.
            await self.stop()
            raise _unavailable(places[0], error) from error
        return {place.partition: end for place, end in ends.items()}

    async def _connected(self) -> AIOKafkaConsumer:
        async with self._opening:
            if self._consumer is None:
                self._consumer = await lone_consumer(self._bootstrap)
            return self._consumer


def position_of(record: LogRecord) -> int:
    """The record's ``ojs-position``; 0 when it has none or no number."""
    for name, value in record.headers:
        if name == POSITION_HEADER and value.isdigit():
            return int(value)
    return 0


def _rest(consumer: AIOKafkaConsumer, place: TopicPartition) -> None:
    """Stop fetching ahead. Pausing is safe here, since every read assigns and seeks anew."""
    if place in consumer.assignment():
        consumer.pause(place)


def record_of(one: Any) -> LogRecord:
    """What a consumer has got."""
    return LogRecord(one.offset, one.timestamp, one.key, one.value or b"", one.headers)


def _unavailable(place: TopicPartition, error: Exception) -> UnavailableError:
    reason = str(error) or type(error).__name__
    return UnavailableError(f"{_where(place)}: {reason}.", retry_after_s=2)


def _where(place: TopicPartition) -> str:
    return f"Kafka does not answer for partition {place.partition} of {place.topic}"


async def lone_consumer(bootstrap: Bootstrap, *, fetch_wait_ms: int = FETCH_WAIT_MS) -> AIOKafkaConsumer:
    """A connected consumer without a group, which stands where it is told. ``UnavailableError`` as all of ours."""
    quiet_aiokafka()
    consumer = AIOKafkaConsumer(
        **client_arguments(bootstrap),
        group_id=None,
        auto_offset_reset="none",
        enable_auto_commit=False,
        max_partition_fetch_bytes=FETCH_BYTES_MAX,
        fetch_max_wait_ms=fetch_wait_ms,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
    )
    await start_consumer(consumer, bootstrap)
    return consumer
