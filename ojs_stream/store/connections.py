"""Connections to Redis: one for commits and rounds, a bounded pool for the reads of views."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import hiredis
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError  # noqa: A004 - redis-py's own name

IO_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
READ_CONNECTIONS_MAX = 32


class _Ours:
    """What redis-py's asyncio connections do too slowly, or too late."""

    _reader: asyncio.StreamReader | None

    async def can_read(self) -> bool:
        """Whether there is something to read, which a pool asks before it hands a connection out.

        A Redis that was restarted has closed all idle connections, and redis-py hands each of them out once
        more, to fail its user: an end that was heard is told here, and the pool connects anew.
        """
        if self._reader is not None and self._reader.at_eof():
            raise ConnectionError("Redis has closed this connection while it was idle.")
        return bool(await super().can_read())  # type: ignore[misc]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        """The bytes of a pipeline: packed in Python, a commit takes 7 times as long as with hiredis."""
        return [hiredis.pack_command(tuple(command)) for command in commands]


def open_redis(url: str) -> Redis:
    """For the rounds. It never repeats by itself: what a repeat may do is the caller's knowledge."""
    return Redis.from_pool(_with_ours(ConnectionPool.from_url(url, **_options())))


def open_reads(url: str) -> Redis:
    """For the views: their reads share a bounded pool; they wait for each other, never for a commit."""
    pool = BlockingConnectionPool.from_url(
        url, max_connections=READ_CONNECTIONS_MAX, timeout=IO_TIMEOUT_S, **_options()
    )
    return Redis.from_pool(_with_ours(pool))


def _options() -> dict[str, Any]:
    return {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": IO_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
    }


def _with_ours(pool: ConnectionPool) -> ConnectionPool:
    # The URL has chosen the class (plain, TLS, Unix socket).
    chosen = pool.connection_class
    pool.connection_class = type(f"Our{chosen.__name__}", (_Ours, chosen), {})
    return pool
