"""The fold of a whole log in memory, against what Redis holds: the promise "state = fold(log)"."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from redis.asyncio import Redis

from ojs_stream.log.reader import LogReader, LogRecord
from ojs_stream.replay import verifying
from ojs_stream.replay.folding import HomeFold, Nothing, log_after
from ojs_stream.replay.verifying import without_statistics
from ojs_stream.store.base import Dump
from ojs_stream.store.memory import MemoryStore
from ojs_stream.store.redis import RedisStore
from tests.support.stranger import end_offsets

CHUNK = 37
"""Records a round: another number than any worker's, since rounds must not show in the state."""
SETTLE_S = 30.0


async def fold_topic(bootstrap: str, namespace: str, last: Sequence[int]) -> list[Dump]:
    """The logical content of every home, folded from the first record to its offset in ``last``."""
    async with LogReader.open(bootstrap) as reader:
        return [
            await _fold_home(reader, f"{namespace}.commands", home, end + 1, homes=len(last))
            for home, end in enumerate(last)
        ]


async def _fold_home(reader: LogReader, topic: str, home: int, stop: int, *, homes: int) -> Dump:
    store = MemoryStore("replay")
    fold = await HomeFold.begin(store, home, homes=homes, outgoing=Nothing())
    async for records in log_after(fold, reader, topic, stop):
        await fold.take(records, round_max=CHUNK)
    return await store.dump(home)


async def fold_log(records: Sequence[LogRecord], *, home: int, homes: int) -> Dump:
    """The logical content of a home after these records."""
    store = MemoryStore("replay")
    fold = await HomeFold.begin(store, home, homes=homes, outgoing=Nothing())
    await fold.take(records, round_max=CHUNK)
    return await store.dump(home)


async def stored_dumps(bootstrap: str, redis_url: str, namespace: str) -> list[Dump]:
    """The logical content of Redis at the end of the log; waits until the workers are there and rest."""
    redis = Redis.from_url(redis_url)
    try:
        store = RedisStore(redis, namespace)
        deadline = time.monotonic() + SETTLE_S
        while True:
            ends = await end_offsets(bootstrap, f"{namespace}.commands")
            dumps = [await store.dump(home) for home in sorted(ends)]
            applied = [int(dump.get("applied", -1)) for dump in dumps]
            again = await end_offsets(bootstrap, f"{namespace}.commands")
            if again == ends and applied == [ends[home] - 1 for home in sorted(ends)]:
                return dumps
            assert time.monotonic() < deadline, f"applied {applied}, the log ends at {again}"
            await asyncio.sleep(0.3)
    finally:
        await redis.aclose()


def first_difference(stored: Sequence[Dump], folded: Sequence[Dump]) -> str:
    """Where Redis and the fold of the log part; empty when they are equal."""
    for home, (have, want) in enumerate(zip(stored, folded, strict=True)):
        found = verifying.first_difference(home, have, want)
        if found is not None:
            return f"home {home}, {found.key} {found.field}:\n  Redis {found.one}\n  fold  {found.other}"
    return ""


async def replay_difference(bootstrap: str, redis_url: str, namespace: str) -> str:
    """The first difference between Redis and the fold of the log that it claims to have applied."""
    return await fold_difference(await stored_dumps(bootstrap, redis_url, namespace), bootstrap, namespace)


async def fold_difference(
    stored: Sequence[Dump], bootstrap: str, namespace: str, *, statistics: bool = True
) -> str:
    """The same for what was read of Redis before, with or without its statistics."""
    last = [int(dump["applied"]) for dump in stored]
    folded = await fold_topic(bootstrap, namespace, last)
    if not statistics:
        stored, folded = [*map(without_statistics, stored)], [*map(without_statistics, folded)]
    return first_difference(stored, folded)
