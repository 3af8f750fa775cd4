"""Mirrors in the reference backend's topic layout, for Kafka tools (setting ``OJS_KAFKA_QUEUE_TOPICS``).

A mirror is a courtesy: it never blocks the outbox. What does not fit is dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from ojs_stream.core.records import Job, JobRecord, public_json
from ojs_stream.core.world import NumberedEvent
from ojs_stream.errors import OjsError
from ojs_stream.log.producer import Headers
from ojs_stream.log.topics import MIRRORS_MAX, Topics

log = structlog.get_logger(__name__)
HELD_MAX = 200
"""Records that wait while a mirror topic is being created."""


class Poster(Protocol):
    """The part of the producer that mirrors use."""

    def post(
        self, topic: str, value: bytes, *, key: bytes | None = None, headers: Headers = (), partition: int = 0
    ) -> None:
        """Append soon or never."""


class Mirrors:
    """Copies of jobs per queue, as events happen."""

    def __init__(
        self,
        topics: Topics,
        poster: Poster,
        declare: Callable[[Sequence[str]], Awaitable[None]],
        *,
        key_is_queue: bool = False,
    ) -> None:
        self._topics = topics
        self._poster = poster
        self._declare = declare
        self._key_is_queue = key_is_queue
        self._known: set[str] = set()
        self._held: dict[str, list[JobRecord]] = {}
        self._queues: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.dropped = 0

    def on_event(self, event: NumberedEvent) -> None:
        """Mirror what the event says, if it is mirrored at all."""
        if event.job is None:
            return
        topic = self._topic(event.type, event.job)
        if topic is None:
            return
        if topic in self._known:
            self._post(topic, event.job)
        else:
            self._hold(topic, event.job)

    def _topic(self, kind: str, record: JobRecord) -> str | None:
        queue = record.job.queue
        if queue not in self._queues:
            if len(self._queues) >= MIRRORS_MAX:
                self.dropped += 1
                return None
            self._queues.add(queue)
        match kind:
            case "job.enqueued":
                return self._topics.queue(queue)
            case "job.retrying":
                return self._topics.queue_retry(queue)
            case "job.scheduled":
                return self._topics.scheduled
            case "job.discarded" if record.ctl.dead:
                return self._topics.dead_queue(queue)
            case _:
                return None

    def _hold(self, topic: str, record: JobRecord) -> None:
        held = self._held.get(topic)
        if held is None:
            held = self._held[topic] = []
            task = asyncio.create_task(self._create(topic), name=f"mirror-{topic}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if len(held) < HELD_MAX:
            held.append(record)
        else:
            self.dropped += 1

    async def _create(self, topic: str) -> None:
        try:
            await self._declare([topic])
        except OjsError as error:
            log.warning("mirror topic not created", topic=topic, reason=str(error))
            self.dropped += len(self._held.pop(topic))
            return
        self._known.add(topic)
        for record in self._held.pop(topic):
            self._post(topic, record)

    def _post(self, topic: str, record: JobRecord) -> None:
        job = record.job
        key = job.queue if self._key_is_queue else job.type
        self._poster.post(topic, public_json(record), key=key.encode(), headers=mirror_headers(job))


def mirror_headers(job: Job) -> list[tuple[str, bytes]]:
    """Headers as the reference backend writes them."""
    headers = {
        "ojs-specversion": job.specversion,
        "ojs-job-id": job.id,
        "ojs-type": job.type,
        "ojs-queue": job.queue,
        "ojs-state": job.state,
        "ojs-priority": str(job.priority),
        "ojs-attempt": str(job.attempt),
        "ojs-max-attempts": str(job.max_attempts),
        "ojs-created-at": job.created_at,
        "ojs-scheduled-at": job.scheduled_at,
        "ojs-expires-at": job.expires_at,
        "ojs-retry-after": job.next_attempt_at,
    }
    return [(name, value.encode()) for name, value in headers.items() if value is not None]
