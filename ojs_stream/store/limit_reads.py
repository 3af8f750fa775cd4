"""Limits as the store knows them: which keys there are, and how much of each is used."""

from __future__ import annotations

from collections.abc import Sequence

from ojs_stream.core.limits import limit_home
from ojs_stream.core.records import LimitRecord, decode_record
from ojs_stream.store.reads import Read, Reads

LIMITS_MAX = 10_000
"""So many limits of each home a list looks at, in the order of their keys."""


class LimitReads:
    """Reads of limit records; a limit lives at hash(its key), or with the queue that its key names."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def keys(self) -> list[str]:
        """The keys of all limits, sorted."""
        homes = range(self._reads.homes)
        wanted: list[Read] = [(home, "ZRANGE", ("limits",), (0, LIMITS_MAX - 1)) for home in homes]
        return sorted(key.decode() for keys in await self._reads.many(wanted) for key in keys)

    async def records(self, keys: Sequence[str]) -> list[LimitRecord]:
        """The limits of these keys that exist."""
        if not keys:
            return []
        homes = self._reads.homes
        wanted: list[Read] = [(limit_home(key, homes), "GET", ("limit", key), ()) for key in keys]
        found = [decode_record(("limit", ""), data) for data in await self._reads.many(wanted) if data]
        return [record for record in found if isinstance(record, LimitRecord)]

    async def record(self, key: str) -> LimitRecord | None:
        """The limit of one key."""
        found = await self.records((key,))
        return found[0] if found else None
