"""Reads that check the home's position, so that an empty or an old Redis never answers (DESIGN.md section 7)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from ojs_stream.core.records import Key
from ojs_stream.errors import UnavailableError
from ojs_stream.store import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

READ_TIMEOUT_S = 2.0

Read = tuple[int, str, Key | str, tuple[Any, ...]]
"""(home, Redis command, record key or full key, further arguments)."""


class Positions:
    """The highest applied offset this worker has seen of every home: a read below it is refused."""

    def __init__(self, homes: int) -> None:
        self._floor = [-1] * homes
        self._refused: dict[int, str] = {}

    def raise_to(self, home: int, offset: int) -> None:
        """Remember that ``home`` has applied ``offset``."""
        self._floor[home] = max(self._floor[home], offset)

    def refuse(self, home: int, reason: str) -> None:
        """The records of ``home`` are not those of its log: nothing may be read until ``accept``."""
        self._refused[home] = reason

    def accept(self, home: int) -> None:
        """``home`` may be read (again)."""
        self._refused.pop(home, None)

    def check_not_refused(self, home: int) -> None:
        """Raise with the reason why ``home`` may not be read."""
        if home in self._refused:
            raise UnavailableError(f"home {home} is refused: {self._refused[home]}", retry_after_s=5)

    def floor(self, home: int) -> int:
        """The offset below which a read is old."""
        return self._floor[home]


class Reads:
    """Pipelined reads from any home, each with the home's ``applied`` beside it."""

    def __init__(self, redis: Redis, *, namespace: str, homes: int, positions: Positions) -> None:
        self._redis = redis
        self.namespace = namespace
        self.homes = homes
        self.positions = positions

    async def many(self, reads: Sequence[Read]) -> list[Any]:
        """The answers in order. ``UnavailableError`` if a home is behind, empty, or Redis is down."""
        touched = sorted({read[0] for read in reads})
        for home in touched:
            self.positions.check_not_refused(home)
        # As known before the read: what is applied while it is under way is not expected of it.
        floors = [self.positions.floor(home) for home in touched]
        pipe = self._redis.pipeline(transaction=False)
        # First: a home that is being rebuilt may get to its old position between two reads of the pipeline.
        for home in touched:
            pipe.get(keys.applied(self.namespace, home))
        for home, command, key, arguments in reads:
            name = key if isinstance(key, str) else keys.record(self.namespace, home, key)
            pipe.execute_command(command, name, *arguments)
        # Last: a Redis that is wiped in the middle has no position to show for what was not found.
        for home in touched:
            pipe.get(keys.applied(self.namespace, home))
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                answers: list[Any] = await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError(f"Redis does not answer: {error}", retry_after_s=2) from error
        before, found, after = (
            answers[: len(touched)],
            answers[len(touched) : -len(touched)],
            answers[-len(touched) :],
        )
        for home, floor, *positions in zip(touched, floors, before, after, strict=True):
            for applied in positions:
                self._check(home, floor, applied)
        return found

    async def one(self, home: int, command: str, key: Key | str, *arguments: Any) -> Any:
        """A single checked read."""
        return (await self.many([(home, command, key, arguments)]))[0]

    def _check(self, home: int, floor: int, applied: bytes | None) -> None:
        if applied is None or int(applied) < floor:
            have = "nothing" if applied is None else f"offset {int(applied)}"
            raise UnavailableError(
                f"home {home} is being rebuilt from the log: Redis has {have}, offset {floor} is known",
                retry_after_s=2,
            )
        self.positions.raise_to(home, int(applied))
