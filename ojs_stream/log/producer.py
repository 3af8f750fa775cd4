"""The idempotent producer of a worker: acks=all, bounded waits, replaced when it is broken.

What a caller can rely on: a return means "in the log"; ``UnavailableError(unknown=True)`` means that it may
be in the log now or later; any other error means that it is not. aiokafka never expires a batch of an
idempotent producer while a leader is known, so a timeout here ends only our waiting.

A batch that fails has burnt a sequence number, and the next one would end aiokafka's sender for good: after
every produce error the producer is replaced. It knows nothing of commands and events.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    ProducerClosed,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from msgspec import Struct

from ojs_stream.errors import RefusedError, UnavailableError
from ojs_stream.log.connection import Bootstrap, client_arguments
from ojs_stream.log.topics import MESSAGE_BYTES_MAX
from ojs_stream.telemetry.meters import STAGE_BOUNDS_S, Histogram

RECORD_BYTES_MAX = MESSAGE_BYTES_MAX - 64 * 1024
"""Key, value and headers of one record; the rest is room for the batch around it."""
HEADER_OVERHEAD_BYTES = 10
BATCH_BYTES_MAX = 1024 * 1024
REQUEST_TIMEOUT_MS = 10_000
START_TIMEOUT_S = 15.0
RETIRE_TIMEOUT_S = 5.0
REVIVE_FIRST_S = 0.2
REVIVE_MAX_S = 2.0
POSTS_MAX = 1_000
POST_BYTES_MAX = 16 * 1024 * 1024
POST_TIMEOUT_S = 10.0
NO_OFFSET = -1
"""The record is in the log, but the broker has forgotten where (``DuplicateSequenceNumber``)."""

Headers = Sequence[tuple[str, bytes]]
T = TypeVar("T")

# Raised before anything is queued; every other error at that point is the one that ended aiokafka's sender.
_HARMLESS = (
    TimeoutError,
    KafkaTimeoutError,
    ProducerClosed,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

log = logging.getLogger(__name__)


class Record(Struct, frozen=True, gc=False):
    """Something to append. Without a key and without headers unless told otherwise."""

    key: bytes | None
    value: bytes | None
    """``None`` is a tombstone: compaction removes what the key had."""
    headers: Headers = ()


class _Post(Struct, frozen=True, gc=False):
    topic: str
    partition: int
    record: Record
    size: int


def quiet_aiokafka() -> None:
    """Stop aiokafka's debug records (one a produce and a fetch) before they are made."""
    logging.getLogger("aiokafka").setLevel(logging.WARNING)


def record_bytes(key: bytes | None, value: bytes | None, headers: Headers = ()) -> int:
    """An upper bound of what a record takes, in bytes, without its batch."""
    size = len(value or b"") + len(key or b"") + 2 * HEADER_OVERHEAD_BYTES
    for name, content in headers:
        size += len(name) + len(content) + HEADER_OVERHEAD_BYTES
    return size


class Appended(NamedTuple):
    """Where a record is in its partition, and the time that the log gave it (ms since the epoch)."""

    offset: int
    timestamp_ms: int


class _Line:
    """One aiokafka producer and what it has not acknowledged yet."""

    def __init__(self, producer: AIOKafkaProducer, broken: Callable[[_Line, BaseException], None]) -> None:
        self.producer = producer
        self._broken = broken
        self._pending: dict[int, float] = {}
        self._highest: dict[TopicPartition, int] = {}
        self._count = 0

    def oldest_s(self) -> float:
        """Age of the oldest unacknowledged produce, in seconds; its asker may have gone long ago."""
        first = next(iter(self._pending.values()), None)
        return 0.0 if first is None else time.monotonic() - first

    def watch(self, sent: asyncio.Future[Any], place: TopicPartition) -> asyncio.Future[Appended]:
        """A future of the place that may be cancelled without losing sight of the produce itself."""
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._count += 1
        token = self._count
        self._pending[token] = time.monotonic()

        def settle(done: asyncio.Future[Any]) -> None:
            del self._pending[token]
            error = ProducerClosed() if done.cancelled() else done.exception()
            if error is not None:  # even if nobody waits for this one any more
                self._broken(self, error)
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                metadata = done.result()
                answer.set_result(Appended(self._offset(place, metadata.offset), metadata.timestamp))

        sent.add_done_callback(settle)
        return answer

    def _offset(self, place: TopicPartition, offset: int) -> int:
        """After a duplicate aiokafka counts from -1: an offset that does not rise is none."""
        if offset <= self._highest.get(place, NO_OFFSET):
            return NO_OFFSET
        self._highest[place] = offset
        return offset


