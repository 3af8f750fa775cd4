"""The bulk topic as its agent reads it: a consumer group of its own, committed by hand.

Not through Faust's consumer: that one delivers the log as well, and an intake that is held up (a full queue, a
busy home) would hold up the log's records with it. Here nothing is fetched that nobody has asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from msgspec import Struct

from ojs_stream.errors import UnavailableError
from ojs_stream.log.connection import Bootstrap, client_arguments
from ojs_stream.log.consumers import close_consumer, start_consumer
from ojs_stream.log.producer import quiet_aiokafka
from ojs_stream.log.topics import Topics

log = structlog.get_logger(__name__)

FETCH_BYTES_MAX = 1024 * 1024
"""Of one partition, kept ready in memory; a single record may be larger."""
WAIT_MS = 500
HELD_MS_MAX = 2**31 - 1
"""A take may be held for hours by a full queue: that is no reason to give the partitions to somebody else."""
REBALANCE_MS = 10_000
REQUEST_TIMEOUT_MS = 10_000


class BulkRecord(Struct, frozen=True):
    """A record of the bulk topic."""

    partition: int
    offset: int
    timestamp_ms: int
    value: bytes


class BulkIntake:
    """Records of the partitions that the group gives this worker; whoever has no commit is read again."""

    def __init__(
        self, bootstrap: Bootstrap, topics: Topics, *, session_timeout_s: int, heartbeat_s: float
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topics.commands_bulk
        self._group = f"{topics.namespace}-bulk"
        self._session_timeout_s = session_timeout_s
        self._heartbeat_s = heartbeat_s
        self._consumer: AIOKafkaConsumer | None = None

    async def take(self, count_max: int) -> list[BulkRecord]:
        """What comes next, each partition in its order; empty when nothing came for half a second."""
        consumer = await self._connected()
        try:
            got = await consumer.getmany(timeout_ms=WAIT_MS, max_records=count_max)
        except (KafkaError, OSError) as error:
            raise UnavailableError(f"Kafka does not answer for {self._topic}: {error}", retry_after_s=2) from error
        return [
            BulkRecord(place.partition, one.offset, one.timestamp, one.value or b"")
            for place, records in got.items()
            for one in records
        ]

    async def done(self, records: Sequence[BulkRecord]) -> None:
        """All of a take is applied. If that cannot be noted, it is read again one day and does nothing then."""
        consumer = await self._connected()
        ours = consumer.assignment()
        places = {TopicPartition(self._topic, record.partition): record.offset + 1 for record in records}
        kept = {place: offset for place, offset in places.items() if place in ours}
        if not kept:
            return
        try:
            await consumer.commit(kept)
        except (KafkaError, OSError) as error:
            log.info("bulk records are applied and not committed", reason=str(error))

    async def stop(self) -> None:
        """Leave the group, so that others have the partitions at once."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await close_consumer(consumer)

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = await self._started()
        return self._consumer

    async def _started(self) -> AIOKafkaConsumer:
        quiet_aiokafka()
        consumer = AIOKafkaConsumer(
            self._topic,
            **client_arguments(self._bootstrap),
            group_id=self._group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
            session_timeout_ms=self._session_timeout_s * 1000,
            heartbeat_interval_ms=round(self._heartbeat_s * 1000),
            max_poll_interval_ms=HELD_MS_MAX,
            rebalance_timeout_ms=REBALANCE_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        await start_consumer(consumer, self._bootstrap)
        return consumer
