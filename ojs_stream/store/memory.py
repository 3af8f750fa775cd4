"""Records in memory: for the simulation, the model test and the fold of a whole log (never for serving)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Any

import msgspec

from ojs_stream.core.records import HomeState, decode_record, key_of_member
from ojs_stream.core.world import World
from ojs_stream.errors import FencedError
from ojs_stream.store import keys
from ojs_stream.store.base import Dump, LoadRequest, is_state
from ojs_stream.store.commit import EVENTS_MAX, Acked, Commit

_state_decoder = msgspec.json.Decoder(HomeState)
_acked_decoder = msgspec.json.Decoder(Acked)


STALE_ENTRIES_MAX = 1_024
"""A heap is made anew when it has so many entries more than twice those of its index."""


class _Order:
    """The entries of an index by score. Most indexes of a long log are never asked for their head: they have none.

    What was moved or removed stays in the heap until it comes to its top.
    """

    __slots__ = ("_heap", "content")

    def __init__(self, content: dict[str, int]) -> None:
        self.content = content
        self._fill()

    def _fill(self) -> None:
        self._heap = [(score, member) for member, score in self.content.items()]
        heapify(self._heap)

    def moved(self, members: dict[str, int | None]) -> None:
        """The index has changed."""
        for member, score in members.items():
            if score is not None:
                heappush(self._heap, (score, member))
        if len(self._heap) > 2 * len(self.content) + STALE_ENTRIES_MAX:
            self._fill()

    def head(self, count: int) -> list[tuple[int, str]]:
        """The ``count`` lowest entries."""
        heap, content = self._heap, self.content
        found: list[tuple[int, str]] = []
        while heap and len(found) < count:
            entry = heappop(heap)
            if content.get(entry[1]) == entry[0] and (not found or found[-1] != entry):
                found.append(entry)
        for entry in found:
            heappush(heap, entry)
        return found


class MemoryStore:
    """The same seam as Redis, on one dict per home."""

    def __init__(self, namespace: str = "mem") -> None:
        self.namespace = namespace
        self.data: dict[str, Any] = {}
        self._orders: dict[str, _Order] = {}

    async def position(self, home: int) -> tuple[int | None, HomeState | None]:
        """See ``Store``."""
        (applied,) = await self.applied([home])
        state = self.data.get(keys.home_state(self.namespace, home))
        return applied, None if state is None else _state_decoder.decode(state)

    async def applied(self, homes: Sequence[int]) -> list[int | None]:
        """See ``Store``."""
        found = [self.data.get(keys.applied(self.namespace, home)) for home in homes]
        return [None if value is None else int(value) for value in found]

    async def load(self, requests: Sequence[LoadRequest]) -> None:
        """See ``Store``."""
        for world, needs in requests:
            left = world.missing(needs)
            if left:
                world.found.update(await self.applied([world.home]))
            for index, count in left.heads.items():
                self._load_head(world, index, count, follow=index in left.follow)
            for key in left.records:
                self._load_record(world, key)
            if left.everything:
                world.all_keys = frozenset(self._names(world.home))

    def _names(self, home: int) -> list[str]:
        prefix = keys.home_prefix(self.namespace, home)
        kept = {keys.applied(self.namespace, home), keys.home_state(self.namespace, home)}
        return [
            name
            for name in self.data
            if name.startswith(prefix) and name not in kept and is_state(name[len(prefix) :])
        ]

    def _load_record(self, world: World, key: tuple[str, ...]) -> None:
        data = self.data.get(keys.record(self.namespace, world.home, key))
        world.add_record(key, None if data is None else decode_record(key, data))

    def _load_head(self, world: World, index: tuple[str, ...], count: int, *, follow: bool) -> None:
        entries = self._head(keys.record(self.namespace, world.home, index), count + 1)
        world.add_head(index, entries[:count], complete=len(entries) <= count)
        if follow:
            for _, member in entries[:count]:
                self._load_record(world, key_of_member(member))

    def _head(self, name: str, count: int) -> list[tuple[int, str]]:
        content = self.data.get(name)
        if content is None:
            self._orders.pop(name, None)
            return []
        order = self._orders.get(name)
        # Whoever puts an older content in the place of this one (a simulated backup) does not tell.
        if order is None or order.content is not content:
            order = self._orders[name] = _Order(content)
        return order.head(count)

    async def commit(self, commits: Sequence[Commit]) -> list[Exception | None]:
        """See ``Store``."""
        return [self._commit(commit) for commit in commits]

    def _commit(self, commit: Commit) -> Exception | None:
        if self._is_fenced(commit.home, commit.expected):
            return FencedError()
        for name in commit.deletes:
            self.data.pop(name, None)
        for name, value in commit.strings.items():
            self._set(self.data, name, value)
        for name, members in commit.zsets.items():
            self._merge(name, members)
            order = self._orders.get(name)
            if order is not None:
                order.moved(members)
        for name, fields in commit.hashes.items():
            self._merge(name, fields)
        self.data.update(commit.expiring)
        return None

    def _is_fenced(self, home: int, expected: int | None) -> bool:
        stored = self.data.get(keys.applied(self.namespace, home))
        return (None if stored is None else int(stored)) != expected

    @staticmethod
    def _set(target: dict[str, Any], name: str, value: Any) -> None:
        if value is None:
            target.pop(name, None)
        else:
            target[name] = value

    def _merge(self, name: str, changes: dict[str, Any]) -> None:
        content = self.data.setdefault(name, {})
        for field, value in changes.items():
            self._set(content, field, value)
        if not content:
            del self.data[name]

    async def clear(self, home: int, expected: int | None) -> None:
        """See ``Store``."""
        if self._is_fenced(home, expected):
            raise FencedError
        prefix = keys.home_prefix(self.namespace, home)
        for name in [name for name in self.data if name.startswith(prefix)]:
            del self.data[name]

    async def acked(self, home: int) -> Acked:
        """See ``Store``."""
        data = self.data.get(keys.acked(self.namespace, home))
        return Acked() if data is None else _acked_decoder.decode(data)

    async def outbox(self, home: int) -> dict[str, bytes]:
        """See ``Store``."""
        return dict(self.data.get(keys.outbox(self.namespace, home), {}))

    async def ring(self, home: int, first: int, last: int) -> list[tuple[int, bytes]]:
        """See ``Store``."""
        ring = self.data.get(keys.events(self.namespace, home), {})
        first = max(first, last - EVENTS_MAX + 1, 1)
        slots = [(number, ring.get(str(number % EVENTS_MAX))) for number in range(first, last + 1)]
        return [(number, data) for number, data in slots if data is not None]

    async def earliest(self, home: int, index: str) -> int | None:
        """See ``Store``."""
        entries = self._head(keys.record(self.namespace, home, ("due", index)), 1)
        return entries[0][0] if entries else None

    async def dump(self, home: int) -> Dump:
        """See ``Store``."""
        prefix = keys.home_prefix(self.namespace, home)
        return {
            name[len(prefix) :]: (dict(content) if isinstance(content, dict) else content)
            for name, content in self.data.items()
            if name.startswith(prefix) and is_state(name[len(prefix) :])
        }

    def contents(self, home: int, names: Iterable[str]) -> Dump:
        """What is there of some keys (without prefix)."""
        prefix = keys.home_prefix(self.namespace, home)
        return {name: self.data[prefix + name] for name in names if prefix + name in self.data}
