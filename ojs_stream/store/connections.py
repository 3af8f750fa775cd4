"""Connections to Redis: one for commits and rounds, a bounded pool for the reads of views."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import hiredis
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

IO_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
READ_CONNECTIONS_MAX = 32


class _PackedInC:
    """redis-py's asyncio connections pack commands in Python: for a commit, 7 times the time of hiredis."""

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        """The bytes of a pipeline."""
        return [hiredis.pack_command(tuple(command)) for command in commands]


def open_redis(url: str) -> Redis:
    """For the rounds. It never repeats by itself: what a repeat may do is the caller's knowledge."""
    return Redis.from_pool(_packing(ConnectionPool.from_url(url, **_options())))


def open_reads(url: str) -> Redis:
    """For the views: their reads share a bounded pool; they wait for each other, never for a commit."""
    pool = BlockingConnectionPool.from_url(
        url, max_connections=READ_CONNECTIONS_MAX, timeout=IO_TIMEOUT_S, **_options()
    )
    return Redis.from_pool(_packing(pool))


def _options() -> dict[str, Any]:
    return {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": IO_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
    }


def _packing(pool: ConnectionPool) -> ConnectionPool:
    # The URL has chosen the class (plain, TLS, Unix socket); it only gets another packer.
    chosen = pool.connection_class
    pool.connection_class = type(f"Packed{chosen.__name__}", (_PackedInC, chosen), {})
    return pool
