"""A TCP proxy between a worker and a server that can be slow, cut, half open or dripping.

It knows nothing of what it carries. What is lost here is lost as in a network: without a word to anybody.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Literal, Self

Mode = Literal["open", "latency", "cut", "half_open", "drip"]
LATENCY_S = 0.2
DRIP_BYTES = 512
DRIP_EVERY_S = 0.02
"""A dripping line moves 25 KiB a second."""
CHUNK_BYTES = 64 * 1024


class _Pair:
    """Both directions of one connection."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near, self.far = near, far
        self.dead = False
        """Its far end is gone and nobody told the near one: nothing passes any more, not even later."""

    def close(self) -> None:
        """A clean end, at both sides."""
        for writer in (self.near, self.far):
            writer.close()

    def reset(self) -> None:
        """An end as by a cable that is pulled: what was under way is gone."""
        for writer in (self.near, self.far):
            writer.transport.abort()


class Proxy:
    """Listens on a port of its own and carries everything to ``target_port`` of this machine."""

    def __init__(self, target_port: int, *, port: int = 0) -> None:
        self.port = port
        self.mode: Mode = "open"
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self._reset_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def set(self, mode: Mode) -> None:
        """From now on. ``cut`` resets every connection and refuses new ones, ``half_open`` lets them hang."""
        if mode == "cut":
            self._reset_all()
        for pair in self._pairs:
            pair.dead = pair.dead or mode == "half_open"
        self.mode = mode

    @property
    def connections(self) -> int:
        """How many are open now, dead ones as well: only their near end may end those."""
        return len(self._pairs)

    def _reset_all(self) -> None:
        for pair in list(self._pairs):
            pair.reset()
        self._pairs.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._carry(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _carry(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        if self.mode == "cut":
            to_near.transport.abort()
            return
        try:
            far, to_far = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            to_near.transport.abort()
            return
        pair = _Pair(to_near, to_far)
        pair.dead = self.mode == "half_open"
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump(near, to_far, pair), self._pump(far, to_near, pair))
        finally:
            self._pairs.discard(pair)
            pair.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: _Pair) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._pass(data, writer, pair)
        # A dead connection says nothing of its end to anybody; a living one ends as a whole.
        if not pair.dead or writer is pair.far:
            pair.close()

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter, pair: _Pair) -> None:
        if self.mode == "latency":
            await asyncio.sleep(LATENCY_S)
        while self.mode == "drip" and data and not pair.dead:
            await self._write(data[:DRIP_BYTES], writer)
            data = data[DRIP_BYTES:]
            await asyncio.sleep(DRIP_EVERY_S)
        if data and not pair.dead:
            await self._write(data, writer)

    @staticmethod
    async def _write(data: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
