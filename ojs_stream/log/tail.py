"""The newest records of all partitions of a topic, as they come: a consumer without a group, from the ends on."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from ojs_stream.errors import LogRefusedError, UnavailableError
from ojs_stream.log.connection import Bootstrap
from ojs_stream.log.consumers import close_consumer
from ojs_stream.log.reader import (
    BOUNDS_TIMEOUT_S,
    POLL_MS,
    READ_RECORDS_MAX,
    LogRecord,
    lone_consumer,
    record_of,
)

IDLE_FETCH_MS = 500
"""A broker answers at once when there is something, and so late when there is nothing."""


class TopicTail:
    """One reader at a time. After an error ``open`` goes on where the last ``step`` ended."""

    def __init__(self, bootstrap: Bootstrap, topic: str, partitions: int) -> None:
        self._bootstrap = bootstrap
        self._places = [TopicPartition(topic, partition) for partition in range(partitions)]
        self._next: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer | None = None

    async def open(self) -> None:
        """Connect, and stand at the ends or where it was. ``UnavailableError`` when Kafka does not answer."""
        await self.close()
        consumer = await lone_consumer(self._bootstrap, fetch_wait_ms=IDLE_FETCH_MS)
        try:
            async with asyncio.timeout(BOUNDS_TIMEOUT_S):
                ends = await consumer.end_offsets(self._places)
        except (KafkaError, OSError, TimeoutError) as error:
            await close_consumer(consumer)
            raise self._unavailable(error) from error
        except asyncio.CancelledError:  # a connection must not stay behind
            await close_consumer(consumer)
            raise
        self._consumer = consumer
        self._next = {**ends, **self._next}
        consumer.assign(self._places)
        for place, offset in self._next.items():
            consumer.seek(place, offset)

    async def step(self) -> list[tuple[int, LogRecord]]:
        """What came: (partition, record), in order within a partition; nothing after half a second without news.

        ``LogRefusedError`` when records were deleted before they were read: the next ``open`` begins at the ends.
        """
        if self._consumer is None:
            raise UnavailableError("The tail is not open.")
        try:
            got = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=READ_RECORDS_MAX)
        except OffsetOutOfRangeError as error:
            self._next.clear()
            raise LogRefusedError(
                f"Records of {self._places[0].topic} were deleted before they were read."
            ) from error
        except (KafkaError, OSError) as error:
            raise self._unavailable(error) from error
        found = []
        for place, records in got.items():
            self._next[place] = records[-1].offset + 1
            found += [(place.partition, record_of(one)) for one in records]
        return found

    async def close(self) -> None:
        """Disconnect; what was read is remembered."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await close_consumer(consumer)

    def _unavailable(self, error: Exception) -> UnavailableError:
        reason = str(error) or type(error).__name__
        return UnavailableError(f"Kafka does not answer for {self._places[0].topic}: {reason}.", retry_after_s=2)
