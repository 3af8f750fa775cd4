"""A home from its newest whole snapshot: the store has nothing of it, or is older than the log reaches back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

import structlog
from msgspec import Struct

from ojs_stream import stamp
from ojs_stream.errors import LogRefusedError, SnapshotDamagedError
from ojs_stream.log import snapshots
from ojs_stream.log.snapshots import Found, Reader
from ojs_stream.store.base import Store
from ojs_stream.store.snapshot import Part, Unpacking, claim_of, load_parts

log = structlog.get_logger(__name__)

CANDIDATES_MAX = 4
"""So many snapshots are tried: two are kept, a third is there until the next one is made."""
CLAIM_BYTES = 6


Progress = Callable[[int, int, str], None]
"""(chunks done, chunks in all, what is being done)"""


def _unseen(_done: int, _total: int, _what: str) -> None:
    """Nobody looks on."""


class LogSpan(Struct, frozen=True, kw_only=True):
    """What there is of the log of a home."""

    topic: str
    home: int
    homes: int
    begin: int
    end: int
    """The offset that the next record will get."""
    log_id: str
    """Empty when nothing is known of it: neither its first record nor the store's records are there."""


class Restore(Struct, frozen=True, kw_only=True):
    """Where snapshots come from and where they go."""

    store: Store
    namespace: str
    topic: str

    async def home(
        self, reader: Reader, span: LogSpan, *, expected: int | None = None, progress: Progress = _unseen
    ) -> bool:
        """Load the newest snapshot that is whole and after which the log goes on; whether there was one.

        Nothing of the store is touched before a snapshot has proved to be whole.
        """
        found = await self.newest_whole(reader, span, progress)
        if found is None:
            return False
        await self._load(reader, found, expected, progress)
        log.info("a snapshot was loaded", home=span.home, offset=found.manifest.offset, keys=found.manifest.keys)
        return True

    async def newest_whole(self, reader: Reader, span: LogSpan, progress: Progress = _unseen) -> Found | None:
        """The newest snapshot that is whole and after which the log goes on."""
        for found in await self._candidates(reader, span):
            try:
                await self._prove(reader, found, progress)
            except SnapshotDamagedError as error:
                log.warning(
                    "a snapshot is damaged, the one before it is tried",
                    home=span.home,
                    offset=found.manifest.offset,
                    reason=str(error),
                )
            else:
                return found
        return None

    async def _candidates(self, reader: Reader, span: LogSpan) -> list[Found]:
        found = await snapshots.newest(reader, self.topic, span.home, limit=CANDIDATES_MAX)
        # Of a log without a beginning and a store without records the newest snapshot tells the name.
        log_id = span.log_id or (max(found, key=lambda each: each.place).manifest.log_id if found else "")
        return [
            each
            for each in found
            if snapshots.covers(each.manifest, begin=span.begin, end=span.end, homes=span.homes, log_id=log_id)
        ]

    async def _prove(self, reader: Reader, found: Found, progress: Progress) -> None:
        async with aclosing(parts_in(reader, self.topic, found)) as parts:
            async for _, done in parts:
                progress(done, found.manifest.chunks, f"checks the snapshot of offset {found.manifest.offset}")

    async def _load(self, reader: Reader, found: Found, expected: int | None, progress: Progress) -> None:
        manifest = found.manifest
        async with aclosing(parts_in(reader, self.topic, found)) as parts:

            async def loaded() -> AsyncIterator[Part]:
                async for part, done in parts:
                    progress(done, manifest.chunks, f"loads the snapshot of offset {manifest.offset}")
                    yield part

            await load_parts(
                self.store,
                manifest.home,
                loaded(),
                namespace=self.namespace,
                expected=expected,
                claim=claim_of(int(stamp.new_token(CLAIM_BYTES), 16)),
            )

    async def check_identity(self, reader: Reader, span: LogSpan) -> None:
        """A log whose beginning is gone is known by its newest snapshot; ``LogRefusedError`` if it is another."""
        for found in await snapshots.newest(reader, self.topic, span.home, limit=1):
            snapshots.refuse_other_log(span.topic, found.manifest, span.log_id)


async def parts_in(reader: Reader, topic: str, found: Found) -> AsyncGenerator[tuple[Part, int], None]:
    """The parts of a snapshot, each with the number of its chunk; between two chunks the loop runs."""
    unpacking, number = Unpacking(), 0
    async for chunk in snapshots.chunks(reader, topic, found):
        number += 1
        for part in unpacking.feed(chunk):
            yield part, number
        await asyncio.sleep(0)
    unpacking.finish()


def nothing_fits(span: LogSpan, applied: int | None) -> LogRefusedError:
    """Why the home cannot be served, and the ways out."""
    have = "no records of it" if applied is None else f"applied it up to offset {applied}"
    first = 0 if applied is None else applied + 1
    return LogRefusedError(
        f"Partition {span.home} of {span.topic} no longer has offsets {first} to {span.begin - 1}, Redis has "
        f"{have}, and no whole snapshot reaches offset {span.begin - 1}: the state cannot be rebuilt. Restore "
        f"the snapshot topic or the log from a copy, or a Redis backup that is true up to at least offset "
        f"{span.begin - 1}; or start with another OJS_NAMESPACE."
    )
