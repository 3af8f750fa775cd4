"""Real servers for the tests, behind one interface, started once a session and only when a test asks.

They are the embedded ones. Where those cannot run (no wheels for the platform), containers take their place:
a Docker engine is needed then. ``OJS_TEST_SERVERS=docker`` or ``=embedded`` decides it by hand.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self

from ojs_stream.dev.java import find_java
from ojs_stream.dev.kafka import EmbeddedKafka
from ojs_stream.dev.process import ServerError, free_port
from ojs_stream.dev.redis import EmbeddedRedis, find_server
from ojs_stream.dev.worker import READY_TIMEOUT_S, WorkerProcess, worker_argv

WORKER_STOP_GRACE_S = 20.0


class ServerHandle(Protocol):
    """A server that a test may stop, kill and start again on the same port with the same data."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def kill(self) -> None: ...

    async def restart(self) -> None: ...


class BrokerHandle(ServerHandle, Protocol):
    """A Kafka."""

    @property
    def bootstrap(self) -> str: ...

    def fill_disk(self) -> None:
        """From now on there is no room for another byte of the log; a start after this has room again."""


class RedisHandle(ServerHandle, Protocol):
    """A Redis or Valkey."""

    @property
    def url(self) -> str: ...


class FillableKafka(EmbeddedKafka):
    """The embedded Kafka with a disk that can be full, for any user and without a file system of its own."""

    def fill_disk(self) -> None:
        """Every write to a file fails: EFBIG in place of ENOSPC, and the broker does the same on both.

        It halts, since its only log directory has failed. Where a process has no such limit it is killed.
        """
        if sys.platform == "linux":
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        else:
            self.kill()


def make_broker(data: Path) -> BrokerHandle:
    """A Kafka that is not started yet."""
    if _use_docker():
        from tests.support.containers import ContainerKafka

        return ContainerKafka()
    return FillableKafka(data / "kafka")


def make_redis(data: Path, *, durable: bool = False) -> RedisHandle:
    """A Redis that is not started yet; ``durable`` turns the append-only file on."""
    if _use_docker():
        from tests.support.containers import ContainerRedis

        return ContainerRedis(durable=durable)
    return EmbeddedRedis(data / "redis", durable=durable)


def _use_docker() -> bool:
    wish = os.environ.get("OJS_TEST_SERVERS", "")
    if wish:
        return wish == "docker"
    try:
        find_java()
        find_server()
    except ServerError:
        return True
    return False


class Worker:
    """A real ``faust -A ojs_stream worker`` in a process of its own, with its log in a file."""

    def __init__(
        self,
        folder: Path,
        *,
        brokers: str,
        redis_url: str,
        namespace: str,
        partitions: int = 4,
        env: Mapping[str, str] | None = None,
        app: str = "ojs_stream",
        code: Path | None = None,
    ) -> None:
        """``app``: another Faust app than the server's own; ``code``: a folder with another state of the code."""
        ours = {
            "KAFKA_BROKERS": brokers,
            "REDIS_URL": redis_url,
            "OJS_NAMESPACE": namespace,
            "OJS_PARTITIONS": str(partitions),
            "OJS_TEST_MODE": "1",
        }
        self.brokers = brokers
        self.port = free_port()
        argv = worker_argv(host="127.0.0.1", port=self.port, app=app)
        settings = {**clean_env(), **ours, **(env or {})}
        if code is not None:
            settings["PYTHONPATH"] = str(code)
        self._worker = WorkerProcess(folder, port=self.port, env=settings, argv=argv, cwd=code)
        self.process = self._worker.process
        self.url = self._worker.url
        self.log = self.process.log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.alive

    async def start(self, timeout_s: float = READY_TIMEOUT_S) -> Self:
        """Start and wait until ``/ready`` answers 200."""
        await self._worker.start(timeout_s)
        return self

    def launch(self) -> None:
        """Start without waiting; ``wait_ready`` does that later."""
        self.process.start()

    async def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        await self._worker.wait_ready(timeout_s)

    async def terminate(self, grace_s: float = WORKER_STOP_GRACE_S) -> bool:
        """SIGTERM and wait; True when the worker ended by itself within ``grace_s``."""
        return await self.process.stop(grace_s)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def stop_cont(self, *, stopped: bool) -> None:
        """SIGSTOP (``stopped=True``) or SIGCONT: a zombie in the making."""
        self.process.signal(signal.SIGSTOP if stopped else signal.SIGCONT)

    def log_tail(self, lines: int = 60) -> str:
        return self.process.tail(lines)


def clean_env() -> dict[str, str]:
    """The environment without anything that would steer a server: a developer's shell must not leak in."""
    steering = ("OJS_", "KAFKA_", "REDIS_", "FAUST_")
    return {key: value for key, value in os.environ.items() if not key.startswith(steering)}
