"""Names and settings of the topics, declared before anything reads or writes them (DESIGN.md section 8).

The truth about the number of homes is the partition count of the commands topic. Nothing here changes a topic
that exists: one that cannot work is refused with the way out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from ojs_stream.core.homes import HOMES_MAX
from ojs_stream.errors import LogRefusedError, UnavailableError
from ojs_stream.log.connection import Bootstrap, client_arguments

PARTITIONS_DEFAULT = 8
MESSAGE_BYTES_MAX = 8 * 1024 * 1024
"""``max.message.bytes`` of every topic and the request limit of every producer."""
REPLICAS_MAX = 3
MIRRORS_MAX = 100
"""At most so many queues are mirrored."""
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 2.0
REQUEST_TIMEOUT_MS = 10_000
DAY_MS = 86_400_000
COMPACTED = 0
"""In place of a retention: the topic keeps the last record of every key."""
SNAPSHOT_SEGMENT_BYTES = 64 * 1024 * 1024
"""Compaction leaves the newest segment alone: small ones, so that superseded snapshots really go."""

Result = TypeVar("Result")

_TIMESTAMP = "message.timestamp.type"


class Topics:
    """Names of the topics of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    @property
    def commands(self) -> str:
        """The log: packs of commands."""
        return f"{self.namespace}.commands"

    @property
    def commands_bulk(self) -> str:
        """Open-loop intake of ``enqueue`` commands from any Kafka client."""
        return f"{self.namespace}.commands.bulk"

    @property
    def commands_dead(self) -> str:
        """Undecodable and failing commands, with error headers."""
        return f"{self.namespace}.commands.dead"

    @property
    def retry(self) -> str:
        """Attempts that wait for their backoff, for the retry agent."""
        return f"{self.namespace}.retry"

    @property
    def events(self) -> str:
        """OJS lifecycle events."""
        return f"{self.namespace}.events"

    @property
    def dead(self) -> str:
        """Dead-lettered jobs."""
        return f"{self.namespace}.dead"

    @property
    def snapshots(self) -> str:
        """The state of each home at some offset of the log: the newest two snapshots (compacted)."""
        return f"{self.namespace}.snapshots"

    def of(self, short: str) -> str:
        """The topic of a short name: ``events``, ``retry``, ``dead``, ``commands.dead``."""
        return f"{self.namespace}.{short}"

    def queue(self, queue: str) -> str:
        """Mirror of a queue's jobs."""
        return f"{self.namespace}.queue.{queue}"

    def queue_retry(self, queue: str) -> str:
        """Mirror of a queue's retries."""
        return f"{self.namespace}.queue.{queue}.retry"

    def dead_queue(self, queue: str) -> str:
        """Mirror of a queue's dead letters."""
        return f"{self.namespace}.dead.{queue}"

    @property
    def scheduled(self) -> str:
        """Mirror of scheduled jobs."""
        return f"{self.namespace}.scheduled"

    def retention_ms(self) -> dict[str, int]:
        """How long each topic keeps a record, in milliseconds; -1 = for ever, ``COMPACTED`` = until replaced."""
        return {
            self.commands: -1,
            self.commands_bulk: 7 * DAY_MS,
            self.retry: 7 * DAY_MS,
            self.events: 7 * DAY_MS,
            self.dead: 180 * DAY_MS,
            self.commands_dead: 30 * DAY_MS,
            self.snapshots: COMPACTED,
        }


@dataclass(frozen=True, slots=True)
class _Seen:
    """One look at the cluster: its brokers and, of every topic, partition -> whether it has a leader."""

    brokers: int
    topics: Mapping[str, Mapping[int, bool]]

    def led(self, name: str) -> bool:
        partitions = self.topics.get(name)
        return partitions is not None and len(partitions) > 0 and all(partitions.values())


async def declare(bootstrap: Bootstrap, topics: Topics, *, partitions: int | None, wait_s: float) -> int:
    """Create what is missing, check what is there, wait for the leaders; answer N, the number of homes.

    ``partitions`` is the N that is wanted; ``None`` takes the N of the log, or 8 for a new one. Any
    number of workers may call it at once. ``LogRefusedError`` when the log is not as we need it;
    ``UnavailableError`` when Kafka was not there, or not ready, for ``wait_s`` seconds.
    """
    if partitions is not None and not 1 <= partitions <= HOMES_MAX:
        raise LogRefusedError(f"A log has 1 to {HOMES_MAX} partitions, not {partitions}: change OJS_PARTITIONS.")
    return await _patiently(bootstrap, wait_s, lambda admin: _declare(admin, topics, partitions))


