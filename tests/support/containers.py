"""Kafka and Redis in containers, for machines with a Docker engine and without our wheels.

Ports are bound one to one, so that a restarted container is found where it was.
"""

from __future__ import annotations

import asyncio

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from ojs_stream.dev.process import free_port

KAFKA_IMAGE = "apache/kafka:4.1.0"
REDIS_IMAGE = "redis:8-alpine"


class _Container:
    """One container behind the interface of ``ServerHandle``."""

    def __init__(self, container: DockerContainer) -> None:
        self._container = container
        self._created = False

    async def start(self) -> None:
        if self._created:
            await asyncio.to_thread(self._container.get_wrapped_container().start)
            return
        await asyncio.to_thread(self._container.start)
        self._created = True

    async def stop(self) -> None:
        if self._created:
            await asyncio.to_thread(self._container.get_wrapped_container().stop)

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()

    async def restart(self) -> None:
        await self.stop()
        await self.start()


class ContainerKafka(_Container):
    """Apache Kafka (KRaft) in a container."""

    def __init__(self) -> None:
        port = free_port()
        container = DockerContainer(KAFKA_IMAGE).with_bind_ports(port, port)
        settings = {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_LISTENERS": f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://127.0.0.1:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@127.0.0.1:9093",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "KAFKA_BROKER_SESSION_TIMEOUT_MS": "3000",
            "KAFKA_BROKER_HEARTBEAT_INTERVAL_MS": "500",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
            "KAFKA_MESSAGE_MAX_BYTES": str(9 * 1024 * 1024),
        }
        for key, value in settings.items():
            container = container.with_env(key, value)
        super().__init__(container.waiting_for(LogMessageWaitStrategy("Kafka Server started")))
        self.bootstrap = f"127.0.0.1:{port}"

    def fill_disk(self) -> None:
        """A broker whose only disk is full halts: a container's limits cannot be changed from outside."""
        self.kill()


class ContainerRedis(_Container):
    """Redis in a container."""

    def __init__(self, *, durable: bool) -> None:
        port = free_port()
        words = f"redis-server --save '' --appendonly {'yes' if durable else 'no'} --maxmemory-policy noeviction"
        container = DockerContainer(REDIS_IMAGE).with_bind_ports(6379, port).with_command(words)
        super().__init__(container.waiting_for(LogMessageWaitStrategy("Ready to accept connections")))
        self.url = f"redis://127.0.0.1:{port}/0"
