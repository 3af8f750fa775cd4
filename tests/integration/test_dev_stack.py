"""The embedded servers are real: they answer, keep their data over a kill, and leave no process behind."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis.asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from ojs_stream.dev.process import ChildProcess, ServerError
from ojs_stream.dev.stack import DevStack
from tests.support.servers import BrokerHandle, RedisHandle, make_redis

DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""
RECORDS = [b"one", b"two", b"three"]


async def test_kafka_keeps_its_records_over_a_kill(kafka: BrokerHandle, namespace: str) -> None:
    topic = f"{namespace}.kept"
    await _create(kafka.bootstrap, topic)
    await _produce(kafka.bootstrap, topic)

    kafka.kill()
    await kafka.start()

    assert await _read(kafka.bootstrap, topic) == RECORDS


async def test_kafka_keeps_its_records_over_a_restart(kafka: BrokerHandle, namespace: str) -> None:
    topic = f"{namespace}.kept"
    await _create(kafka.bootstrap, topic)
    await _produce(kafka.bootstrap, topic)

    await kafka.restart()

    assert await _read(kafka.bootstrap, topic) == RECORDS


async def test_redis_answers_and_forgets_over_a_kill(redis_server: RedisHandle, namespace: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        await client.set(namespace, "here")
        assert await client.get(namespace) == b"here"
        assert (await client.config_get("maxmemory-policy"))["maxmemory-policy"] == "noeviction"

    redis_server.kill()
    await redis_server.start()

    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        assert await client.get(namespace) is None


async def test_durable_redis_keeps_its_keys_over_a_restart(tmp_path: Path) -> None:
    server = make_redis(tmp_path, durable=True)
    await server.start()
    try:
        async with redis.asyncio.Redis.from_url(server.url) as client:
            await client.set("key", "kept")
        await server.restart()
        async with redis.asyncio.Redis.from_url(server.url) as client:
            assert await client.get("key") == b"kept"
    finally:
        await server.stop()


async def test_stack_starts_only_what_is_missing(kafka: BrokerHandle, tmp_path: Path) -> None:
    async with DevStack(tmp_path, env={"KAFKA_BROKERS": kafka.bootstrap}) as stack:
        assert stack.kafka_brokers == kafka.bootstrap
        assert [process.name for process in stack.processes] == ["Redis"]
        redis_process = stack.processes[0]
        assert redis_process.alive
    assert not redis_process.alive


async def test_stack_refuses_a_folder_in_use(tmp_path: Path) -> None:
    env = {"KAFKA_BROKERS": "elsewhere:9092", "REDIS_URL": "redis://elsewhere"}
    async with DevStack(tmp_path, env=env):
        with pytest.raises(ServerError, match="is used by another"):
            await DevStack(tmp_path, env=env).__aenter__()


async def test_child_ends_when_it_is_told(tmp_path: Path) -> None:
    child = ChildProcess("sleeper", ["sleep", "60"], log=tmp_path / "log")
    child.start()
    assert child.alive
    assert await child.stop(grace_s=10)
    assert child.exit_code == -signal.SIGTERM


async def test_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    child = ChildProcess("deaf", [sys.executable, "-c", DEAF], log=tmp_path / "log")
    child.start()
    await _until(lambda: child.lines() == ["deaf"])
    assert not await child.stop(grace_s=0.1)
    assert child.exit_code == -signal.SIGKILL


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux can tie a child to its parent's death"
)
async def test_child_dies_with_its_killed_parent(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import pathlib, time
        from ojs_stream.dev.process import ChildProcess
        child = ChildProcess("sleeper", ["sleep", "60"], log=pathlib.Path({str(tmp_path / "log")!r}))
        child.start()
        print(child.pid, flush=True)
        time.sleep(60)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        child_pid = int(parent.stdout.readline())
    assert _runs(child_pid)
    parent.kill()
    parent.wait(10)
    await _until(lambda: not _runs(child_pid))


def _runs(pid: int) -> bool:
    """Whether the process exists and is not a zombie that waits for its (container's) init."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


async def _until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.01)


async def _create(bootstrap: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def _produce(bootstrap: str, topic: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        for record in RECORDS:
            await producer.send_and_wait(topic, record)


async def _read(bootstrap: str, topic: str) -> list[bytes | None]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    async with consumer:
        consumer.assign([TopicPartition(topic, 0)])
        return [(await asyncio.wait_for(consumer.getone(), 10)).value for _ in RECORDS]
