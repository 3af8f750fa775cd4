"""What leaves a home: events, records for other topics, messages to other homes. In order, repeated until acked.

Everything here is in the home's records before it is sent (ring and outbox, written by the commit), so a crash
loses nothing; what a topic already has is known by the ``ojs-position`` header at its tail.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

import msgspec
import structlog

from ojs_stream.core.portions import portions
from ojs_stream.core.world import Message, NumberedEffect, NumberedEvent
from ojs_stream.errors import RefusedError, UnavailableError
from ojs_stream.forever import forever
from ojs_stream.log.producer import Record
from ojs_stream.log.topics import Topics
from ojs_stream.store.commit import Acked, Trim, effect_field, message_field

T = TypeVar("T")
log = structlog.get_logger(__name__)

BATCH_MAX = 2_000
"""Records handed to the producer at once."""
RETRY_S_MAX = 2.0
EVENTS_LINGER_S = 0.01
"""Events wait so long for company: nobody waits for them, and a produce a round costs as much as the round."""
SEND_TIMEOUT_S = 10.0


class Sender(Protocol):
    """The part of the producer that an outbox needs."""

    async def send_many(self, topic: str, partition: int, records: Sequence[Record], *, timeout_s: float) -> int:
        """Append in order and wait for the acknowledgements; ``UnavailableError`` when the outcome is unknown."""


Produce = Callable[[int, list[tuple[bytes, str]]], Awaitable[int]]
"""Write a pack of (command, kind) to a home's log, so that a home of this worker has it at once; its offset."""


class Lane(Generic[T]):
    """One in-order sender with its queue: the next batch goes when the one before is acknowledged.

    ``settled`` hears of every item, in order: it is in its topic, or can never be.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[list[T]], Awaitable[None]],
        settled: Callable[[list[T]], None],
        *,
        linger_s: float = 0.0,
    ) -> None:
        self._name = name
        self._linger_s = linger_s
        self._send = send
        self._settled = settled
        self._items: deque[T] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send; a lane has one sender, however often it is started."""
        if self._task is not None:
            return
        self._task = asyncio.create_task(forever(self._name, self._send_next), name=self._name)

    def put(self, items: Iterable[T]) -> None:
        """Queue items behind what waits."""
        self._items.extend(items)
        if self._items:
            self._wake.set()

    def __len__(self) -> int:
        return len(self._items)

    def close(self) -> None:
        """Stop; what was not acknowledged stays in the store for the next owner."""
        if self._task is not None:
            self._task.cancel()

    async def _send_next(self) -> None:
        """Send what waits, bounded. An item leaves the queue when it is acknowledged: an error keeps it there."""
        if not self._items:
            self._wake.clear()
            await self._wake.wait()
            if self._linger_s:
                await asyncio.sleep(self._linger_s)
        await self._insist(list(islice(self._items, BATCH_MAX)))

    async def _insist(self, batch: list[T]) -> None:
        wait = 0.05
        while True:
            try:
                await self._send(batch)
            except UnavailableError as error:
                log.warning("outbox waits for Kafka", lane=self._name, items=len(batch), reason=str(error))
            except RefusedError:
                # Larger than a topic takes. Waiting would hold up everything behind it for ever.
                if len(batch) > 1:
                    for item in batch:
                        await self._insist([item])
                    return
                log.exception("a record cannot be sent and is dropped", lane=self._name)
                break
            else:
                break
            await asyncio.sleep(wait)
            wait = min(2 * wait, RETRY_S_MAX)
        self._settle(batch)

    def _settle(self, batch: list[T]) -> None:
        for _ in batch:
            self._items.popleft()
        self._settled(batch)


