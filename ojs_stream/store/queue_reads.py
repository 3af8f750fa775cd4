"""Queues as the store knows them: names, records, and what happened in the last hour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ojs_stream.core.homes import home_of
from ojs_stream.core.records import PRIORITY_MAX, Key, Minute, QueueRecord, decode_record, ready_score
from ojs_stream.store import keys
from ojs_stream.store.reads import Read, Reads

DEFAULT_QUEUE = "default"
MINUTES_KEPT = 60


class QueueReads:
    """Reads of queue records; a queue lives at hash(its name)."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def names(self) -> list[str]:
        """Every queue ever seen, and ``default``, sorted."""
        homes = range(self._reads.homes)
        wanted: list[Read] = [(home, "ZRANGE", ("queues",), (0, -1)) for home in homes]
        found = {DEFAULT_QUEUE}
        for answer in await self._reads.many(wanted):
            found.update(name.decode() for name in answer)
        return sorted(found)

    async def records(self, names: Sequence[str]) -> list[QueueRecord | None]:
        """The records of these queues, ``None`` for one that was never seen."""
        if not names:
            return []
        wanted: list[Read] = [(home_of(name, self._reads.homes), "GET", ("queue", name), ()) for name in names]
        return [_queue_of(data) for data in await self._reads.many(wanted)]

    async def record(self, name: str) -> QueueRecord | None:
        """The record of one queue."""
        return (await self.records((name,)))[0]

    async def with_minutes(self, name: str, now_ms: int) -> tuple[QueueRecord | None, list[Minute]]:
        """The record and its minutes of the last hour, in one pipeline."""
        home = home_of(name, self._reads.homes)
        namespace = self._reads.namespace
        slots = [keys.record(namespace, home, ("minute", name, str(slot))) for slot in range(MINUTES_KEPT)]
        record, minutes = await self._reads.many(
            [(home, "GET", ("queue", name), ()), (home, "MGET", slots[0], tuple(slots[1:]))]
        )
        return _queue_of(record), _recent(minutes, now_ms // 60_000)

    async def minute(self, names: Sequence[str], minute: int) -> list[Minute]:
        """One minute (since the epoch) of many queues, where something happened in it."""
        slot = str(minute % MINUTES_KEPT)
        wanted: list[Read] = [
            (home_of(name, self._reads.homes), "GET", ("minute", name, slot), ()) for name in names
        ]
        return _recent(await self._reads.many(wanted), minute) if wanted else []

    async def priorities(self, name: str) -> dict[int, int]:
        """How many available jobs there are of each priority, highest first; those that wait for a slot count."""
        home = home_of(name, self._reads.homes)
        steps = [(p, kind) for p in range(PRIORITY_MAX, -PRIORITY_MAX - 1, -1) for kind in ("ready", "held")]
        wanted: list[Read] = [
            (home, "ZCOUNT", _index(name, kind), (ready_score(p, 0), f"({ready_score(p - 1, 0)}"))
            for p, kind in steps
        ]
        found: dict[int, int] = {}
        for (priority, _), count in zip(steps, await self._reads.many(wanted), strict=True):
            if count:
                found[priority] = found.get(priority, 0) + count
        return found

    async def oldest_available(self, name: str) -> tuple[int, str] | None:
        """(home, id) of the job at the head of the queue."""
        home = home_of(name, self._reads.homes)
        heads = await self._reads.one(home, "ZRANGE", ("state", name, "available"), 0, 0)
        return (home, heads[0].decode()) if heads else None


def _index(name: str, kind: str) -> Key:
    return ("held", name) if kind == "held" else ("state", name, "available")


def _queue_of(data: bytes | None) -> QueueRecord | None:
    record = decode_record(("queue", ""), data) if data else None
    return record if isinstance(record, QueueRecord) else None


def _recent(slots: Sequence[Any], this_minute: int) -> list[Minute]:
    found: list[Minute] = []
    for data in slots:
        record = decode_record(("minute", ""), data) if data else None
        if isinstance(record, Minute) and this_minute - MINUTES_KEPT < record.minute <= this_minute:
            found.append(record)
    return found
