"""What Redis says of itself: whether it answers, has room, and would rather refuse a write than forget a record.

Records live in Redis for as long as the jobs do. A Redis that evicts keys under pressure loses jobs without a
word; one that refuses writes (``noeviction``) loses nothing: the commands are in the log until it has room.
"""

from __future__ import annotations

import asyncio
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import RedisError, ResponseError

from ojs_stream.errors import SettingsError, UnavailableError

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)

LOOK_TIMEOUT_S = 2.0
LOST_S = 1.0
"""Redis is taken to be down after this: new commands are refused at once instead of waiting for a deadline."""
POLICY = "noeviction"


class RedisWatch:
    """Looked at twice a second; ``check`` is asked before a command is written."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._lost_since = 0.0
        """Since when Redis has not answered (monotonic seconds); 0: it does."""
        self._trouble = ""
        """Why Redis answers but cannot take or keep records."""
        self._told = False

    async def begin(self) -> None:
        """At start: ``SettingsError`` for a Redis that evicts. One that is away is looked at when it is back."""
        try:
            memory, _ = await self._memory()
        except UnavailableError as error:
            log.warning("Redis is not there yet", reason=str(error))
        else:
            if evicts := _evicts(memory):
                raise SettingsError(evicts)

    async def run_once(self) -> None:
        """Look once."""
        try:
            memory, _ = await self._memory()
        except UnavailableError:
            self._lost_since = self._lost_since or monotonic()
            return
        self._lost_since = 0.0
        trouble = _evicts(memory) or _full(memory)
        if bool(trouble) != bool(self._trouble):
            log.warning("Redis takes no records", reason=trouble) if trouble else log.info("Redis has room again")
        self._trouble = trouble

    @property
    def trouble(self) -> str:
        """Why nothing can be applied now; empty when it can, as far as it is known."""
        if self._lost_since and monotonic() - self._lost_since > LOST_S:
            return "Redis does not answer"
        return self._trouble

    def check(self) -> None:
        """``UnavailableError`` while nothing can be applied."""
        if trouble := self.trouble:
            raise UnavailableError(f"{trouble}; nothing was written.", retry_after_s=2)

    async def latency_ms(self) -> float:
        """How long Redis takes to answer. ``UnavailableError`` if it does not, or takes no records."""
        memory, took_ms = await self._memory()
        if trouble := _evicts(memory) or _full(memory):
            raise UnavailableError(f"{trouble}.")
        return took_ms

    async def _memory(self) -> tuple[dict[str, Any], float]:
        begun = perf_counter()
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                memory = await self._redis.info("memory")
        except ResponseError as error:
            # It is there, but our user may not ask: what it would do is for its operator to know.
            memory = {}
            if not self._told:
                log.warning("Redis does not tell its memory and policy: give our user +info", reason=str(error))
                self._told = True
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError(f"Redis does not answer: {error}") from error
        return memory, (perf_counter() - begun) * 1000


def _evicts(memory: dict[str, Any]) -> str:
    policy = memory.get("maxmemory_policy", POLICY)
    if policy == POLICY:
        return ""
    return (
        f"Redis has maxmemory-policy {policy}, it must be {POLICY}: any other one deletes jobs without a word "
        f"when memory runs out. Set it with CONFIG SET maxmemory-policy {POLICY}, and in redis.conf"
    )


def _full(memory: dict[str, Any]) -> str:
    most = int(memory.get("maxmemory", 0))
    used = int(memory.get("used_memory", 0)) - int(memory.get("mem_not_counted_for_evict", 0))
    if not most or used <= most:
        return ""
    return f"Redis is out of memory (used_memory {used}, maxmemory {most} bytes): raise maxmemory"
