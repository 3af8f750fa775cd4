"""A home of a running server folded anew: ``ojs-stream rebuild``.

One deletion does it: that of the home's ``applied``. It is the fence of every commit, so whoever owns the home can
write nothing any more; its next commit, or its watchdog within half a second, finds that out and runs the one
routine of every recovery: with no ``applied`` it unlinks the home's keys first and folds the log, from the newest
snapshot or from its first record. A snapshot owes nothing to Redis, so what was torn there does not come back.
Reads look at ``applied``, too, and answer 503 until it is as far as it was. The other homes notice nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from ojs_stream.agents.restore import LogSpan, Restore
from ojs_stream.errors import LogRefusedError, UnavailableError
from ojs_stream.log.reader import LogReader
from ojs_stream.log.topics import Topics
from ojs_stream.store.redis import RedisStore

LOOK_S = 0.1
STILL_S_MAX = 30.0
"""No owner has folded anything for so long: there is none, or it cannot."""


async def rebuild(
    reader: LogReader,
    store: RedisStore,
    topics: Topics,
    home: int,
    *,
    homes: int,
    tell: Callable[[int, int], None],
) -> int:
    """Have a home folded anew by its owner and wait until that is done; gives the offset that is applied then.

    ``tell`` hears of (home, next offset) while it goes on.
    """
    topic = topics.commands
    begin, end = await reader.bounds(topic, home)
    if begin > 0:
        span = LogSpan(topic=topic, home=home, homes=homes, begin=begin, end=end, log_id="")
        restore = Restore(store=store, namespace=store.namespace, topic=topics.snapshots)
        if await restore.newest_whole(reader, span) is None:
            raise LogRefusedError(
                f"Partition {home} of {topic} begins at offset {begin}, and no whole snapshot reaches it: its "
                "state cannot be folded, and nothing was changed. Restore a Redis backup instead."
            )
    before = await store.forget_position(home)
    return await _until_applied(store, home, end - 1 if before is None else before, tell)


async def _until_applied(store: RedisStore, home: int, last: int, tell: Callable[[int, int], None]) -> int:
    done, moved = -1, monotonic()
    while done < last:
        await asyncio.sleep(LOOK_S)
        (found,) = await store.applied([home])
        if found is not None and found > done:
            done, moved = found, monotonic()
            tell(home, done + 1)
        elif found is not None and found < 0:
            # A snapshot is being loaded.
            moved = monotonic()
        elif monotonic() - moved > STILL_S_MAX:
            raise UnavailableError(
                f"Nothing was folded into home {home} for {STILL_S_MAX:g} s: is a worker running? Its state is "
                "folded anew as soon as a worker owns it; look at /ready."
            )
    return done