class Outbox:
    """The lanes of one home. ``tails``: per topic the highest position that it has, or is known to have had."""

    def __init__(  # noqa: PLR0913 - what it writes through and who hears of it, by name
        self,
        home: int,
        *,
        sender: Sender,
        produce: Produce,
        topics: Topics,
        tails: dict[str, int],
        on_event: Callable[[NumberedEvent], None] | None = None,
        on_sent: Callable[[], None] = lambda: None,
    ) -> None:
        self.home = home
        self._sender = sender
        self._produce = produce
        self._topics = topics
        self._tails = tails
        self._events_sent = tails["events"]
        self._on_event = on_event
        self._on_sent = on_sent
        self._trimmed: list[str] = []
        self.events: Lane[NumberedEvent] = Lane(
            f"events-{home}", self._send_events, self._events_settled, linger_s=EVENTS_LINGER_S
        )
        self.effects: Lane[NumberedEffect] = Lane(f"effects-{home}", self._send_effects, self._effects_settled)
        self.messages: Lane[Message] = Lane(f"messages-{home}", self._send_messages, self._messages_settled)

    def start(self) -> None:
        """Begin to send events and effects; messages wait for ``start_messages``."""
        self.events.start()
        self.effects.start()

    def start_messages(self) -> None:
        """Begin to send messages: the catch-up is over and the destinations' marks are known."""
        self.messages.start()

    def close(self) -> None:
        """Stop all lanes."""
        for lane in (self.events, self.effects, self.messages):
            lane.close()

    def add(
        self,
        events: Iterable[NumberedEvent] = (),
        effects: Iterable[NumberedEffect] = (),
        messages: Iterable[Message] = (),
    ) -> None:
        """Queue what a commit has stored; what its topic already has is dropped here."""
        self.events.put(event for event in events if event.number > self._tails["events"])
        for effect in effects:
            if effect.number > self._tails[effect.effect.topic]:
                self.effects.put([effect])
            else:
                self._trimmed.append(effect_field(effect.number))
        self.messages.put(messages)

    def trim(self) -> Trim:
        """What the topics have by now, for the next commit."""
        taken, self._trimmed = self._trimmed, []
        return Trim(Acked(events=self._events_sent), taken)

    def give_back_trimmed(self, fields: list[str]) -> None:
        """The commit that should have removed them did not happen."""
        self._trimmed.extend(fields)

    async def _send_events(self, batch: list[NumberedEvent]) -> None:
        records = [event_record(event) for event in batch]
        await self._sender.send_many(self._topics.events, self.home, records, timeout_s=SEND_TIMEOUT_S)

    def _events_settled(self, batch: list[NumberedEvent]) -> None:
        self._events_sent = batch[-1].number
        self._on_sent()
        if self._on_event is None:
            return
        for event in batch:
            try:
                self._on_event(event)
            except Exception:
                log.exception("a listener to events failed", home=self.home, event_type=event.type)

    async def _send_effects(self, batch: list[NumberedEffect]) -> None:
        by_topic: dict[str, list[NumberedEffect]] = {}
        for effect in batch:
            by_topic.setdefault(effect.effect.topic, []).append(effect)
        for topic, effects in by_topic.items():
            records = [self._effect_record(effect) for effect in effects]
            await self._sender.send_many(self._topics.of(topic), self.home, records, timeout_s=SEND_TIMEOUT_S)

    def _effects_settled(self, batch: list[NumberedEffect]) -> None:
        self._trimmed.extend(effect_field(effect.number) for effect in batch)

    @staticmethod
    def _effect_record(effect: NumberedEffect) -> Record:
        headers = [(name, value.encode()) for name, value in effect.effect.headers.items()]
        headers.append(("content-type", b"application/json"))
        headers.append(("ojs-position", b"%d" % effect.number))
        return Record(effect.effect.key.encode(), bytes(effect.effect.value), headers)

    async def _send_messages(self, batch: list[Message]) -> None:
        by_home: dict[int, list[Message]] = {}
        for message in batch:
            by_home.setdefault(message.destination, []).append(message)
        for home, messages in by_home.items():
            for pack in portions(
                messages, lambda message: len(message.data), count_max=BATCH_MAX, bytes_max=PACK_BYTES_MAX
            ):
                await self._produce(home, [(message.data, "message") for message in pack])

    def _messages_settled(self, batch: list[Message]) -> None:
        self._trimmed.extend(message_field(m.destination, m.number) for m in batch)


def event_record(event: NumberedEvent) -> Record:
    """The record of an event in its topic."""
    subject = event.subject.encode()
    headers = [
        ("ojs-event-type", event.type.encode()),
        ("ojs-job-id", subject),
        ("ojs-queue", event.queue.encode()),
        ("ojs-position", b"%d" % event.number),
    ]
    return Record(subject, event.data, headers)


PACK_BYTES_MAX = 4 * 1024 * 1024


class _StoredEventData(msgspec.Struct):
    queue: str = ""


class _StoredEvent(msgspec.Struct):
    type: str
    subject: str
    data: _StoredEventData


_event_decoder = msgspec.json.Decoder(_StoredEvent)
_effect_decoder = msgspec.json.Decoder(NumberedEffect)


def stored_event(number: int, data: bytes) -> NumberedEvent:
    """An event from the ring, for sending it again."""
    event = _event_decoder.decode(data)
    return NumberedEvent(number, event.type, event.subject, event.data.queue, None, data)


def stored_outbox(fields: dict[str, bytes]) -> tuple[list[NumberedEffect], list[Message]]:
    """The effects and messages of a stored outbox, each in order."""
    effects: list[NumberedEffect] = []
    messages: list[Message] = []
    for field, data in fields.items():
        kind, *numbers = field.split(":")
        if kind == "e":
            effects.append(_effect_decoder.decode(data))
        else:
            messages.append(Message(int(numbers[0]), int(numbers[1]), data))
    effects.sort(key=lambda effect: effect.number)
    messages.sort(key=lambda message: (message.destination, message.number))
    return effects, messages
