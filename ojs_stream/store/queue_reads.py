"""Queues as the store knows them: names, records, and what happened in the last hour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ojs_stream.core.config import layered
from ojs_stream.core.homes import home_of
from ojs_stream.core.names import DEFAULT_CONFIG
from ojs_stream.core.records import (
    PRIORITY_MAX,
    ConfigRecord,
    Day,
    Key,
    Minute,
    QueueRecord,
    decode_record,
    ready_score,
)
from ojs_stream.core.world import DAY_SLOTS
from ojs_stream.store import keys
from ojs_stream.store.reads import Read, Reads

DEFAULT_QUEUE = "default"
MINUTES_KEPT = 60
HISTORY_QUEUES = 100
"""The past of so many queues is read at once."""


class Standing(NamedTuple):
    """How many jobs wait or run in a queue, those included that room is held for, and its configuration."""

    depth: int
    config: ConfigRecord | None


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

    async def own_configs(self, names: Sequence[str]) -> list[ConfigRecord | None]:
        """What the configurations of these queues (or of the template) say themselves."""
        homes = self._reads.homes
        wanted: list[Read] = [(home_of(name, homes), "GET", ("config", name), ()) for name in names]
        return [_config_of(data) for data in await self._reads.many(wanted)]

    async def configs(self, names: Sequence[str]) -> list[ConfigRecord | None]:
        """The configurations in force for these queues."""
        default, *own = await self.own_configs((DEFAULT_CONFIG, *names))
        return [layered(each, default) for each in own]

    async def standings(self, names: Sequence[str]) -> dict[str, Standing]:
        """How full these queues are, by name."""
        homes = self._reads.homes
        wanted: list[Read] = [(home_of(DEFAULT_CONFIG, homes), "GET", ("config", DEFAULT_CONFIG), ())]
        wanted += [(home_of(name, homes), "GET", ("config", name), ()) for name in names]
        wanted += [(home_of(name, homes), "GET", ("queue", name), ()) for name in names]
        default, *answers = await self._reads.many(wanted)
        found: dict[str, Standing] = {}
        for name, own, queue in zip(names, answers[: len(names)], answers[len(names) :], strict=True):
            record = _queue_of(queue)
            config = layered(_config_of(own), _config_of(default))
            found[name] = Standing(0 if record is None else _depth_of(record), config)
        return found

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

    async def history(self, names: Sequence[str]) -> list[Minute]:
        """All that is kept of these queues: minutes, and before them hours (``minute`` is an hour's first)."""
        found: list[Minute] = []
        for start in range(0, len(names), HISTORY_QUEUES):
            wanted = [read for name in names[start : start + HISTORY_QUEUES] for read in self._past_of(name)]
            for kind, slots in zip(("minute", "day") * len(wanted), await self._reads.many(wanted), strict=False):
                for record in (decode_record((kind, ""), data) for data in slots if data):
                    if isinstance(record, Minute):
                        found.append(record)
                    elif isinstance(record, Day):
                        found.extend(record.hours.values())
        return found

    def _past_of(self, name: str) -> list[Read]:
        """Its minutes, then its days."""
        home, namespace = home_of(name, self._reads.homes), self._reads.namespace
        reads: list[Read] = []
        for kind, slots in (("minute", MINUTES_KEPT), ("day", DAY_SLOTS)):
            first, *rest = [keys.record(namespace, home, (kind, name, str(slot))) for slot in range(slots)]
            reads.append((home, "MGET", first, tuple(rest)))
        return reads

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


def _config_of(data: bytes | None) -> ConfigRecord | None:
    record = decode_record(("config", ""), data) if data else None
    return record if isinstance(record, ConfigRecord) else None


def _depth_of(record: QueueRecord) -> int:
    counts = record.counts
    held = sum(len(places) for places in record.reserved.values())
    return held + counts.available + counts.active + counts.scheduled + counts.retryable + counts.pending


def _queue_of(data: bytes | None) -> QueueRecord | None:
    record = decode_record(("queue", ""), data) if data else None
    # A deleted queue only counts the finished jobs that it has left.
    return record if isinstance(record, QueueRecord) and not record.deleted else None


def _recent(slots: Sequence[Any], this_minute: int) -> list[Minute]:
    found: list[Minute] = []
    for data in slots:
        record = decode_record(("minute", ""), data) if data else None
        if isinstance(record, Minute) and this_minute - MINUTES_KEPT < record.minute <= this_minute:
            found.append(record)
    return found
