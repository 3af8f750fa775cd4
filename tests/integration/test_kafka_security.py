"""A Kafka that lets nobody in without a login or a certificate: our clients and a whole worker come in."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from ojs_stream.errors import UnavailableError
from ojs_stream.log.connection import KafkaAddress
from ojs_stream.log.intake import BulkIntake
from ojs_stream.log.producer import LogProducer
from ojs_stream.log.reader import LogEnds, LogReader
from ojs_stream.log.topics import Topics, declare
from ojs_stream.settings import Settings
from tests.conftest import WorkerFactory
from tests.support.client import Client
from tests.support.secure_kafka import PASSWORD, SecureKafka
from tests.support.servers import RedisHandle, clean_env

WAIT_S = 30.0
WAYS = [
    ("LOGIN", "PLAIN"),
    ("LOGIN", "SCRAM-SHA-256"),
    ("LOGIN", "OAUTHBEARER"),
    ("TLSLOGIN", "SCRAM-SHA-512"),
    ("TLSLOGIN", "PLAIN"),
    ("MUTUAL", "PLAIN"),
]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    kafka = SecureKafka(tmp_path_factory.mktemp("secure"))
    asyncio.run(kafka.broker.start())
    yield kafka
    asyncio.run(kafka.broker.stop())


def address(env: dict[str, str]) -> KafkaAddress:
    return Settings.from_env(env).kafka


@pytest.mark.parametrize(("listener", "mechanism"), WAYS)
async def test_every_client_of_ours_comes_in(
    secure: SecureKafka, namespace: str, listener: str, mechanism: str
) -> None:
    kafka, topics = address(secure.env(listener, mechanism)), Topics(namespace)
    await declare(kafka, topics, partitions=1, wait_s=WAIT_S)
    producer = LogProducer(kafka, client_id="test")
    await producer.start()
    try:
        await producer.send(topics.commands_bulk, 0, b"hello")
    finally:
        await producer.stop(5)
    async with LogReader.open(kafka) as reader:
        assert await reader.bounds(topics.commands_bulk, 0) == (0, 1)
    ends = LogEnds(kafka, topics.commands_bulk)
    assert await ends.end_offsets([0]) == {0: 1}
    await ends.stop()
    intake = BulkIntake(kafka, topics, session_timeout_s=6, heartbeat_s=0.5)
    try:
        async with asyncio.timeout(WAIT_S):
            while not (taken := await intake.take(10)):
                continue
        assert [record.value for record in taken] == [b"hello"]
    finally:
        await intake.stop()


@pytest.mark.parametrize(
    ("listener", "changed"),
    [
        ("LOGIN", {"KAFKA_SASL_PASSWORD": "wrong"}),
        ("TLSLOGIN", {"KAFKA_SSL_CA_FILE": "other-ca.pem"}),
        ("MUTUAL", {"KAFKA_SSL_CERT_FILE": "", "KAFKA_SSL_KEY_FILE": ""}),
    ],
)
async def test_who_may_not_come_in_is_told_so(
    secure: SecureKafka, namespace: str, listener: str, changed: dict[str, str]
) -> None:
    env = secure.env(listener)
    for name, value in changed.items():
        env[name] = str(secure.folder / value) if value.endswith(".pem") else value
    with pytest.raises(UnavailableError) as refused:
        await declare(address(env), Topics(namespace), partitions=1, wait_s=0.5)
    assert env["KAFKA_BROKERS"] in str(refused.value)
    assert PASSWORD not in str(refused.value)


async def test_a_worker_and_the_tools_work_by_scram_over_tls(
    secure: SecureKafka, worker_factory: WorkerFactory, namespace: str, redis_server: RedisHandle
) -> None:
    ours = secure.env("TLSLOGIN", "SCRAM-SHA-512")
    worker = await worker_factory(partitions=2, env=ours)
    async with Client() as client:
        job = await client.enqueue(worker.url, "safe")
        (claimed,) = await client.fetch(worker.url, ["safe"])
        assert claimed["id"] == job["id"]
    env = clean_env() | ours | {"OJS_NAMESPACE": namespace, "REDIS_URL": redis_server.url}
    for command in ("verify", "snapshot"):
        tool = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ojs_stream.cli", command, env=env, stderr=asyncio.subprocess.PIPE
        )
        _, said = await tool.communicate()
        assert tool.returncode == 0, said.decode()
    assert PASSWORD not in worker.log.read_text()
