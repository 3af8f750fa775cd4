"""Locks of unique jobs as the store knows them, for operators."""

from __future__ import annotations

from contextlib import aclosing

from msgspec import Struct

from ojs_stream.core.records import Holder, JobRecord, LockRecord, decode_record
from ojs_stream.store.reads import Read, Reads
from ojs_stream.store.scans import Newest, Page, Window, pack_cursor, read_jobs, unpack_cursor

LOCK_HOLDERS_SHOWN_MAX = 10
"""So many jobs of one lock a list shows: a lock has one, except when jobs have come back to its states."""


class HeldLock(Struct, frozen=True):
    """A job and the fingerprint that it holds."""

    key: str
    holder: Holder
    job: JobRecord


class Locks(Struct, frozen=True):
    """A page of locks, how many there are, and where to go on."""

    held: list[HeldLock]
    total: int
    next_cursor: str


class LockReads:
    """Reads of locks; a lock lives at the home in its rule."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def page(self, page: Page) -> Locks:
        """Locks of all homes, the newest first. ``limit`` and ``total`` count locks."""
        after = None
        if page.cursor:
            score, member = unpack_cursor(page.cursor, int, str)
            after = int(score), str(member)
        index = Newest(self._reads, ("locks",), Window(after=after))
        total = await index.size()
        skip = 0 if page.cursor else page.offset
        found: list[tuple[int, str, int]] = []
        async with aclosing(index.entries()) as entries:
            async for entry in entries:
                if skip:
                    skip -= 1
                    continue
                found.append(entry)
                if len(found) > page.limit:
                    break
        shown = found[: page.limit]
        onward = pack_cursor(*shown[-1][:2]) if len(found) > page.limit else ""
        return Locks(await self._held(shown), total, onward)

    async def _held(self, entries: list[tuple[int, str, int]]) -> list[HeldLock]:
        if not entries:
            return []
        wanted: list[Read] = [(home, "GET", ("lock", key), ()) for _, key, home in entries]
        pairs: list[tuple[str, Holder]] = []
        for data in await self._reads.many(wanted):
            lock = decode_record(("lock", ""), data) if data else None
            if isinstance(lock, LockRecord):
                pairs += [(lock.key, holder) for holder in lock.holders[-LOCK_HOLDERS_SHOWN_MAX:]]
        jobs = await read_jobs(self._reads, [(holder.home, holder.job) for _, holder in pairs])
        return [HeldLock(key, holder, job) for (key, holder), job in zip(pairs, jobs, strict=True) if job]
