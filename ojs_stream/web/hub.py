"""Events of all homes to everybody who listens at this worker: one reader of the topic, a bounded buffer each.

The topic is read only while somebody listens. An event is made a frame once, however many get it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Protocol

import msgspec
import structlog
from msgspec import Struct

from ojs_stream.errors import LogRefusedError, OjsError, UnavailableError
from ojs_stream.forever import forever
from ojs_stream.log.reader import LogRecord, position_of

log = structlog.get_logger(__name__)

BUFFER_EVENTS_MAX = 1_000
"""Events that wait for one connection; the oldest gives way and the client is told."""
STREAMS_MAX = 5_000
"""Open streams of one worker, if nothing else is said."""
RETRY_S = 1.0
"""Between two tries to reach Kafka."""
GOODBYE_S = 2.0
"""So long a stop waits for the streams to say goodbye."""
ALL = "all"


class Tail(Protocol):
    """The part of ``log.tail.TopicTail`` that a hub needs."""

    async def open(self) -> None:
        """Stand at the ends, or where it was."""

    async def step(self) -> list[tuple[int, LogRecord]]:
        """What came since."""

    async def close(self) -> None:
        """Disconnect."""


class _Data(Struct):
    queue: str | None = None


class _Event(Struct):
    id: str
    type: str
    subject: str
    data: _Data


_event = msgspec.json.Decoder(_Event)


class Frame(Struct, frozen=True, gc=False):
    """An event as it goes out, and what it is chosen by. ``number`` is its position at its home."""

    home: int
    number: int
    type: str
    subject: str
    queue: str
    data: bytes


def frame_of(home: int, number: int, data: bytes) -> Frame:
    """The frame of an event as it is in the topic or the ring."""
    event = _event.decode(data)
    return Frame(home, number, event.type, event.subject, event.data.queue or "", sse(event.type, data, event.id))


def sse(kind: str, data: bytes, event_id: str = "") -> bytes:
    """A server-sent event: JSON has no raw line break, so ``data`` is one line."""
    head = f"id: {event_id}\n" if event_id else ""
    kind_line = f"event: {kind}\n" if kind else ""
    return f"{head}{kind_line}data: ".encode() + data + b"\n\n"


class Subscription:
    """What one connection waits for. ``channel``: ``job:<id>``, ``queue:<name>``, ``all``, or "" for no events."""

    def __init__(self, channel: str, *, types: Collection[str] = (), queues: Collection[str] = ()) -> None:
        self.channel = channel
        self.closing = False
        self.gap = False
        self.dropped = 0
        self._types = frozenset(types)
        self._queues = frozenset(queues)
        self._frames: deque[Frame] = deque()
        self._news = asyncio.Event()

    def offer(self, frame: Frame) -> None:
        """Keep an event for the connection, if it is wanted."""
        if (self._types and frame.type not in self._types) or (self._queues and frame.queue not in self._queues):
            return
        if len(self._frames) >= BUFFER_EVENTS_MAX:
            self._frames.popleft()
            self.dropped += 1
        self._frames.append(frame)
        self._news.set()

    def tell(self, *, gap: bool = False, closing: bool = False) -> None:
        """Something that is no event: events may be missing, the server stops."""
        self.gap |= gap
        self.closing |= closing
        self._news.set()

    async def wait(self, seconds: float) -> None:
        """Until there is something to take, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    def take(self) -> tuple[list[Frame], int, bool]:
        """The events that wait, how many gave way before them, and whether events may be missing."""
        taken = (list(self._frames), self.dropped, self.gap)
        self._frames.clear()
        self.dropped, self.gap = 0, False
        if not self.closing:
            self._news.clear()
        return taken


class Hub:
    """Everybody who listens at this worker."""

    def __init__(self, tail: Callable[[], Tail], *, streams_max: int = STREAMS_MAX) -> None:
        self._new_tail = tail
        self._streams_max = streams_max
        self._everybody: set[Subscription] = set()
        self._channels: dict[str, set[Subscription]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._tail: Tail | None = None
        self._last: dict[int, int] = {}
        self._turn = asyncio.Lock()
        self._closing = False
        self.replaying = asyncio.Semaphore(2)
        """A search of the rings takes the event loop a while: not all who come back may do it at once."""

    def __len__(self) -> int:
        return len(self._everybody)

    async def join(self, subscription: Subscription) -> None:
        """Listen. What happens after this has returned is offered; ``UnavailableError`` if that cannot be."""
        if self._closing:
            raise UnavailableError("This worker is shutting down: connect again.")
        if len(self._everybody) >= self._streams_max:
            raise UnavailableError(
                f"This worker has {len(self._everybody)} open streams, OJS_STREAMS_MAX allows "
                f"{self._streams_max}: close some, raise it, or connect to another worker.",
                retry_after_s=5,
            )
        self._everybody.add(subscription)
        if not subscription.channel:
            return
        self._channels.setdefault(subscription.channel, set()).add(subscription)
        try:
            async with self._turn:
                await self._begin_reading()
        except BaseException:  # also a cancelled request must not be counted for ever
            self._forget(subscription)
            raise

    async def leave(self, subscription: Subscription) -> None:
        """Listen no more. The last one ends the reading of the topic."""
        self._forget(subscription)
        async with self._turn:
            if not self._channels:
                await self._end_reading()

    async def close(self) -> None:
        """Tell all streams that the server stops, and wait a moment for their goodbye."""
        self._closing = True
        log.info("streams are told to go", streams=len(self))
        for subscription in self._everybody:
            subscription.tell(closing=True)
        until = asyncio.get_running_loop().time() + GOODBYE_S
        while self._everybody and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.01)
        async with self._turn:
            await self._end_reading()

    def _forget(self, subscription: Subscription) -> None:
        self._everybody.discard(subscription)
        known = self._channels.get(subscription.channel, set())
        known.discard(subscription)
        if not known:
            self._channels.pop(subscription.channel, None)

    async def _begin_reading(self) -> None:
        if self._reading is not None:
            return
        tail = self._new_tail()
        try:
            await tail.open()
        except OjsError:
            await tail.close()
            raise
        self._tail, self._last = tail, {}
        self._reading = asyncio.create_task(forever("streams", lambda: self._read(tail)), name="streams")

    async def _end_reading(self) -> None:
        reading, self._reading = self._reading, None
        tail, self._tail = self._tail, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        if tail is not None:
            await tail.close()

    async def _read(self, tail: Tail) -> None:
        try:
            for home, record in await tail.step():
                self._take(home, record)
        except OjsError as error:
            log.warning("streams wait for Kafka", reason=str(error))
            if isinstance(error, LogRefusedError):
                for subscription in self._everybody:
                    subscription.tell(gap=True)
            await asyncio.sleep(RETRY_S)
            with suppress(OjsError):  # the next step finds it closed and tries again
                await tail.open()

    def _take(self, home: int, record: LogRecord) -> None:
        number = position_of(record)
        # After a crash of a worker a position may come twice.
        if number <= self._last.get(home, 0):
            return
        self._last[home] = number
        try:
            frame = frame_of(home, number, record.value)
        except msgspec.MsgspecError as error:
            log.warning(
                "a record of the event topic is no event", home=home, offset=record.offset, reason=str(error)
            )
            return
        for channel in (f"job:{frame.subject}", f"queue:{frame.queue}", ALL):
            for subscription in self._channels.get(channel, ()):
                subscription.offer(frame)


def notice(kind: str, **data: Any) -> bytes:
    """A server-sent event of the stream itself; it has no id, so that the client's last id stays an event's."""
    return sse(kind, msgspec.json.encode(data))
