"""One pass over log records: load, fold, commit. Live rounds, catch-up, replay and simulation share it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter

from msgspec import Struct

from ojs_stream.core.commands import AnyCommand, BadCommand
from ojs_stream.core.fold import RecordFold, needs_of
from ojs_stream.core.known import Known
from ojs_stream.core.records import HomeState
from ojs_stream.core.world import NeedMore, Needs, World
from ojs_stream.store.base import Store
from ojs_stream.telemetry.meters import StageMeter


class LogEntry(Struct, frozen=True):
    """A decoded record of the command log."""

    offset: int
    now: int
    """The record's own time in ms: the clock of its commands."""
    commands: list[AnyCommand | BadCommand]


class HomeRound:
    """The records of one home in one round."""

    def __init__(
        self,
        state: HomeState,
        entries: Sequence[LogEntry],
        *,
        homes: int,
        expected: int | None,
        known: Known | None = None,
    ) -> None:
        self.world = World(state, homes=homes, known=known)
        self.entries = entries
        self.expected = expected
        """The applied offset that ``state`` belongs to: the fence of the commit."""
        self._folds = [
            RecordFold(self.world, entry.commands, offset=entry.offset, now=entry.now) for entry in entries
        ]
        self._done = 0

    @property
    def sound(self) -> bool:
        """Whether what was read is of the state that the round stands on: else its outcomes are worthless."""
        return self.world.found <= {self.expected}

    @property
    def last_offset(self) -> int:
        """The offset that is applied after this round."""
        return self.entries[-1].offset

    def needs(self) -> Needs:
        """What is worth loading before the first fold."""
        needs = Needs()
        for entry in self.entries:
            for command in entry.commands:
                needs_of(self.world, command, entry.now, needs)
        return needs

    def fold(self) -> Needs | None:
        """Fold as far as what is loaded allows; gives what is missing, ``None`` at the end."""
        try:
            while self._done < len(self._folds):
                self._folds[self._done].run()
                self._done += 1
            self.world.finish()
        except NeedMore as need:
            return need.needs
        return None


async def fold_rounds(
    store: Store,
    rounds: Sequence[HomeRound],
    *,
    before_load: Callable[[], Awaitable[None]] | None = None,
    meter: StageMeter | None = None,
) -> None:
    """Load and fold all ``rounds``, each pass over the store for all of them at once.

    ``before_load`` is awaited before anything is read: a commit that the rounds stand on may still be under way.
    ``meter`` notes what each pass took.
    """
    meter = meter or StageMeter()
    pending, requests = list(rounds), [(each.world, each.needs()) for each in rounds]
    while pending:
        requests = [(world, left) for world, needs in requests if (left := world.missing(needs))]
        if requests:
            if before_load is not None:
                await before_load()
            begun = perf_counter()
            await store.load(requests)
            meter.load.observe(perf_counter() - begun)
        begun = perf_counter()
        again: list[HomeRound] = []
        requests = []
        for each in pending:
            needs = each.fold()
            if needs is not None:
                requests.append((each.world, needs))
                again.append(each)
        meter.fold.observe(perf_counter() - begun)
        pending = again
