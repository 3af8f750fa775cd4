"""The jobs that a filter means, page by page, while whoever asks changes them: nothing is met twice or skipped."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple

from ojs_stream.core.homes import home_of
from ojs_stream.core.records import Key
from ojs_stream.core.selection import Filter
from ojs_stream.store.reads import Reads
from ojs_stream.store.scans import read_jobs, scored

WALK_PAGE = 200
"""So many jobs are read at once."""


class Matches(NamedTuple):
    """Some of the jobs that fit, at one home."""

    home: int
    job_ids: list[str]


async def walk(reads: Reads, wanted: Filter, queues: Sequence[str]) -> AsyncGenerator[Matches, None]:
    """Queue by queue and state by state; also pages without a fitting job, so that time can be watched."""
    for queue in queues:
        home = home_of(queue, reads.homes)
        for index in _indexes(queue, wanted):
            async for members in _pages(reads, home, index):
                yield Matches(home, await _fitting(reads, home, members, wanted))


def _indexes(queue: str, wanted: Filter) -> list[Key]:
    """Available jobs that wait for a slot of their limit have an index of their own."""
    indexes: list[Key] = [("state", queue, state) for state in wanted.states]
    return [*indexes, ("held", queue)] if "available" in wanted.states else indexes


async def _pages(reads: Reads, home: int, index: Key) -> AsyncGenerator[list[str], None]:
    """By score, not by rank: ranks move while jobs leave. What has the last score is asked for again and known."""
    low, seen = "-inf", set[str]()
    while True:
        count = WALK_PAGE + len(seen)
        arguments = (low, "+inf", "BYSCORE", "LIMIT", 0, count, "WITHSCORES")
        entries = scored(await reads.one(home, "ZRANGE", index, *arguments))
        fresh = [member for member, _ in entries if member not in seen]
        if fresh:
            yield fresh
        if len(entries) < count:
            return
        last = entries[-1][1]
        at_last = {member for member, score in entries if score == last}
        seen = at_last | seen if low == str(last) else at_last
        low = str(last)


async def _fitting(reads: Reads, home: int, members: list[str], wanted: Filter) -> list[str]:
    if not wanted.needs_records:
        return members
    records = await read_jobs(reads, [(home, member) for member in members])
    return [record.job.id for record in records if record is not None and wanted.fits(record)]
