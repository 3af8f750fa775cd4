"""A real single-node Apache Kafka (KRaft) as a child process.

It keeps its data: started again on the same folder it has the same cluster id, topics and records.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ojs_stream.dev.java import find_java, kafka_class_path
from ojs_stream.dev.process import POLL_S, ChildProcess, ServerError, free_port
from ojs_stream.stamp import new_token

START_TIMEOUT_S = 60.0
STOP_GRACE_S = 20.0
MESSAGE_BYTES_MAX = 8 * 1024 * 1024
FETCH_HEADROOM_BYTES = 1024 * 1024

_JVM = (
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Xshare:auto",
    "-Djava.awt.headless=true",
)

_LOGGING = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""


def broker_settings(*, port: int, controller_port: int, data: Path) -> dict[str, str]:
    """Give the ``server.properties`` of a combined broker and controller for one developer."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "log.dirs": str(data / "log"),
        "auto.create.topics.enable": "false",
        # After a kill -9 the new broker must wait out the session of the old one: 9 s by default.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "message.max.bytes": str(MESSAGE_BYTES_MAX + FETCH_HEADROOM_BYTES),
        "replica.fetch.max.bytes": str(MESSAGE_BYTES_MAX + FETCH_HEADROOM_BYTES),
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    }


def new_cluster_id() -> str:
    """Give 16 random bytes in Kafka's own spelling (URL-safe base64, 22 characters).

    The first character is fixed: one time in 64 it would be ``-``, which the storage tool takes for an option.
    """
    return "K" + base64.urlsafe_b64encode(bytes.fromhex(new_token(16))).decode().rstrip("=")[1:]


class EmbeddedKafka:
    """Apache Kafka on a loopback port; ``settings`` are broker properties that override ours.

    ``scram`` are users of a new data folder, as the storage tool has them:
    ``SCRAM-SHA-256=[name=...,password=...]``.
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        scram: Sequence[str] = (),
    ) -> None:
        self.data = data.resolve()
        self.port = port or free_port()
        self._settings = dict(settings or {})
        self._scram = [word for user in scram for word in ("--add-scram", user)]
        self._child: ChildProcess | None = None

    @property
    def bootstrap(self) -> str:
        """The value for ``KAFKA_BROKERS``."""
        return f"127.0.0.1:{self.port}"

    @property
    def process(self) -> ChildProcess:
        """The child process of the broker, for its pid, signals and log."""
        if self._child is None:
            raise ServerError("Kafka has not been started.")
        return self._child

    async def start(self) -> None:
        """Start the broker (a new data folder is formatted first) and wait until it answers with metadata."""
        java, jars = await asyncio.to_thread(find_java), await kafka_class_path()
        self._write_settings()
        logging = f"-Dlog4j2.configurationFile={self.data / 'log4j2.properties'}"
        command = [str(java), *_JVM, logging, "-cp", os.pathsep.join(str(jar) for jar in jars)]
        if not (self.data / "log" / "meta.properties").exists():
            await self._format(command)
        self._child = self._java("Kafka", [*command, "kafka.Kafka", self._properties])
        self._child.start()
        await self._until_ready(self._child)

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Stop the broker: SIGTERM, and SIGKILL after ``grace_s``."""
        if self._child is not None:
            await self._child.stop(grace_s)

    def kill(self) -> None:
        """SIGKILL the broker, for fault tests."""
        self.process.kill()

    async def restart(self) -> None:
        """Stop the broker if it runs and start it again on the same port and data."""
        await self.stop()
        await self.start()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:  # a cancelled start must not leave a broker behind either
            await self.stop(0)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def _properties(self) -> Path:
        return self.data / "server.properties"

    def _java(self, name: str, argv: Sequence[str | Path]) -> ChildProcess:
        return ChildProcess(name, argv, log=self.data / "kafka.log", cwd=self.data)

    def _write_settings(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        settings = broker_settings(port=self.port, controller_port=free_port(), data=self.data) | self._settings
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        (self.data / "log4j2.properties").write_text(_LOGGING)

    async def _format(self, command: Sequence[str]) -> None:
        words = ["format", "--cluster-id", new_cluster_id(), "--config", str(self._properties), *self._scram]
        tool = self._java("Kafka's storage tool", [*command, "kafka.tools.StorageTool", *words])
        tool.start()
        if await tool.finish(START_TIMEOUT_S) != 0:
            raise tool.ended()

    async def _until_ready(self, child: ChildProcess) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not await self._answers():
            if not child.alive:
                raise child.ended()
            if time.monotonic() > deadline:
                raise child.silent(START_TIMEOUT_S)
            await asyncio.sleep(POLL_S * 5)

    async def _answers(self) -> bool:
        """Ask for real metadata, not only for an open port."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=5000)
        try:
            await admin.start()
            cluster = await admin.describe_cluster()
        except KafkaError:
            return False
        finally:
            await admin.close()
        return bool(cluster["brokers"])
