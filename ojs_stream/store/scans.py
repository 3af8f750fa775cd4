"""Pages over indexes that lie at many homes: one after another, or merged newest first. Bounded."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from ojs_stream.core.envelope import bad_field
from ojs_stream.core.records import JobRecord, Key, decode_record
from ojs_stream.store.reads import Read, Reads

R = TypeVar("R")
Load = Callable[[Sequence[tuple[int, str]]], Awaitable[list[R | None]]]
"""The records at (home, member), ``None`` where there is none (any more)."""
CHUNK = 500
"""So many index entries or records are read at once."""
SCAN_MAX = 10_000
"""So many jobs one request looks at; the cursor goes on from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What part of a list is wanted. ``cursor`` comes from the page before and wins over ``offset``."""

    limit: int = 50
    offset: int = 0
    cursor: str = ""


@dataclass(frozen=True, kw_only=True)
class Listed(Generic[R]):
    """A page: whole records, how many there are (with a filter: as far as looked), and where to go on.

    Without slots: making one through its alias (``Found``) notes the alias on the instance.
    """

    records: list[R]
    total: int
    next_cursor: str = ""


Found = Listed[JobRecord]


@dataclass(frozen=True, slots=True)
class Source:
    """One index of one home, in the order in which it is listed."""

    home: int
    key: Key
    newest_first: bool = True


Keep = Callable[[JobRecord], bool]


def pack_cursor(*parts: int | str) -> str:
    """An opaque word that names a position."""
    return base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode().rstrip("=")


def unpack_cursor(cursor: str, *shape: type) -> tuple[int | str, ...]:
    """The parts of a cursor that this server made; anything else is a 400."""
    try:
        data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        parts = msgspec.json.decode(data, type=tuple[int | str, ...])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        parts = ()
    if tuple(type(part) for part in parts) != shape:
        raise bad_field("cursor", "is not one that this server gave")
    return parts


async def read_jobs(reads: Reads, places: Sequence[tuple[int, str]]) -> list[JobRecord | None]:
    """The records at (home, job id), ``None`` where there is none (any more)."""
    wanted: list[Read] = [(home, "GET", ("job", job_id), ()) for home, job_id in places]
    if not wanted:
        return []
    return [_job_of(data) for data in await reads.many(wanted)]


def _job_of(data: bytes | None) -> JobRecord | None:
    record = decode_record(("job", ""), data) if data else None
    return record if isinstance(record, JobRecord) else None


class Chain:
    """Several indexes one after another, each in its own order."""

    def __init__(self, reads: Reads, sources: Sequence[Source]) -> None:
        self._reads = reads
        self._sources = sources

    async def page(self, page: Page, keep: Keep | None) -> Found:
        """A page of the chain; ``keep`` filters, then the total counts what was seen so far."""
        sizes = await self._sizes()
        if keep is None:
            return await self._plain(page, sizes)
        return await self._filtered(page, sizes, keep)

    async def _sizes(self) -> list[int]:
        wanted: list[Read] = [(source.home, "ZCARD", source.key, ()) for source in self._sources]
        return await self._reads.many(wanted) if wanted else []

    async def _plain(self, page: Page, sizes: list[int]) -> Found:
        start = int(unpack_cursor(page.cursor, int, int)[0]) if page.cursor else page.offset
        total = sum(sizes)
        records = await self._slice(sizes, start, page.limit)
        end = start + page.limit
        return Found(
            records=[record for record in records if record],
            total=total,
            next_cursor=pack_cursor(end, 0) if end < total else "",
        )

    async def _filtered(self, page: Page, sizes: list[int], keep: Keep) -> Found:
        start, seen, skip = 0, 0, page.offset
        if page.cursor:
            start, seen = (int(part) for part in unpack_cursor(page.cursor, int, int))
            skip = 0
        found: list[JobRecord] = []
        position, total = start, sum(sizes)
        while position < min(total, start + SCAN_MAX):
            for record in await self._slice(sizes, position, CHUNK):
                position += 1
                if record is None or not keep(record):
                    continue
                seen += 1
                if skip:
                    skip -= 1
                    continue
                found.append(record)
                if len(found) == page.limit:
                    return Found(records=found, total=seen, next_cursor=_next(position, total, seen))
        return Found(records=found, total=seen, next_cursor=_next(position, total, seen))

    async def _slice(self, sizes: list[int], start: int, count: int) -> list[JobRecord | None]:
        wanted: list[Read] = []
        passed = 0
        for source, size in zip(self._sources, sizes, strict=True):
            first, last = max(start - passed, 0), min(start + count - passed, size) - 1
            if first <= last:
                order = ("REV",) if source.newest_first else ()
                wanted.append((source.home, "ZRANGE", source.key, (first, last, *order)))
            passed += size
        answers = await self._reads.many(wanted) if wanted else []
        places = [
            (read[0], member.decode()) for read, members in zip(wanted, answers, strict=True) for member in members
        ]
        return await read_jobs(self._reads, places)


def _next(position: int, total: int, seen: int) -> str:
    return pack_cursor(position, seen) if position < total else ""


@dataclass(slots=True)
class _Stream:
    home: int
    rank: int
    entries: list[tuple[int, str]]
    more: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which scores count (ms since the epoch), and the entry after which to go on."""

    since: int | None = None
    until: int | None = None
    after: tuple[int, str] | None = None


