"""The seam between rounds and what holds the records: Redis, or memory (simulation, replay, model)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ojs_stream.core.records import RECORD_KINDS, HomeState
from ojs_stream.core.world import Needs, World
from ojs_stream.store.commit import Acked, Commit

LoadRequest = tuple[World, Needs]
Dump = dict[str, Any]
"""Key without the home's prefix -> its content (bytes, or dict of a hash, or dict member -> score)."""


class Store(Protocol):
    """Records of many homes."""

    async def position(self, home: int) -> tuple[int | None, HomeState | None]:
        """The applied offset and the home's state, each ``None`` when it is not there: both for an empty home."""

    async def applied(self, homes: Sequence[int]) -> list[int | None]:
        """The applied offsets of several homes."""

    async def load(self, requests: Sequence[LoadRequest]) -> None:
        """Put what is needed into the worlds, in one pass over the store."""

    async def commit(self, commits: Sequence[Commit]) -> list[Exception | None]:
        """Write, each atomically. Per commit ``None``, ``FencedError``, or why its outcome is unknown."""

    async def clear(self, home: int, expected: int | None) -> None:
        """Remove every key of a home as long as ``applied`` is ``expected``; ``FencedError`` if it is not."""

    async def acked(self, home: int) -> Acked:
        """What was known to be in its topic at the last commit."""

    async def outbox(self, home: int) -> dict[str, bytes]:
        """What was not known to be in its topic at the last commit."""

    async def ring(self, home: int, first: int, last: int) -> list[tuple[int, bytes]]:
        """Events ``first`` to ``last`` by number, as far as the ring still has them."""

    async def earliest(self, home: int, index: str) -> int | None:
        """The first deadline of ``("due", index)`` in ms."""

    async def dump(self, home: int) -> Dump:
        """The home's logical content: all but outbox, acks and outcomes (they depend on who sent what when)."""


def is_state(name: str) -> bool:
    """Whether a key (without prefix) belongs to the compared state."""
    return name not in ("outbox", "acked") and not name.startswith("outcome:")


def is_string(name: str) -> bool:
    """Whether a key (without prefix) of the compared state holds one value: a record or the home's own."""
    return name in ("applied", "home") or is_record(name)


def is_record(name: str) -> bool:
    """Whether a key (without prefix) is that of a record."""
    return name.partition(":")[0] in RECORD_KINDS