async def homes_of(bootstrap: Bootstrap, topics: Topics, *, wait_s: float) -> int:
    """N of a log that exists, for a tool: nothing is created. ``LogRefusedError`` when there is none."""

    async def work(admin: AIOKafkaAdminClient) -> int:
        seen = await _look(admin)
        if topics.commands not in seen.topics:
            raise LogRefusedError(
                f"There is no topic {topics.commands} at {bootstrap}: is the namespace {topics.namespace} right?"
            )
        return _checked_count(topics, seen, None)

    return await _patiently(bootstrap, wait_s, work)


async def declare_mirrors(bootstrap: Bootstrap, names: Sequence[str], *, wait_s: float) -> None:
    """Create missing mirror topics with one partition each; ``UnavailableError`` as in ``declare``."""

    async def work(admin: AIOKafkaAdminClient) -> None:
        seen = await _look(admin)
        missing = {name: 7 * DAY_MS for name in names if name not in seen.topics}
        await _create(admin, missing, partitions=1, brokers=seen.brokers)
        await _until_led(admin, names)

    await _patiently(bootstrap, wait_s, work)


async def delete_before(bootstrap: Bootstrap, topic: str, partition: int, offset: int, *, wait_s: float) -> None:
    """Delete the records of a partition below ``offset``; ``UnavailableError`` as in ``declare``."""
    place = TopicPartition(topic, partition)

    async def work(admin: AIOKafkaAdminClient) -> None:
        await admin.delete_records({place: RecordsToDelete(before_offset=offset)})

    await _patiently(bootstrap, wait_s, work)


async def _patiently(
    bootstrap: Bootstrap, wait_s: float, work: Callable[[AIOKafkaAdminClient], Awaitable[Result]]
) -> Result:
    """Run ``work(admin)`` until it succeeds, backing off: a broker may be starting just now, as we are."""
    deadline, pause_s = time.monotonic() + wait_s, RETRY_FIRST_S
    while True:
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), pause_s)), _admin(bootstrap) as admin:
                return await work(admin)
        except (KafkaError, OSError, TimeoutError) as error:
            if time.monotonic() + pause_s >= deadline:
                _give_up(bootstrap, wait_s, error)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, RETRY_MAX_S)


def _give_up(bootstrap: Bootstrap, wait_s: float, error: Exception) -> NoReturn:
    reason = str(error) or type(error).__name__
    raise UnavailableError(
        f"Kafka at {bootstrap} was not ready within {wait_s:g} s ({reason}): start it or set KAFKA_BROKERS.",
        retry_after_s=2,
    ) from error


@asynccontextmanager
async def _admin(bootstrap: Bootstrap) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**client_arguments(bootstrap), request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def _declare(admin: AIOKafkaAdminClient, topics: Topics, wanted: int | None) -> int:
    seen = await _look(admin)
    if topics.commands not in seen.topics:
        count = wanted or PARTITIONS_DEFAULT
        await _create(admin, {topics.commands: -1}, partitions=count, brokers=seen.brokers)
    # Another worker may have been faster, with another N: what counts is what is there now.
    await _until_led(admin, [topics.commands])
    homes = _checked_count(topics, await _look(admin), wanted)
    await _check_clock(admin, topics)
    missing = {name: kept for name, kept in topics.retention_ms().items() if name not in seen.topics}
    missing.pop(topics.commands, None)
    await _create(admin, missing, partitions=homes, brokers=seen.brokers)
    await _until_led(admin, list(topics.retention_ms()))
    _check_siblings(topics, await _look(admin), homes)
    return homes


async def _look(admin: AIOKafkaAdminClient) -> _Seen:
    """Ask for all topics: asking for one by name may create it with the broker's defaults."""
    cluster = await admin.describe_cluster()
    return _Seen(
        brokers=len(cluster["brokers"]),
        topics={
            topic["topic"]: {one["partition"]: one["leader"] >= 0 for one in topic["partitions"]}
            for topic in await admin.describe_topics()
        },
    )


