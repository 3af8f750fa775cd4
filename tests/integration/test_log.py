"""The log against a real Kafka: topics, producer, reader, and what happens when the broker dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from ojs_stream.dev.process import free_port
from ojs_stream.errors import LogRefusedError, RefusedError, UnavailableError
from ojs_stream.log.producer import (
    BATCH_BYTES_MAX,
    POSTS_MAX,
    RECORD_BYTES_MAX,
    LogProducer,
    Record,
    record_bytes,
)
from ojs_stream.log.reader import POSITION_HEADER, LogEnds, LogReader, LogRecord
from ojs_stream.log.topics import PARTITIONS_DEFAULT, Topics, declare, declare_mirrors
from tests.support.servers import BrokerHandle

WAIT_S = 60.0


@pytest.fixture
def topics(namespace: str) -> Topics:
    return Topics(namespace)


@pytest.fixture
async def admin(kafka: BrokerHandle) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await client.start()
    yield client
    await client.close()


@pytest.fixture
async def declared(kafka: BrokerHandle, topics: Topics) -> Topics:
    await declare(kafka.bootstrap, topics, partitions=2, wait_s=WAIT_S)
    return topics


@pytest.fixture
async def producer(kafka: BrokerHandle, declared: Topics) -> AsyncIterator[LogProducer]:
    made = LogProducer(kafka.bootstrap, client_id="test")
    await made.start()
    yield made
    await made.stop(2.0)


@pytest.fixture
async def reader(kafka: BrokerHandle) -> AsyncIterator[LogReader]:
    async with LogReader.open(kafka.bootstrap) as opened:
        yield opened


async def _all(reader: LogReader, topic: str, partition: int) -> list[LogRecord]:
    begin, end = await reader.bounds(topic, partition)
    return [record async for step in reader.read(topic, partition, begin, end) for record in step]


async def _until(holds: Callable[[], Awaitable[bool]], within_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + within_s
    while not await holds():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.05)


def _at(position: int) -> Record:
    return Record(None, b"e", ((POSITION_HEADER, b"%d" % position),))


# ---------------------------------------------------------------- topics


async def test_any_number_of_workers_declare_at_once(kafka: BrokerHandle, topics: Topics) -> None:
    found = await asyncio.gather(
        *(declare(kafka.bootstrap, topics, partitions=3, wait_s=WAIT_S) for _ in range(5))
    )
    assert found == [3] * 5
    assert await declare(kafka.bootstrap, topics, partitions=None, wait_s=WAIT_S) == 3


async def test_a_new_log_has_eight_homes(kafka: BrokerHandle, topics: Topics) -> None:
    assert await declare(kafka.bootstrap, topics, partitions=None, wait_s=WAIT_S) == PARTITIONS_DEFAULT


async def test_the_log_keeps_everything_and_the_broker_stamps_it(
    admin: AIOKafkaAdminClient, declared: Topics
) -> None:
    asked = ConfigResource(ConfigResourceType.TOPIC, declared.commands)
    (answer,) = await admin.describe_configs([asked])
    settings = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    assert settings["message.timestamp.type"] == "LogAppendTime"
    assert settings["max.message.bytes"] == str(8 * 1024 * 1024)
    assert (settings["retention.ms"], settings["retention.bytes"]) == ("-1", "-1")


async def test_snapshots_stay_until_they_are_replaced(admin: AIOKafkaAdminClient, declared: Topics) -> None:
    asked = ConfigResource(ConfigResourceType.TOPIC, declared.snapshots)
    (answer,) = await admin.describe_configs([asked])
    settings = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    assert (settings["cleanup.policy"], settings["retention.ms"]) == ("compact", "-1")


async def test_another_number_of_partitions_is_refused(kafka: BrokerHandle, declared: Topics) -> None:
    with pytest.raises(LogRefusedError, match=r"OJS_PARTITIONS is 5, but .* has 2 partitions"):
        await declare(kafka.bootstrap, declared, partitions=5, wait_s=WAIT_S)


@pytest.mark.parametrize("partitions", [0, 1025])
async def test_a_number_out_of_bounds_is_refused_without_a_broker(partitions: int, topics: Topics) -> None:
    with pytest.raises(LogRefusedError, match="1 to 1024"):
        await declare("127.0.0.1:1", topics, partitions=partitions, wait_s=0)


async def test_a_log_with_the_clock_of_its_producers_is_refused(
    kafka: BrokerHandle, admin: AIOKafkaAdminClient, topics: Topics
) -> None:
    await admin.create_topics([NewTopic(topics.commands, 2, 1)])
    with pytest.raises(LogRefusedError, match=r"message\.timestamp\.type=CreateTime, it must be LogAppendTime"):
        await declare(kafka.bootstrap, topics, partitions=None, wait_s=WAIT_S)


async def test_a_topic_that_is_not_numbered_by_home_is_refused(
    kafka: BrokerHandle, admin: AIOKafkaAdminClient, topics: Topics
) -> None:
    await admin.create_topics([NewTopic(topics.events, 3, 1)])
    with pytest.raises(LogRefusedError, match=r"\.events has 3 partitions, but .* has 2"):
        await declare(kafka.bootstrap, topics, partitions=2, wait_s=WAIT_S)


async def test_no_broker_is_said_in_time(topics: Topics) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"was not ready within 0\.5 s"):
        await declare(nowhere, topics, partitions=None, wait_s=0.5)
    assert time.monotonic() - started < 3


async def test_mirrors_have_one_partition(kafka: BrokerHandle, admin: AIOKafkaAdminClient, topics: Topics) -> None:
    names = [topics.queue("mail"), topics.queue_retry("mail"), topics.dead_queue("mail"), topics.scheduled]
    for _ in range(2):
        await declare_mirrors(kafka.bootstrap, names, wait_s=WAIT_S)
    described = await admin.describe_topics(names)
    assert {one["topic"]: len(one["partitions"]) for one in described} == dict.fromkeys(names, 1)


# ---------------------------------------------------------------- producer and reader


async def test_what_is_sent_is_read(producer: LogProducer, reader: LogReader, declared: Topics) -> None:
    before_ms = time.time() * 1000 - 5_000
    sent = [
        await producer.send(declared.commands, 1, b"v%d" % number, key=b"k", headers=[("h", b"1")])
        for number in range(3)
    ]
    records = await _all(reader, declared.commands, 1)
    assert [(one.offset, one.key, one.value, one.headers) for one in records] == [
        (number, b"k", b"v%d" % number, (("h", b"1"),)) for number in range(3)
    ]
    assert sent == [(one.offset, one.timestamp_ms) for one in records]
    assert all(one.timestamp_ms > before_ms for one in records)
    assert await _all(reader, declared.commands, 0) == []


async def test_sends_at_once_all_arrive_with_offsets_of_their_own(producer: LogProducer, declared: Topics) -> None:
    offsets = await asyncio.gather(*(producer.send(declared.commands, 0, b"x") for _ in range(200)))
    assert sorted(one.offset for one in offsets) == list(range(200))


async def test_many_records_keep_their_order_over_batches(
    producer: LogProducer, reader: LogReader, declared: Topics
) -> None:
    records = [Record(None, b"%06d" % number + b"x" * 994) for number in range(3 * BATCH_BYTES_MAX // 1000)]
    last = await producer.send_many(declared.events, 0, records, timeout_s=WAIT_S)
    assert 0 < last < len(records)
    assert [one.value[:6] for one in await _all(reader, declared.events, 0)] == [
        b"%06d" % number for number in range(len(records))
    ]
    assert await producer.send_many(declared.events, 0, [], timeout_s=WAIT_S) == -1


async def test_the_largest_record_fits_and_one_byte_more_is_refused(
    producer: LogProducer, declared: Topics
) -> None:
    value = b"x" * (RECORD_BYTES_MAX - record_bytes(None, b""))
    assert (await producer.send(declared.commands, 0, value)).offset == 0
    with pytest.raises(RefusedError, match="over the limit") as refused:
        await producer.send(declared.commands, 0, value + b"x")
    assert refused.value.code == "PayloadTooLarge"
    with pytest.raises(RefusedError):
        await producer.send_many(declared.events, 0, [Record(None, b"a"), Record(None, value + b"x")])


async def test_places_that_do_not_exist(producer: LogProducer, reader: LogReader, declared: Topics) -> None:
    with pytest.raises(UnavailableError, match="no partition 2") as missing:
        await producer.send(declared.commands, 2, b"x")
    assert not missing.value.unknown
    with pytest.raises(UnavailableError, match="nothing was written") as unknown_topic:
        await producer.send("no-such-topic", 0, b"x", timeout_s=0.5)
    assert not unknown_topic.value.unknown
    assert producer.replaced == 0


async def test_a_produce_error_costs_the_producer_and_not_the_worker(
    producer: LogProducer, reader: LogReader, admin: AIOKafkaAdminClient, topics: Topics
) -> None:
    narrow = f"{topics.namespace}.narrow"
    await admin.create_topics([NewTopic(narrow, 1, 1, topic_configs={"max.message.bytes": "1000"})])
    assert (await producer.send(narrow, 0, b"first")).offset == 0
    with pytest.raises(UnavailableError, match="nothing was written") as refused:
        await producer.send(narrow, 0, b"x" * 5_000)
    assert not refused.value.unknown

    async def accepted() -> bool:
        with suppress(UnavailableError):  # while the new one is being made
            return (await producer.send(narrow, 0, b"second")).offset == 1
        return False

    await _until(accepted)
    assert producer.replaced == 1
    assert [one.value for one in await _all(reader, narrow, 0)] == [b"first", b"second"]


def _skip_sequence_numbers(broken: AIOKafkaProducer, place: TopicPartition) -> None:
    """The broker then answers OutOfOrderSequence, as after a batch that failed before it was sent."""
    broken._txn_manager.increment_sequence_number(place, 5)


def _end_the_sender(broken: AIOKafkaProducer, place: TopicPartition) -> None:
    """Whatever makes aiokafka's sender task end, it never comes back."""

    def fail(**_: object) -> None:
        raise RuntimeError("injected")

    broken._message_accumulator.drain_by_nodes = fail


