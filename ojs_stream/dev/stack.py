"""Whatever of Kafka and Redis nobody has given: started below one data folder, stopped in reverse order."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import IO, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ojs_stream.dev.java import DOWNLOADS_EXPECTED, kafka_class_path
from ojs_stream.dev.kafka import EmbeddedKafka
from ojs_stream.dev.process import ChildProcess, ServerError
from ojs_stream.dev.redis import EmbeddedRedis


class DevStack:
    """Kafka and Redis for one developer: ``env`` says what exists already, the rest is embedded.

    Use it as an async context manager; inside, ``kafka_brokers`` and ``redis_url`` name the servers.
    """

    def __init__(self, data: Path, *, env: Mapping[str, str], console: Console | None = None) -> None:
        self.data = data.resolve()
        self.kafka_brokers = env.get("KAFKA_BROKERS", "")
        self.redis_url = env.get("REDIS_URL", "")
        self.processes: list[ChildProcess] = []
        self._console = console or Console(stderr=True)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.data.mkdir(parents=True, exist_ok=True)
        async with AsyncExitStack() as stack:
            self._lock(stack)
            if not self.kafka_brokers:
                await self._start_kafka(stack)
            if not self.redis_url:
                await self._start_redis(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start_kafka(self, stack: AsyncExitStack) -> None:
        with self._step("Kafka 4.1: fetching its jars", total=DOWNLOADS_EXPECTED) as progress:
            await kafka_class_path(progress)
        with self._step("Kafka 4.1: starting"):
            kafka = await stack.enter_async_context(EmbeddedKafka(self.data / "kafka"))
        self.kafka_brokers = kafka.bootstrap
        self.processes.append(kafka.process)

    async def _start_redis(self, stack: AsyncExitStack) -> None:
        with self._step("Redis: starting"):
            server = await stack.enter_async_context(EmbeddedRedis(self.data / "redis", durable=True))
        self.redis_url = server.url
        self.processes.append(server.process)

    @contextmanager
    def _step(self, text: str, *, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show one step: a bar on a terminal (moving, when the total is unknown), a line elsewhere."""
        if not self._console.is_terminal:
            self._console.print(text, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as bar:
            task = bar.add_task(text.ljust(30), total=total)
            yield lambda done: bar.update(task, completed=done)
            bar.update(task, total=1, completed=1)

    def _lock(self, stack: AsyncExitStack) -> None:
        """Refuse a second server on the same data: two brokers on one log folder would be a mess."""
        lock: IO[str] = stack.enter_context((self.data / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError(
                f"{self.data} is used by another `ojs-stream dev`. "
                "Stop that one, or choose another folder with --data."
            ) from None
