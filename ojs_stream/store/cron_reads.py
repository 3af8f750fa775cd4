"""Cron entries as the store knows them."""

from __future__ import annotations

from collections.abc import Sequence

from ojs_stream.core.homes import home_of
from ojs_stream.core.records import CronRecord, decode_record
from ojs_stream.store.reads import Read, Reads

DUE_MAX = 256
"""So many due entries of a home are looked at in one go."""


class CronReads:
    """Reads of cron entries; an entry lives at hash(its name)."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def names(self) -> list[str]:
        """Every entry's name, sorted."""
        wanted: list[Read] = [(home, "ZRANGE", ("crons",), (0, -1)) for home in range(self._reads.homes)]
        return sorted(name.decode() for names in await self._reads.many(wanted) for name in names)

    async def records(self, names: Sequence[str]) -> list[CronRecord]:
        """The entries of these names; one that is gone meanwhile is left out."""
        if not names:
            return []
        wanted: list[Read] = [(home_of(name, self._reads.homes), "GET", ("cron", name), ()) for name in names]
        found = [_entry_of(data) for data in await self._reads.many(wanted)]
        return [entry for entry in found if entry is not None]

    async def record(self, name: str) -> CronRecord | None:
        """One entry."""
        return next(iter(await self.records((name,))), None)

    async def due(self, home: int, now_ms: int) -> list[CronRecord]:
        """Entries of a home that are due at ``now_ms``, the earliest first."""
        arguments = ("-inf", now_ms, "BYSCORE", "LIMIT", 0, DUE_MAX)
        members = await self._reads.one(home, "ZRANGE", ("due", "cron"), *arguments)
        return await self.records([member.decode().removeprefix("cron:") for member in members])


def _entry_of(data: bytes | None) -> CronRecord | None:
    record = decode_record(("cron", ""), data) if data else None
    return record if isinstance(record, CronRecord) else None
