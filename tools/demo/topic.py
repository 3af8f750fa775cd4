"""Reading the event topic as a stranger: plain aiokafka, no group, from the first record to the last."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from tools.demo.accounts import Event, EventCounts, Ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiokafka import ConsumerRecord

POLL_MS = 500
SETTLE_S = 1.0
PATIENCE_S = 20.0
"""Events leave through the outbox after the answer: how long the last of them may take."""


class TopicError(Exception):
    """The topic is not there, or a record in it is not an event."""


async def read_ledger(brokers: str, topic: str, *, job_ids: Iterable[str], expected: EventCounts) -> Ledger:
    """Return the ledger of a whole topic, read on until the expected events are there or patience ends.

    It always reads to the end that the topic has at the last look, so that surplus events are seen too.
    """
    wanted = frozenset(job_ids)
    # Not "latest" and a seek afterwards: the reset that runs in the background may then win (aiokafka 0.14).
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=brokers,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        return await _read(consumer, topic, wanted, expected)
    finally:
        await consumer.stop()


async def _read(consumer: AIOKafkaConsumer, topic: str, wanted: frozenset[str], expected: EventCounts) -> Ledger:
    partitions = _assigned(consumer, topic)
    ledger = Ledger()
    deadline = time.monotonic() + PATIENCE_S
    await _read_to_end(consumer, partitions, ledger)
    while ledger.counts(wanted) != expected and time.monotonic() < deadline:
        await _read_for(consumer, ledger, SETTLE_S)
    await _read_for(consumer, ledger, SETTLE_S)
    return ledger


def _assigned(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    partitions = sorted(consumer.assignment())
    if not partitions:
        raise TopicError(f"the topic {topic} has no partitions at the given brokers")
    return partitions


async def _read_to_end(consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], ledger: Ledger) -> None:
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    while any([await consumer.position(partition) < end for partition, end in ends.items()]):
        await _read_once(consumer, ledger)


async def _read_for(consumer: AIOKafkaConsumer, ledger: Ledger, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await _read_once(consumer, ledger)


async def _read_once(consumer: AIOKafkaConsumer, ledger: Ledger) -> None:
    fetched = await consumer.getmany(timeout_ms=POLL_MS)
    for records in fetched.values():
        for record in records:
            ledger.note(event_of(record))


def event_of(record: ConsumerRecord) -> Event:
    """Return the event in a record: the envelope gives the id, the text headers give the rest."""
    headers = {name: value.decode() for name, value in record.headers}
    try:
        return Event(
            partition=record.partition,
            position=int(headers["ojs-position"]),
            event_id=str(orjson.loads(record.value or b"")["id"]),
            event_type=headers["ojs-event-type"],
            job_id=headers.get("ojs-job-id", ""),
        )
    except (KeyError, ValueError) as error:
        place = f"offset {record.offset} of partition {record.partition}"
        raise TopicError(f"{record.topic} holds no event at {place}: {error!r}, headers {headers}") from error
