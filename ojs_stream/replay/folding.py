"""A home folded from its log into any store, as fast as one core can.

The rounds are those of a live owner (``store/rounds.py``). What is left out is all that a live one has to do
beside: answering, sending, watching. So the outbox holds only what nobody is known to have yet.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, Self

from ojs_stream.agents.owner import ROUND_BYTES_MAX, Reader, check_version, entry_of
from ojs_stream.core.known import Known
from ojs_stream.core.portions import portions
from ojs_stream.core.records import HomeState
from ojs_stream.core.world import World
from ojs_stream.errors import FencedError, LogRefusedError
from ojs_stream.log.reader import LogRecord
from ojs_stream.store import keys
from ojs_stream.store.base import Store
from ojs_stream.store.commit import Commit, Trim, commit_of
from ojs_stream.store.rounds import HomeRound, fold_rounds

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUND_RECORDS_MAX = 256
"""More than a live owner takes: nobody waits for a round here, and a larger one writes its counters less often."""
GC_THRESHOLDS = (200_000, 50, 1_000)
"""Records are trees: nothing of a fold needs the collector, and it would walk over the whole store."""


class FoldStore(Store, Protocol):
    """A store that knows its namespace, as all but those of the simulation do."""

    namespace: str


class Outgoing(Protocol):
    """Decides what of a home's effects and messages its store keeps to be sent."""

    def trim(self) -> Trim | None:
        """What has arrived since the last round: it leaves the outbox."""

    def sift(self, outbox: dict[str, bytes | None], world: World) -> None:
        """Take out of a round's outbox what need not be sent."""


class Nothing:
    """For a store from which nothing will ever be sent."""

    def trim(self) -> Trim | None:
        """See ``Outgoing``."""
        return None

    def sift(self, outbox: dict[str, bytes | None], _world: World) -> None:
        """See ``Outgoing``."""
        outbox.clear()


class HomeFold:
    """One home of a store and where it stands; ``begin`` continues what the store has."""

    def __init__(
        self,
        store: FoldStore,
        state: HomeState,
        *,
        homes: int,
        applied: int | None,
        outgoing: Outgoing | None = None,
        overlaps: bool = False,
    ) -> None:
        self.home = state.home
        self.homes = homes
        self.state = state
        self.applied = applied
        self.records = 0
        self.commands = 0
        """How many of each were folded since it began."""
        self.store = store
        self.outgoing = outgoing
        """``None``: everything stays in the outbox."""
        self._overlaps = overlaps
        """The next round is folded while the store writes the last one. ``settle`` waits for that."""
        self._writing: asyncio.Task[None] | None = None
        self._known = Known()

    @classmethod
    async def begin(
        cls,
        store: FoldStore,
        home: int,
        *,
        homes: int,
        outgoing: Outgoing | None = None,
        overlaps: bool = False,
    ) -> Self:
        """At the position that the store has; an empty home begins at the first record of its log."""
        applied, state = await store.position(home)
        if applied is None or state is None:
            applied, state = None, HomeState(home=home)
        check_version(state, "The state to begin with")
        return cls(store, state, homes=homes, applied=applied, outgoing=outgoing, overlaps=overlaps)

    @property
    def next(self) -> int:
        """The offset of the record that is folded next."""
        return 0 if self.applied is None else self.applied + 1

    async def take(self, records: Sequence[LogRecord], *, round_max: int = ROUND_RECORDS_MAX) -> None:
        """Fold records in bounded rounds, one after the other. ``FencedError``: somebody else writes there."""
        for portion in portions(records, _bytes_of, count_max=round_max, bytes_max=ROUND_BYTES_MAX):
            await self._round(portion)

    async def _round(self, records: Sequence[LogRecord]) -> None:
        entries = [entry_of(record) for record in records]
        done = HomeRound(self.state, entries, homes=self.homes, expected=self.applied, known=self._known)
        await fold_rounds(self.store, [done], before_load=self.settle)
        if not done.sound:
            raise FencedError(f"home {self.home}: somebody else writes there")
        commit = self._commit_of(done)
        await self.settle()
        await self._begin_write(commit)
        self._known.learn(done.world)
        self.state, self.applied = done.world.state(), done.last_offset
        self.records += len(records)
        self.commands += sum(len(entry.commands) for entry in entries)

    async def _begin_write(self, commit: Commit) -> None:
        if not self._overlaps:
            await self._write(commit)
            return
        self._writing = asyncio.create_task(self._write(commit))
        # It is sent now; the answer may take its time.
        await asyncio.sleep(0)

    async def _write(self, commit: Commit) -> None:
        (error,) = await self.store.commit([commit])
        if error is not None:
            raise error

    async def settle(self) -> None:
        """Wait until the last round is in the store."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    def _commit_of(self, done: HomeRound) -> Commit:
        commit = commit_of(
            done.world,
            namespace=self.store.namespace,
            expected=done.expected,
            applied=done.last_offset,
            trim=self.outgoing.trim() if self.outgoing is not None else None,
            keep_outcome=_nobody_waits,
        )
        name = keys.outbox(self.store.namespace, self.home)
        if self.outgoing is not None and name in commit.hashes:
            self.outgoing.sift(commit.hashes[name], done.world)
            if not commit.hashes[name]:
                del commit.hashes[name]
        return commit


def _nobody_waits(_submit: str) -> bool:
    return False


def _bytes_of(record: LogRecord) -> int:
    return len(record.value)


Tell = Callable[[HomeFold], None]
"""Hears of a home after every step."""


def tell_nobody(_fold: HomeFold) -> None:
    """Nobody looks on."""


async def fold_log(fold: HomeFold, reader: Reader, topic: str, stop: int, *, tell: Tell = tell_nobody) -> None:
    """Fold a home's records from where it stands up to ``stop`` (exclusive)."""
    async for records in log_after(fold, reader, topic, stop):
        await fold.take(records)
        tell(fold)
    await fold.settle()


async def log_after(fold: HomeFold, reader: Reader, topic: str, stop: int) -> AsyncIterator[list[LogRecord]]:
    """The records that a home has not folded. ``LogRefusedError`` when the log does not have them (any more)."""
    begin, end = await reader.bounds(topic, fold.home)
    if fold.next < min(begin, stop):
        raise LogRefusedError(
            f"Partition {fold.home} of {topic} begins at offset {begin}, offset {fold.next} is needed: the state "
            "cannot be folded from this log alone. Restore the topic, or a Redis backup that is true up to at "
            f"least offset {begin - 1}."
        )
    if stop > end:
        raise LogRefusedError(
            f"Partition {fold.home} of {topic} ends at offset {end - 1}, offset {stop - 1} is needed: this is "
            "another or a truncated log."
        )
    async for records in reader.read(topic, fold.home, fold.next, stop):
        yield records


@contextmanager
def fast_folding() -> Iterator[None]:
    """For a process that does nothing else: the collector would walk over all records again and again."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
