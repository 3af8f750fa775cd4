"""How every consumer of our own begins and ends: in bounded time, and no connection stays behind."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from ojs_stream.errors import UnavailableError
from ojs_stream.log.connection import Bootstrap

CLOSE_TIMEOUT_S = 5.0


async def start_consumer(consumer: AIOKafkaConsumer, bootstrap: Bootstrap) -> None:
    """Connect. ``UnavailableError`` when Kafka does not answer."""
    try:
        await consumer.start()
    except (KafkaError, OSError) as error:
        await close_consumer(consumer)
        raise UnavailableError(f"Kafka at {bootstrap} does not answer: {error}.", retry_after_s=2) from error
    except asyncio.CancelledError:  # a connection must not stay behind
        await close_consumer(consumer)
        raise


async def close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Disconnect, or give up after ``CLOSE_TIMEOUT_S``."""
    with suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await consumer.stop()
