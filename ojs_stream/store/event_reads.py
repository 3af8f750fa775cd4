"""The events of all homes as one list, oldest first, merged by (time, home, number)."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec
from msgspec import Raw, Struct

from ojs_stream.core.envelope import bad_field
from ojs_stream.core.records import HomeState
from ojs_stream.store import keys
from ojs_stream.store.reads import Read, Reads
from ojs_stream.store.scans import pack_cursor, unpack_cursor

RING = 10_000
"""So many events a home keeps (its ring in Redis)."""
CHUNK = 500
SCAN_MAX = 100_000
"""So many events one request looks at; the cursor goes on from there."""


class _Data(Struct):
    queue: str | None = None
    job_type: str | None = None
    job_id: str | None = None


class _Event(Struct):
    id: str
    type: str
    time: str
    subject: str
    data: _Data


_event = msgspec.json.Decoder(_Event)
_home_state = msgspec.json.Decoder(HomeState)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are wanted; an empty set = all. ``after`` is a cursor or an event id."""

    types: frozenset[str] = frozenset()
    queues: frozenset[str] = frozenset()
    job_types: frozenset[str] = frozenset()
    subject: str = ""
    since: str = ""
    after: str = ""
    limit: int = 100

    def keeps(self, event: _Event) -> bool:
        """Whether the event is wanted."""
        return (
            _in(self.types, event.type)
            and _in(self.queues, event.data.queue)
            and _in(self.job_types, event.data.job_type)
            and (not self.subject or event.subject == self.subject)
            and event.time >= self.since
        )


def _in(wanted: frozenset[str], value: str | None) -> bool:
    return not wanted or value in wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Events as raw JSON, the cursor after the last one looked at, and whether there are more.

    ``passed``: per home the number of the last one looked at. ``gap``: ``after`` was an event that is not kept.
    """

    events: list[Raw]
    cursor: str
    has_more: bool
    passed: tuple[int, ...]
    gap: bool


@dataclass(slots=True)
class _Ring:
    """What is read of one home: ``next`` is the first number not yet read, ``passed`` the last given out."""

    home: int
    next: int
    newest: int
    passed: int


class EventReads:
    """Reads of the event rings."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def page(self, wanted: EventFilter) -> EventPage:
        """The next events after ``wanted.after``, oldest first."""
        by_id = wanted.after if wanted.after.startswith("evt_") else ""
        rings = await self._rings("" if by_id else wanted.after)
        found = await self._merge(rings, wanted, by_id)
        gap = found is None
        if gap:
            # The ring has moved on since that event: everything kept is newer.
            rings = await self._rings("")
            found = await self._merge(rings, wanted, "")
        has_more = any(ring.passed < ring.newest for ring in rings)
        passed = tuple(ring.passed for ring in rings)
        return EventPage(
            events=found or [], cursor=pack_cursor(*passed), has_more=has_more, passed=passed, gap=gap
        )

    async def of_subject(self, homes: Collection[int], subject: str) -> list[Raw]:
        """All that these homes keep about one subject, oldest first."""
        found: list[tuple[str, Raw]] = []
        mark = subject.encode()
        for ring in await self._rings(""):
            if ring.home not in homes:
                continue
            name = keys.events(self._reads.namespace, ring.home)
            for first in range(ring.next, ring.newest + 1, CHUNK):
                span = range(first, min(first + CHUNK, ring.newest + 1))
                answer = await self._reads.one(ring.home, "HMGET", name, *(number % RING for number in span))
                told = [(_event.decode(data), data) for data in answer if data is not None and mark in data]
                found += [(event.time, Raw(data)) for event, data in told if event.subject == subject]
        # A job is at one home at a time; those of one home stay in their order.
        return [raw for _, raw in sorted(found, key=lambda pair: pair[0])]

    async def _rings(self, after: str) -> list[_Ring]:
        homes = range(self._reads.homes)
        passed = [int(part) for part in unpack_cursor(after, *[int] * len(homes))] if after else [0] * len(homes)
        wanted: list[Read] = [(home, "GET", keys.home_state(self._reads.namespace, home), ()) for home in homes]
        rings: list[_Ring] = []
        for home, data in zip(homes, await self._reads.many(wanted), strict=True):
            newest = _home_state.decode(data).events if data else 0
            if passed[home] > newest:
                raise bad_field("after", "is not a cursor of this log: start again without it")
            first = max(passed[home] + 1, newest - RING + 1)
            rings.append(_Ring(home, first, newest, max(passed[home], first - 1)))
        return rings

    async def _merge(self, rings: list[_Ring], wanted: EventFilter, by_id: str) -> list[Raw] | None:
        """Events up to the limit; ``None`` if ``by_id`` was asked for and is in no ring."""
        heads: list[tuple[str, int, int, _Event, bytes]] = []
        waiting: dict[int, int] = {}
        found: list[Raw] = []
        started = not by_id
        await self._fill(rings, heads, waiting)
        for _ in range(SCAN_MAX):
            if not heads:
                break
            _, home, number, event, data = heapq.heappop(heads)
            rings[home].passed = number
            if not started:
                started = event.id == by_id
            elif wanted.keeps(event):
                found.append(Raw(data))
            if len(found) == wanted.limit:
                break
            waiting[home] -= 1
            if not waiting[home]:
                await self._fill(rings, heads, waiting)
        return found if started else None

    async def _fill(
        self,
        rings: Iterable[_Ring],
        heads: list[tuple[str, int, int, _Event, bytes]],
        waiting: dict[int, int],
    ) -> None:
        """A chunk of every ring that has nothing in the heap: else the smallest head may not be the next."""
        hungry = [ring for ring in rings if not waiting.get(ring.home) and ring.next <= ring.newest]
        if not hungry:
            return
        spans = [range(ring.next, min(ring.next + CHUNK, ring.newest + 1)) for ring in hungry]
        wanted: list[Read] = [
            (ring.home, "HMGET", keys.events(self._reads.namespace, ring.home), tuple(n % RING for n in span))
            for ring, span in zip(hungry, spans, strict=True)
        ]
        for ring, span, answer in zip(hungry, spans, await self._reads.many(wanted), strict=True):
            ring.next = span.stop
            floor = ""
            for number, data in zip(span, answer, strict=True):
                if data is None:
                    ring.passed = max(ring.passed, number) if not waiting.get(ring.home) else ring.passed
                    continue
                event = _event.decode(data)
                # Time may step back inside a home; its own order is the number.
                floor = max(floor, event.time)
                heapq.heappush(heads, (floor, ring.home, number, event, data))
                waiting[ring.home] = waiting.get(ring.home, 0) + 1