@pytest.mark.parametrize("breaks", [_skip_sequence_numbers, _end_the_sender])
async def test_a_broken_producer_is_replaced_once(
    producer: LogProducer,
    reader: LogReader,
    declared: Topics,
    breaks: Callable[[AIOKafkaProducer, TopicPartition], None],
) -> None:
    assert (await producer.send(declared.commands, 0, b"first")).offset == 0
    assert producer._line is not None
    breaks(producer._line.producer, TopicPartition(declared.commands, 0))
    answers = await asyncio.gather(
        *(producer.send(declared.commands, 0, b"lost") for _ in range(10)), return_exceptions=True
    )
    assert all(isinstance(answer, UnavailableError) and answer.unknown for answer in answers)

    async def accepted() -> bool:
        with suppress(UnavailableError):
            return (await producer.send(declared.commands, 0, b"second")).offset == 1
        return False

    await _until(accepted)
    assert producer.replaced == 1
    assert producer.stalled_s() == 0.0
    assert [one.value for one in await _all(reader, declared.commands, 0)] == [b"first", b"second"]


async def test_a_dead_sender_is_found_by_the_next_send(producer: LogProducer, declared: Topics) -> None:
    assert producer._line is not None
    producer._line.producer._message_accumulator.fail_all(KafkaError("the sender has ended"))
    with pytest.raises(UnavailableError, match="nothing was written") as refused:
        await producer.send(declared.commands, 0, b"x")
    assert not refused.value.unknown
    assert producer.replaced == 1