async def _until_led(admin: AIOKafkaAdminClient, names: Sequence[str]) -> None:
    """Wait until every partition has a leader; the caller bounds the time."""
    pause_s = RETRY_FIRST_S / 4
    while True:
        seen = await _look(admin)
        if all(seen.led(name) for name in names):
            return
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, RETRY_MAX_S)


async def _create(
    admin: AIOKafkaAdminClient, retention_ms: Mapping[str, int], *, partitions: int, brokers: int
) -> None:
    if not retention_ms:
        return
    replicas = min(REPLICAS_MAX, max(brokers, 1))
    wanted = [
        NewTopic(name, partitions, replicas, topic_configs=_settings(kept, replicas))
        for name, kept in retention_ms.items()
    ]
    answer = await admin.create_topics(wanted)
    for name, code, *message in answer.topic_errors:
        _check_created(name, code, message)


def _settings(retention_ms: int, replicas: int) -> dict[str, str]:
    settings = {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms),
        "max.message.bytes": str(MESSAGE_BYTES_MAX),
        "min.insync.replicas": "2" if replicas >= REPLICAS_MAX else "1",
    }
    if retention_ms == COMPACTED:
        settings |= {
            "cleanup.policy": "compact",
            "retention.ms": "-1",
            "segment.bytes": str(SNAPSHOT_SEGMENT_BYTES),
            "segment.ms": str(DAY_MS),
            "min.cleanable.dirty.ratio": "0.1",
        }
    if retention_ms < 0:  # the log: its records are the state, and their times are the broker's
        settings |= {"retention.bytes": "-1", _TIMESTAMP: "LogAppendTime"}
    return settings


def _check_created(name: str, code: int, message: list[str]) -> None:
    error = for_code(code)
    if code == 0 or error is TopicAlreadyExistsError:
        return
    if getattr(error, "retriable", False):
        raise error(name)
    detail = "; ".join(text for text in message if text) or error.__name__
    raise LogRefusedError(f"Kafka does not create the topic {name}: {detail}. Create it by hand or allow it.")


def _checked_count(topics: Topics, seen: _Seen, wanted: int | None) -> int:
    have = len(seen.topics[topics.commands])
    if have > HOMES_MAX:
        raise LogRefusedError(
            f"The topic {topics.commands} has {have} partitions, at most {HOMES_MAX} can work: "
            "choose another OJS_NAMESPACE."
        )
    if wanted is not None and have != wanted:
        raise LogRefusedError(
            f"OJS_PARTITIONS is {wanted}, but the topic {topics.commands} has {have} partitions, and jobs "
            f"and queues are placed by that number: set OJS_PARTITIONS={have} (or leave it unset), "
            "or choose another OJS_NAMESPACE."
        )
    return have


def _check_siblings(topics: Topics, seen: _Seen, homes: int) -> None:
    for name in topics.retention_ms():
        have = len(seen.topics[name])
        if have != homes:
            raise LogRefusedError(
                f"The topic {name} has {have} partitions, but {topics.commands} has {homes}, and both are "
                f"numbered by home: delete {name} (it is created again) or choose another OJS_NAMESPACE."
            )


async def _check_clock(admin: AIOKafkaAdminClient, topics: Topics) -> None:
    """The fold's ``now`` is the record's time: it must be the broker's, not any producer's."""
    name = topics.commands
    asked = ConfigResource(ConfigResourceType.TOPIC, name, {_TIMESTAMP: None})
    answers = await admin.describe_configs([asked])
    for code, message, _, _, entries in answers[0].resources:
        if code:
            raise for_code(code)(message or name)
        kind = next((entry[1] for entry in entries if entry[0] == _TIMESTAMP), "unknown")
        if kind != "LogAppendTime":
            raise LogRefusedError(
                f"The topic {name} has {_TIMESTAMP}={kind}, it must be LogAppendTime, since the broker's "
                f"clock decides what is due: kafka-configs --alter --entity-type topics --entity-name {name} "
                f"--add-config {_TIMESTAMP}=LogAppendTime"
            )