class LogProducer:
    """Appends to topics. One per worker for what matters; a second one keeps the mirrors' errors apart."""

    def __init__(self, bootstrap: Bootstrap, *, client_id: str) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._line: _Line | None = None
        self._broken_since = 0.0
        self._replacing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._posts: deque[_Post] = deque()
        self._post_bytes = 0
        self._poster: asyncio.Task[None] | None = None
        self.dropped = 0
        """Posts that were never acknowledged: no room, too large, or an error."""
        self.replaced = 0
        """How often the producer was replaced after a produce error."""
        self.acknowledged = Histogram(STAGE_BOUNDS_S)
        """Seconds from handing over to the acknowledgement."""

    async def start(self) -> None:
        """Connect. ``UnavailableError`` when Kafka does not answer (``topics.declare`` waits for it)."""
        quiet_aiokafka()
        try:
            self._line = await self._new_line()
        except (KafkaError, OSError, TimeoutError) as error:
            raise self._unavailable(error, unknown=False) from error

    async def stop(self, timeout_s: float) -> None:
        """Flush for at most ``timeout_s`` seconds and disconnect; what is left is unknown."""
        deadline = time.monotonic() + timeout_s
        if self._poster is not None:
            await asyncio.wait([self._poster], timeout=timeout_s)
            self._poster.cancel()
            self.dropped += len(self._posts)
        self._stopped = True
        # Cancelled in its first request, aiokafka leaks the connection: let a replacement that has begun end.
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(deadline - time.monotonic(), 0.0))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        line, self._line = self._line, None
        if line is not None:
            await _close(line.producer, max(deadline - time.monotonic(), 0.0))

    def stalled_s(self) -> float:
        """How long the oldest unacknowledged produce has been waiting, in seconds; 0 when there is none.

        It goes on rising after its asker got a timeout, until Kafka answers: refuse new work on it.
        """
        if self._line is None:
            return time.monotonic() - self._broken_since if self._broken_since else 0.0
        return self._line.oldest_s()

    async def send(
        self,
        topic: str,
        partition: int,
        value: bytes,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timeout_s: float = 10.0,
    ) -> Appended:
        """Append one record; where it is now (offset -1: in the log, but the broker no longer knows where).

        ``RefusedError`` before anything is sent when it is too large; ``UnavailableError`` otherwise,
        ``unknown`` once it was handed to the sender.
        """
        _check_size(topic, record_bytes(key, value, headers))
        line, place = self._usable(), TopicPartition(topic, partition)
        handed = False
        try:
            async with asyncio.timeout(timeout_s):
                await self._known(line, place)
                sent = await line.producer.send(topic, value, key, partition, headers=headers)
                handed = True
                return await self._acknowledged(line.watch(sent, place))
        except (KafkaError, TimeoutError) as error:
            raise self._failed(line, error, handed=handed) from error

    async def send_many(
        self, topic: str, partition: int, records: Sequence[Record], *, timeout_s: float = 10.0
    ) -> int:
        """Append records in order, in as few batches as they need; the offset of the last batch's start.

        -1 when there is nothing to send or the offset is not known. Errors as of ``send``; with ``unknown`` a
        prefix of the records may be in the log.
        """
        line, place = self._usable(), TopicPartition(topic, partition)
        for record in records:
            _check_size(topic, record_bytes(record.key, record.value, record.headers))
        waiting: list[asyncio.Future[Appended]] = []
        try:
            async with asyncio.timeout(timeout_s):
                await self._known(line, place)
                await self._append_all(line, place, records, waiting)
                return (await self._acknowledged(asyncio.gather(*waiting)))[-1].offset if waiting else NO_OFFSET
        except (KafkaError, TimeoutError) as error:
            raise self._failed(line, error, handed=bool(waiting)) from error
        finally:
            _abandon(waiting)

    async def _acknowledged(self, answer: asyncio.Future[T]) -> T:
        begun = time.monotonic()
        found = await answer
        self.acknowledged.observe(time.monotonic() - begun)
        return found

    def post(
        self, topic: str, value: bytes, *, key: bytes | None = None, headers: Headers = (), partition: int = 0
    ) -> None:
        """Append soon or never: no wait, no error. What does not fit or fails counts in ``dropped``."""
        size = record_bytes(key, value, headers)
        full = len(self._posts) >= POSTS_MAX or self._post_bytes + size > POST_BYTES_MAX
        if full or size > RECORD_BYTES_MAX or self._stopped:
            self.dropped += 1
            return
        self._posts.append(_Post(topic, partition, Record(key, value, headers), size))
        self._post_bytes += size
        if self._poster is None or self._poster.done():
            self._poster = asyncio.create_task(self._post_all(), name="mirror posts")

    async def _append_all(
        self,
        line: _Line,
        place: TopicPartition,
        records: Sequence[Record],
        waiting: list[asyncio.Future[Appended]],
    ) -> None:
        position, count = 0, len(records)
        while position < count:
            batch = line.producer.create_batch()
            append, started = batch.append, position
            while position < count:
                record = records[position]
                # The list is what aiokafka's C builder wants; None says that the batch is full.
                headers = list(record.headers)
                if append(timestamp=None, key=record.key, value=record.value, headers=headers) is None:
                    break
                position += 1
            # An open batch would take in records of concurrent sends, and a full one is closed anyway.
            batch.close()
            if position == started:
                raise RefusedError("PayloadTooLarge", f"A record for {place.topic} does not fit any batch.")
            sent = await line.producer.send_batch(batch, place.topic, partition=place.partition)
            waiting.append(line.watch(sent, place))

    async def _known(self, line: _Line, place: TopicPartition) -> None:
        """Ask first, since aiokafka would only assert that the partition exists."""
        if place.partition not in await line.producer.partitions_for(place.topic):
            raise UnavailableError(f"Topic {place.topic} has no partition {place.partition}.", retry_after_s=5)

    async def _post_all(self) -> None:
        while self._posts:
            groups: dict[tuple[str, int], list[Record]] = {}
            for post in self._posts:
                groups.setdefault((post.topic, post.partition), []).append(post.record)
            self._posts.clear()
            self._post_bytes = 0
            await asyncio.gather(*(self._post_group(*place, group) for place, group in groups.items()))

    async def _post_group(self, topic: str, partition: int, group: list[Record]) -> None:
        try:
            await self.send_many(topic, partition, group, timeout_s=POST_TIMEOUT_S)
        except (UnavailableError, RefusedError):
            self.dropped += len(group)

    def _usable(self) -> _Line:
        if self._line is None or self._stopped:
            raise UnavailableError("The Kafka producer is being replaced or stopped.", retry_after_s=2)
        return self._line

    def _failed(self, line: _Line, error: Exception, *, handed: bool) -> UnavailableError:
        """Say what a failure means, and find a producer whose sender has ended."""
        if not handed and not isinstance(error, _HARMLESS):
            self._replace(line, error)
        # The broker judges a batch by its size before it appends it.
        too_large = isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError)
        return self._unavailable(error, unknown=handed and not too_large)

    def _unavailable(self, error: Exception, *, unknown: bool) -> UnavailableError:
        reason = str(error) or type(error).__name__
        effect = "the record may be in the log or get there later" if unknown else "nothing was written"
        return UnavailableError(
            f"Kafka at {self._bootstrap} did not confirm a write ({reason}); {effect}.",
            retry_after_s=2,
            unknown=unknown,
        )

    def _replace(self, line: _Line, error: BaseException) -> None:
        if self._line is not line or self._stopped:
            return
        log.warning("the Kafka producer is replaced after a produce error: %r", error)
        self._line = None
        self._broken_since = time.monotonic()
        self.replaced += 1
        for work in (_close(line.producer, RETIRE_TIMEOUT_S), self._revive()):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _revive(self) -> None:
        pause_s = REVIVE_FIRST_S
        async with self._replacing:
            while self._line is None and not self._stopped:
                try:
                    line = await self._new_line()
                except (KafkaError, OSError, TimeoutError) as error:
                    log.warning("no new Kafka producer yet: %s", error)
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, REVIVE_MAX_S)
                else:
                    self._line, self._broken_since = line, 0.0

    async def _new_line(self) -> _Line:
        producer = AIOKafkaProducer(
            **client_arguments(self._bootstrap),
            client_id=self._client_id,
            acks="all",
            enable_idempotence=True,
            max_request_size=MESSAGE_BYTES_MAX,
            max_batch_size=BATCH_BYTES_MAX,
            linger_ms=0,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await producer.start()
        except BaseException:  # cancelled or failed, its connections must not stay
            await _close(producer, 0.0)
            raise
        return _Line(producer, self._replace)


def _check_size(topic: str, size: int) -> None:
    if size > RECORD_BYTES_MAX:
        raise RefusedError(
            "PayloadTooLarge",
            f"A record of {size} bytes for {topic} is over the limit of {RECORD_BYTES_MAX}: send less.",
            details={"size_bytes": size, "limit_bytes": RECORD_BYTES_MAX},
        )


def _abandon(waiting: Sequence[asyncio.Future[Appended]]) -> None:
    """Nobody waits any more: an error of a later batch is no news."""
    for answer in waiting:
        if answer.done() and not answer.cancelled():
            answer.exception()
        else:
            answer.cancel()


def _give_up(producer: AIOKafkaProducer) -> None:
    """End what a stop that was cut short leaves behind: a sender that would still deliver when Kafka is back.

    aiokafka has no public way to do so. Whoever still waits for a batch of it is told at once.
    """
    sender = producer._sender.sender_task  # noqa: SLF001 - see above
    if sender is not None:
        sender.cancel()
    producer._message_accumulator.fail_all(ProducerClosed())  # noqa: SLF001 - see above


async def _close(producer: AIOKafkaProducer, timeout_s: float) -> None:
    """Flush and disconnect; hang up after ``timeout_s`` since a flush waits for as long as Kafka is down."""
    with suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(timeout_s):
            await producer.stop()
            return
    _give_up(producer)
    with suppress(KafkaError, OSError):
        await producer.client.close()
