"""The fold of a whole log in memory, against what Redis holds: the promise "state = fold(log)"."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from ojs_stream.agents.owner import entry_of
from ojs_stream.core.records import HomeState
from ojs_stream.log.reader import LogRecord
from ojs_stream.store.base import Dump
from ojs_stream.store.commit import commit_of
from ojs_stream.store.memory import MemoryStore
from ojs_stream.store.redis import RedisStore
from ojs_stream.store.rounds import HomeRound, fold_rounds
from tests.support.stranger import end_offsets, read_topic

CHUNK = 37
"""Records a round: another number than any worker's, since rounds must not show in the state."""
SETTLE_S = 30.0


async def fold_topic(bootstrap: str, namespace: str, last: Sequence[int]) -> list[Dump]:
    """The logical content of every home, folded from the first record to its offset in ``last``."""
    topic = await read_topic(bootstrap, f"{namespace}.commands")
    kept = [[record for record in topic[home] if record.offset <= last[home]] for home in sorted(topic)]
    return [await fold_records(records, home=home, homes=len(kept)) for home, records in enumerate(kept)]


async def fold_records(records: Sequence[Any], *, home: int, homes: int) -> Dump:
    store = MemoryStore("replay")
    state, expected = HomeState(home=home), None
    taken = [LogRecord(r.offset, r.timestamp, None, r.value or b"", ()) for r in records]
    for start in range(0, len(taken), CHUNK):
        entries = [entry_of(record) for record in taken[start : start + CHUNK]]
        done = HomeRound(state, entries, homes=homes, expected=expected)
        await fold_rounds(store, [done])
        commit = commit_of(done.world, namespace="replay", expected=expected, applied=done.last_offset)
        (error,) = await store.commit([commit])
        assert error is None, f"home {home}: {error}"
        state, expected = done.world.state(), done.last_offset
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
        for name in sorted(have.keys() | want.keys()):
            if have.get(name) != want.get(name):
                return (
                    f"home {home}, {name}:\n  Redis {_part(have, want, name)}\n  fold  {_part(want, have, name)}"
                )
    return ""


def _part(one: Dump, other: Dump, name: str) -> str:
    mine, theirs = one.get(name), other.get(name)
    if isinstance(mine, dict) and isinstance(theirs, dict):
        parts = {key: value for key, value in mine.items() if theirs.get(key) != value}
        return f"{len(parts)} entries differ, such as {dict(list(parts.items())[:3])}"
    return repr(mine)[:2000]


async def replay_difference(bootstrap: str, redis_url: str, namespace: str) -> str:
    """The first difference between Redis and the fold of the log that it claims to have applied."""
    return await fold_difference(await stored_dumps(bootstrap, redis_url, namespace), bootstrap, namespace)


async def fold_difference(stored: Sequence[Dump], bootstrap: str, namespace: str) -> str:
    """The same for what was read of Redis before."""
    last = [int(dump["applied"]) for dump in stored]
    return first_difference(stored, await fold_topic(bootstrap, namespace, last))