async def test_posts_are_bounded_and_never_wait(
    producer: LogProducer, reader: LogReader, declared: Topics
) -> None:
    for number in range(POSTS_MAX + 7):
        producer.post(declared.dead, b"%d" % number)
    assert producer.dropped == 7

    async def arrived() -> bool:
        return (await reader.bounds(declared.dead, 0))[1] == POSTS_MAX

    await _until(arrived)


async def test_the_tail_tells_the_highest_position(
    producer: LogProducer, reader: LogReader, declared: Topics
) -> None:
    assert await reader.tail_position(declared.events, 0) == 0
    await producer.send_many(declared.events, 0, [Record(None, b"none"), Record(None, b"x", (("a", b"1"),))])
    assert await reader.tail_position(declared.events, 0) == 0
    await producer.send_many(declared.events, 0, [_at(number) for number in (*range(1, 3_000), 7, 8)])
    assert await reader.tail_position(declared.events, 0) == 2_999
    await producer.send_many(declared.events, 0, [_at(1) for _ in range(2_000)])
    assert await reader.tail_position(declared.events, 0) == 1


async def test_a_part_of_the_log_is_read(producer: LogProducer, reader: LogReader, declared: Topics) -> None:
    await producer.send_many(declared.events, 1, [Record(None, b"%d" % number) for number in range(5_000)])
    steps = [step async for step in reader.read(declared.events, 1, 10, 4_990)]
    assert [one.offset for step in steps for one in step] == list(range(10, 4_990))
    assert max(len(step) for step in steps) <= 1_000
    assert [step async for step in reader.read(declared.events, 1, 7, 7)] == []


