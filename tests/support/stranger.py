"""Topics as a stranger reads them: plain aiokafka, nothing of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

READ_S = 60.0
REQUEST_BYTES_MAX = 8 * 1024 * 1024


@asynccontextmanager
async def consumer_of(bootstrap: str, *topics: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group that has all partitions of its topics, at their beginning."""
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


@asynccontextmanager
async def producer_to(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_request_size=REQUEST_BYTES_MAX)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def topics_of(bootstrap: str, namespace: str) -> set[str]:
    async with consumer_of(bootstrap) as consumer:
        return {name for name in await consumer.topics() if name.startswith(namespace + ".")}


async def end_offsets(bootstrap: str, topic: str) -> dict[int, int]:
    """Partition -> the offset that its next record will get."""
    async with consumer_of(bootstrap, topic) as consumer:
        ends = await consumer.end_offsets(await _places(consumer, topic))
    return {place.partition: end for place, end in ends.items()}


async def read_topic(bootstrap: str, topic: str) -> dict[int, list[Any]]:
    """All records that a topic has now, by partition."""
    async with consumer_of(bootstrap, topic) as consumer:
        places = await _places(consumer, topic)
        ends = await consumer.end_offsets(places)
        found: dict[int, list[Any]] = {place.partition: [] for place in places}
        until = time.monotonic() + READ_S
        while any([await consumer.position(place) < ends[place] for place in places]):
            assert time.monotonic() < until, f"{topic} was not read to its end within {READ_S:g} s"
            for place, records in (await consumer.getmany(timeout_ms=100)).items():
                found[place.partition].extend(record for record in records if record.offset < ends[place])
    return found


async def _places(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    until = time.monotonic() + 10
    while not consumer.assignment():
        assert time.monotonic() < until, f"there is no topic {topic}"
        await asyncio.sleep(0.05)
    return sorted(consumer.assignment())
