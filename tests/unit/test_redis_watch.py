"""What a worker concludes from what Redis says of itself."""

from __future__ import annotations

from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from ojs_stream.errors import SettingsError, UnavailableError
from ojs_stream.store import watch
from ojs_stream.store.watch import RedisWatch

FINE = {"maxmemory_policy": "noeviction", "maxmemory": 1000, "used_memory": 1010, "mem_not_counted_for_evict": 10}


class SaysRedis:
    """Answers INFO with ``says``, or raises it."""

    def __init__(self, says: Any) -> None:
        self.says = says

    async def info(self, section: str) -> Any:
        assert section == "memory"
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def watching(says: Any) -> tuple[SaysRedis, RedisWatch]:
    redis = SaysRedis(says)
    return redis, RedisWatch(cast("Any", redis))


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random"])
async def test_a_redis_that_evicts_is_refused_at_start(policy: str) -> None:
    _, looks = watching({**FINE, "maxmemory_policy": policy, "maxmemory": 0})
    with pytest.raises(SettingsError) as caught:
        await looks.begin()
    assert str(caught.value) == (
        f"Redis has maxmemory-policy {policy}, it must be noeviction: any other one deletes jobs without a word "
        "when memory runs out. Set it with CONFIG SET maxmemory-policy noeviction, and in redis.conf"
    )


@pytest.mark.parametrize("says", [FINE, {}, {**FINE, "maxmemory": 0}, RedisConnectionError("away")])
async def test_any_other_redis_may_start(says: Any) -> None:
    _, looks = watching(says)
    await looks.begin()
    looks.check()


async def test_a_full_redis_is_told_until_it_has_room() -> None:
    redis, looks = watching({**FINE, "used_memory": 1011})
    await looks.run_once()
    with pytest.raises(
        UnavailableError, match=r"out of memory \(used_memory 1001, maxmemory 1000 bytes\)"
    ) as caught:
        looks.check()
    assert not caught.value.unknown
    with pytest.raises(UnavailableError, match="raise maxmemory"):
        await looks.latency_ms()
    redis.says = FINE
    await looks.run_once()
    looks.check()
    assert await looks.latency_ms() >= 0


async def test_a_policy_that_changes_later_stops_what_would_be_written() -> None:
    redis, looks = watching(FINE)
    await looks.begin()
    redis.says = {**FINE, "maxmemory_policy": "allkeys-lfu"}
    await looks.run_once()
    with pytest.raises(UnavailableError, match="maxmemory-policy allkeys-lfu, it must be noeviction"):
        looks.check()


async def test_a_lost_redis_is_told_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(watch, "monotonic", lambda: now[0])
    redis, looks = watching(RedisConnectionError("gone"))
    await looks.run_once()
    looks.check()
    now[0] += watch.LOST_S + 0.1
    await looks.run_once()
    with pytest.raises(UnavailableError, match="Redis does not answer; nothing was written"):
        looks.check()
    redis.says = FINE
    await looks.run_once()
    looks.check()


async def test_a_redis_that_may_not_be_asked_is_used_all_the_same() -> None:
    _, looks = watching(NoPermissionError("no info for you"))
    await looks.begin()
    await looks.run_once()
    looks.check()