class Newest:
    """The same index of every home, merged: highest score first, then highest member."""

    def __init__(self, reads: Reads, key: Key, window: Window) -> None:
        self._reads = reads
        self._key = key
        self._window = window

    async def size(self) -> int:
        """How many entries there are in the window, whatever ``after`` says."""
        low = "-inf" if self._window.since is None else self._window.since
        high = "+inf" if self._window.until is None else self._window.until
        wanted: list[Read] = [(home, "ZCOUNT", self._key, (low, high)) for home in range(self._reads.homes)]
        return sum(await self._reads.many(wanted))

    async def entries(self) -> AsyncGenerator[tuple[int, str, int], None]:
        """(score, member, home), newest first."""
        streams = await self._start()
        while True:
            while hungry := [stream for stream in streams if stream.more and not stream.entries]:
                await self._fill(hungry)
            heads = [stream for stream in streams if stream.entries]
            if not heads:
                return
            best = max(heads, key=lambda stream: stream.entries[-1])
            score, member = best.entries.pop()
            if self._window.since is not None and score < self._window.since:
                return
            yield score, member, best.home

    async def _start(self) -> list[_Stream]:
        top = self._top()
        homes = range(self._reads.homes)
        if top is None:
            return [_Stream(home, 0, []) for home in homes]
        wanted: list[Read] = [(home, "ZCOUNT", self._key, (f"({top}", "+inf")) for home in homes]
        ranks = await self._reads.many(wanted)
        return [_Stream(home, rank, []) for home, rank in zip(homes, ranks, strict=True)]

    def _top(self) -> int | None:
        tops = [
            top for top in (self._window.until, self._window.after and self._window.after[0]) if top is not None
        ]
        return min(tops) if tops else None

    async def _fill(self, streams: list[_Stream]) -> None:
        wanted: list[Read] = [
            (stream.home, "ZRANGE", self._key, (stream.rank, stream.rank + CHUNK - 1, "REV", "WITHSCORES"))
            for stream in streams
        ]
        for stream, answer in zip(streams, await self._reads.many(wanted), strict=True):
            pairs = scored(answer)
            stream.rank += len(pairs)
            stream.more = len(pairs) == CHUNK
            after = self._window.after
            # Reversed, so that the newest is popped from the end.
            stream.entries = [
                (score, member) for member, score in reversed(pairs) if after is None or (score, member) < after
            ]


async def newest_page(
    index: Newest, load: Load[R], page: Page, keep: Callable[[R], bool] | None, progress: tuple[int, int]
) -> Listed[R]:
    """A page of what the index names. ``progress``: how many were seen before it, how many are to be skipped."""
    seen, skip = progress
    total = await index.size()
    found: list[R] = []
    onward = ""
    looked = 0
    async with aclosing(_loaded(index, load)) as entries:
        async for score, member, record in entries:
            looked += 1
            if record and (keep is None or keep(record)):
                seen += 1
                if seen > skip:
                    found.append(record)
            if len(found) == page.limit or looked == SCAN_MAX:
                onward = pack_cursor(score, member, seen)
                break
    if keep is None:
        return Listed(records=found, total=total, next_cursor=onward if seen < total else "")
    return Listed(records=found, total=seen, next_cursor=onward)


def resumed(page: Page) -> tuple[tuple[int, str] | None, tuple[int, int]]:
    """The entry after which the page begins, and its ``progress``."""
    if not page.cursor:
        return None, (0, page.offset)
    score, member, counted = unpack_cursor(page.cursor, int, str, int)
    return (int(score), str(member)), (int(counted), 0)


async def _loaded(index: Newest, load: Load[R]) -> AsyncGenerator[tuple[int, str, R | None], None]:
    batch: list[tuple[int, str, int]] = []
    async with aclosing(index.entries()) as entries:
        async for entry in entries:
            batch.append(entry)
            if len(batch) == CHUNK:
                for loaded in await _with_records(batch, load):
                    yield loaded
                batch = []
    for loaded in await _with_records(batch, load):
        yield loaded


async def _with_records(batch: list[tuple[int, str, int]], load: Load[R]) -> list[tuple[int, str, R | None]]:
    records = await load([(home, member) for _, member, home in batch]) if batch else []
    return [(score, member, record) for (score, member, _), record in zip(batch, records, strict=True)]


def scored(answer: Sequence[object]) -> list[tuple[str, int]]:
    """(member, score) of a WITHSCORES answer, in RESP2 (flat) or RESP3 (pairs) form."""
    if answer and isinstance(answer[0], (list, tuple)):
        flat = [item for pair in answer if isinstance(pair, (list, tuple)) for item in pair]
    else:
        flat = list(answer)
    return [(_text(flat[at]), int(float(_text(flat[at + 1])))) for at in range(0, len(flat), 2)]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
