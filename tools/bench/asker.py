"""A frugal HTTP client: keep-alive connections, one request each at a time, answers as bytes.

It costs the machine that it shares with the server a tenth of what a comfortable client costs.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import NamedTuple

from tools.bench.wire import Answer, WireError, post, read_answer

NO_ANSWER = 0
TIMEOUT_S = 30.0


class Said(NamedTuple):
    """One answer; status 0 when the connection broke or nothing came in time."""

    status: int
    body: bytes
    took_s: float

    @property
    def accepted(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300


class _Line(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[tuple[Answer, bytes]] | None = None
        self._buffer = b""

    @property
    def usable(self) -> bool:
        """Whether the server has not closed it."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes) -> asyncio.Future[tuple[Answer, bytes]]:
        """Send; the future has the answer."""
        assert self._transport is not None
        self._buffer = b""
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiting

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._waiting is None or self._waiting.done():
            self.close()
            return
        try:
            answer = read_answer(self._buffer)
        except WireError as error:
            self._waiting.set_exception(ConnectionError(str(error)))
            self.close()
            return
        if answer is not None:
            self._waiting.set_result((answer, self._buffer[answer.body_start : answer.end]))
            if answer.closes:
                self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(exc or ConnectionError("the server closed the connection"))


class Asker:
    """As many connections to one server as there are requests at once."""

    def __init__(self, port: int, *, host: str = "127.0.0.1") -> None:
        self._host = host
        self._port = port
        self._free: list[_Line] = []

    async def post(self, path: str, body: bytes) -> Said:
        """Send a POST and wait for its answer. Never raises for what the server does."""
        return await self._ask(post(path, body, host=self._authority))

    async def get(self, path: str) -> Said:
        """Send a GET and wait for its answer. Never raises for what the server does."""
        head = f"GET {path} HTTP/1.1\r\nHost: {self._authority}\r\nOJS-Version: 1.0\r\n\r\n"
        return await self._ask(head.encode())

    def close(self) -> None:
        """Close what is not in use."""
        for line in self._free:
            line.close()
        self._free.clear()

    @property
    def _authority(self) -> str:
        return f"{self._host}:{self._port}"

    async def _ask(self, request: bytes) -> Said:
        begun = perf_counter()
        line: _Line | None = None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                line = await self._line()
                answer, body = await line.ask(request)
        except (OSError, TimeoutError) as error:
            if line is not None:
                line.close()
            return Said(NO_ANSWER, repr(error).encode(), perf_counter() - begun)
        self._free.append(line)
        return Said(answer.status, body, perf_counter() - begun)

    async def _line(self) -> _Line:
        while self._free:
            line = self._free.pop()
            if line.usable:
                return line
        _, line = await asyncio.get_running_loop().create_connection(_Line, self._host, self._port)
        return line
