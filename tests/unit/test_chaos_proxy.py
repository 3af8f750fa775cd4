"""The proxy of the fault tests does what it says: carries, delays, drips, cuts, and hangs without a word."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tools.chaos.proxy import DRIP_BYTES, DRIP_EVERY_S, LATENCY_S, Proxy

SHORT_S = 0.3
LONG_S = 10.0


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


class Line:
    """A client's connection through the proxy."""

    @classmethod
    async def to(cls, proxy: Proxy) -> Line:
        line = cls()
        line.reader, line.writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        return line

    async def say(self, data: bytes, within_s: float = LONG_S) -> bytes:
        self.writer.write(data)
        async with asyncio.timeout(within_s):
            return await self.reader.readexactly(len(data))

    async def ended(self) -> bool:
        async with asyncio.timeout(LONG_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionResetError:
                return True

    def close(self) -> None:
        self.writer.close()


async def test_it_carries_both_ways(proxy: Proxy) -> None:
    line = await Line.to(proxy)
    assert await line.say(b"x" * 100_000) == b"x" * 100_000
    assert proxy.connections == 1
    line.close()


async def test_a_slow_line_takes_its_time_in_each_direction(proxy: Proxy) -> None:
    line = await Line.to(proxy)
    proxy.set("latency")
    begun = time.monotonic()
    assert await line.say(b"hello") == b"hello"
    assert time.monotonic() - begun >= 2 * LATENCY_S
    line.close()


async def test_a_dripping_line_brings_all_bit_by_bit(proxy: Proxy) -> None:
    line = await Line.to(proxy)
    proxy.set("drip")
    begun = time.monotonic()
    assert await line.say(b"y" * DRIP_BYTES * 5) == b"y" * DRIP_BYTES * 5
    assert time.monotonic() - begun >= 4 * DRIP_EVERY_S
    line.close()


async def test_a_cut_ends_all_and_lets_nobody_in_until_it_is_mended(proxy: Proxy) -> None:
    line = await Line.to(proxy)
    await line.say(b"before")
    proxy.set("cut")
    assert await line.ended()
    refused = await Line.to(proxy)
    assert await refused.ended()
    proxy.set("open")
    again = await Line.to(proxy)
    assert await again.say(b"after") == b"after"
    for each in (line, refused, again):
        each.close()


async def test_a_half_open_line_hangs_for_good_and_a_new_one_works_once_it_is_mended(proxy: Proxy) -> None:
    old = await Line.to(proxy)
    await old.say(b"before")
    proxy.set("half_open")
    for line in (old, hanging := await Line.to(proxy)):
        with pytest.raises(TimeoutError):
            await line.say(b"anybody", SHORT_S)
    proxy.set("open")
    with pytest.raises(TimeoutError):
        await old.say(b"still", SHORT_S)
    new = await Line.to(proxy)
    assert await new.say(b"after") == b"after"
    for each in (old, hanging, new):
        each.close()


async def test_without_a_server_behind_it_a_connection_ends_at_once(proxy: Proxy) -> None:
    async with Proxy(1) as nowhere:
        line = await Line.to(nowhere)
        assert await line.ended()
        line.close()
