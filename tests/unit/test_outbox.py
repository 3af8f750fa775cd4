"""The lanes of a home: order, what is dropped, and what the next commit removes from the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec import Raw

from ojs_stream.core.outcomes import Effect
from ojs_stream.core.world import Message, NumberedEffect, NumberedEvent
from ojs_stream.errors import RefusedError
from ojs_stream.log.outbox import Outbox
from ojs_stream.log.producer import Record
from ojs_stream.log.topics import Topics

NO_TAILS = dict.fromkeys(("events", "retry", "dead", "commands.dead"), 0)


class Sender:
    """Takes what is not larger than a topic may hold."""

    def __init__(self) -> None:
        self.sent: dict[str, list[Record]] = {}

    async def send_many(self, topic: str, partition: int, records: Sequence[Record], *, timeout_s: float) -> int:
        if any(b"large" in record.value for record in records):
            raise RefusedError("payload_too_large", "The record is too large.")
        self.sent.setdefault(topic, []).extend(records)
        return 0

    async def produce(self, _home: int, pack: list[tuple[bytes, str]]) -> int:
        records = [Record(None, b"".join(data for data, _ in pack), [])]
        return await self.send_many("ns.commands", 0, records, timeout_s=1.0)

    def positions(self, topic: str) -> list[int]:
        return [int(dict(record.headers)["ojs-position"]) for record in self.sent.get(topic, [])]


@pytest.fixture
def sender() -> Sender:
    return Sender()


def effect(number: int, value: bytes = b"{}", topic: str = "retry") -> NumberedEffect:
    return NumberedEffect(number, Effect(topic=topic, key="k", value=Raw(value), headers={}))


def event(number: int) -> NumberedEvent:
    return NumberedEvent(number, "job.enqueued", "j", "q", None, b"{}")


def message(destination: int, number: int, data: bytes = b"{}") -> Message:
    return Message(destination, number, data)


async def sent(box: Outbox) -> None:
    """Until its lanes are empty."""
    async with asyncio.timeout(5):
        while len(box.events) + len(box.effects) + len(box.messages):
            await asyncio.sleep(0.001)
    box.close()


async def test_what_is_too_large_for_its_topic_is_dropped_and_trimmed(sender: Sender) -> None:
    box = Outbox(0, sender=sender, produce=sender.produce, topics=Topics("ns"), tails=NO_TAILS)
    box.start()
    box.start_messages()
    box.add(
        effects=[effect(1), effect(2, b'"large"'), effect(3)],
        messages=[message(1, 1, b'"large"'), message(1, 2)],
    )
    await sent(box)
    assert sender.positions("ns.retry") == [1, 3]
    assert len(sender.sent["ns.commands"]) == 1
    assert sorted(box.trim().fields) == ["e:1", "e:2", "e:3", "m:1:1", "m:1:2"]
