"""Connections to a Redis that was restarted: nobody is handed one that has ended meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from ojs_stream.store.connections import open_reads, open_redis
from tests.support.servers import RedisHandle

POOLED = 4


@pytest.mark.parametrize("opened", [open_redis, open_reads])
async def test_idle_connections_of_a_restarted_redis_fail_nobody(
    opened: Callable[[str], Redis], own_redis: RedisHandle
) -> None:
    redis = opened(own_redis.url)

    async def ping_all() -> list[object]:
        return await asyncio.gather(*(redis.ping() for _ in range(POOLED)))  # type: ignore[misc]

    assert await ping_all() == [True] * POOLED
    own_redis.kill()
    await own_redis.start()
    assert await ping_all() == [True] * POOLED
    await redis.aclose()