async def test_offsets_without_records_are_passed_over(
    kafka: BrokerHandle, reader: LogReader, declared: Topics, namespace: str
) -> None:
    foreign = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=namespace)
    await foreign.start()
    for value in (b"a", b"b"):
        async with foreign.transaction():
            await foreign.send_and_wait(declared.commands, value, partition=0)
    await foreign.stop()

    async def marked() -> bool:
        return (await reader.bounds(declared.commands, 0))[1] == 4

    await _until(marked)
    assert [(one.offset, one.value) for one in await _all(reader, declared.commands, 0)] == [
        (0, b"a"),
        (2, b"b"),
    ]
    assert [step async for step in reader.read(declared.commands, 0, 3, 4)] == []


async def test_an_offset_that_is_gone_is_refused_with_what_is_there(
    producer: LogProducer, reader: LogReader, admin: AIOKafkaAdminClient, declared: Topics
) -> None:
    await producer.send_many(declared.commands, 0, [Record(None, b"x")] * 10)
    await admin.delete_records({TopicPartition(declared.commands, 0): RecordsToDelete(before_offset=4)})
    assert await reader.bounds(declared.commands, 0) == (4, 10)
    with pytest.raises(LogRefusedError, match=r"Partition 0 of .* has offsets 4 to 9, offset 1 is needed"):
        await anext(reader.read(declared.commands, 0, 1, 10))
    assert [one.offset for one in await _all(reader, declared.commands, 0)] == list(range(4, 10))


async def test_ends_are_asked_by_many_tasks_at_once(
    kafka: BrokerHandle, producer: LogProducer, declared: Topics
) -> None:
    ends = LogEnds(kafka.bootstrap, declared.commands)
    await producer.send(declared.commands, 1, b"x")
    answers = await asyncio.gather(*(ends.end_offsets([0, 1]) for _ in range(50)))
    assert answers == [{0: 0, 1: 1}] * 50
    assert await ends.end_offsets([]) == {}
    await ends.stop()


# ---------------------------------------------------------------- the broker dies


async def test_a_timeout_is_unknown_and_the_record_comes_later(
    kafka: BrokerHandle, producer: LogProducer, declared: Topics
) -> None:
    assert (await producer.send(declared.commands, 0, b"before")).offset == 0
    ends = LogEnds(kafka.bootstrap, declared.commands)
    assert await ends.end_offsets([0]) == {0: 1}
    kafka.kill()
    try:
        with pytest.raises(UnavailableError, match="may be in the log") as timed_out:
            await producer.send(declared.commands, 0, b"during", timeout_s=1.0)
        assert timed_out.value.unknown
        await asyncio.sleep(0.5)
        assert producer.stalled_s() > 1.4, "the asker has gone, the produce is still waiting"
        with pytest.raises(UnavailableError):
            await ends.end_offsets([0])
    finally:
        # Workers and the broker are often started together: the declaration waits.
        _, homes = await asyncio.gather(
            kafka.start(), declare(kafka.bootstrap, declared, partitions=2, wait_s=WAIT_S)
        )
    assert homes == 2

    async def flowing() -> bool:
        return producer.stalled_s() == 0.0

    await _until(flowing)
    assert (await producer.send(declared.commands, 0, b"after", timeout_s=WAIT_S)).offset == 2
    assert producer.replaced == 0
    assert (await ends.end_offsets([0])) == {0: 3}
    await ends.stop()
    async with LogReader.open(kafka.bootstrap) as reader:
        values = [one.value for one in await _all(reader, declared.commands, 0)]
    assert values == [b"before", b"during", b"after"]


async def test_a_producer_stops_in_time_without_a_broker(kafka: BrokerHandle, declared: Topics) -> None:
    producer = LogProducer(kafka.bootstrap, client_id="test")
    await producer.start()
    await producer.send(declared.commands, 0, b"x")
    kafka.kill()
    try:
        with pytest.raises(UnavailableError):
            await producer.send(declared.commands, 0, b"y", timeout_s=0.2)
        started = time.monotonic()
        await producer.stop(0.5)
        assert time.monotonic() - started < 5

        async def alone() -> bool:
            return len(asyncio.all_tasks()) == 1

        await _until(alone)
        with pytest.raises(UnavailableError):
            await producer.send(declared.commands, 0, b"z")
    finally:
        await kafka.start()
