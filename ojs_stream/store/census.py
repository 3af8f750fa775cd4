"""A count of what some homes hold, for the metrics page: queues by state, job workers that beat. Bounded.

A home that cannot be read now (it is being rebuilt, or Redis does not answer) is left out: a page of metrics
must show the rest of them just then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from ojs_stream.core.records import Counts, QueueRecord, decode_record
from ojs_stream.errors import UnavailableError
from ojs_stream.store.reads import Read, Reads
from ojs_stream.telemetry.facts import QueueFacts, StoreFacts
from ojs_stream.telemetry.meters import OTHER, QUEUES_MAX

HOME_QUEUES_MAX = 10_000
"""So many queues of a home are counted."""
CHUNK_QUEUES = 500
"""So many are read at once: the event loop decodes them without a pause."""
BEATING_MS = 30_000
"""A job worker counts while its last beat is younger."""

_Census = tuple[list[QueueRecord], int]


class Census:
    """Counts over the store's records."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def take(self, homes: Iterable[int], now_ms: int) -> StoreFacts:
        """What ``homes`` hold now, as far as they can be read."""
        found = await asyncio.gather(*(self._home(home, now_ms) for home in sorted(homes)))
        queues = [queue for records, _ in found for queue in records]
        return StoreFacts(queues=shown(queues), workers=sum(workers for _, workers in found))

    async def _home(self, home: int, now_ms: int) -> _Census:
        try:
            names, workers = await self._reads.many(
                [
                    (home, "ZRANGE", ("queues",), (0, HOME_QUEUES_MAX - 1)),
                    (home, "ZCOUNT", ("workers",), (now_ms - BEATING_MS, "+inf")),
                ]
            )
            return await self._queues(home, [name.decode() for name in names]), workers
        except UnavailableError:
            return [], 0

    async def _queues(self, home: int, names: Sequence[str]) -> list[QueueRecord]:
        found: list[QueueRecord] = []
        for start in range(0, len(names), CHUNK_QUEUES):
            wanted: list[Read] = [
                (home, "GET", ("queue", name), ()) for name in names[start : start + CHUNK_QUEUES]
            ]
            records = [decode_record(("queue", ""), data) for data in await self._reads.many(wanted) if data]
            found += [each for each in records if isinstance(each, QueueRecord) and not each.deleted]
        return found


def shown(queues: Sequence[QueueRecord], most: int = QUEUES_MAX) -> tuple[QueueFacts, ...]:
    """At most ``most`` queues by name; the rest is summed up."""
    ordered = sorted(queues, key=lambda queue: queue.name)
    facts = [QueueFacts(name=each.name, counts=each.counts, paused=each.paused) for each in ordered[:most]]
    if len(ordered) > most:
        facts.append(QueueFacts(name=OTHER, counts=_sum([each.counts for each in ordered[most:]])))
    return tuple(facts)


def _sum(counts: Sequence[Counts]) -> Counts:
    states = Counts.__struct_fields__
    return Counts(**{state: sum(getattr(each, state) for each in counts) for state in states})
