"""The round: everything buffered for every live home of this worker, in one pass (DESIGN.md section 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import monotonic, perf_counter
from typing import Protocol

import structlog
from redis.exceptions import RedisError

from ojs_stream.agents.owner import Owner, Wiring
from ojs_stream.errors import FencedError, NewerVersionError, UnavailableError
from ojs_stream.forever import forever
from ojs_stream.log.reader import LogRecord
from ojs_stream.store.commit import Commit
from ojs_stream.store.rounds import HomeRound, fold_rounds
from ojs_stream.telemetry.meters import HomeMeter, StageMeter

log = structlog.get_logger(__name__)

WATCH_S = 0.5
GATHER_S = 0.006
"""A round waits at most so long for packs that this worker has on their way to its own homes."""
STUCK_S = 3.0
"""Records in the log and no progress for so long: the home reads them by itself."""
Taken = list[tuple[Owner, HomeRound]]
Prepared = list[tuple[Owner, HomeRound, Commit, list[str]]]


class EndOffsets(Protocol):
    """Where the partitions of the command topic end."""

    async def end_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """Partition -> the offset after its last record."""


class Engine:
    """Owners of the assigned homes, and the task that folds for all of them."""

    def __init__(self, wiring: Wiring, ends: EndOffsets) -> None:
        self.owners: dict[int, Owner] = {}
        self._wiring = wiring
        self._ends = ends
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._progress: dict[int, tuple[int, float]] = {}
        self._committing: asyncio.Task[None] | None = None
        self.rounds = 0
        self.stages = StageMeter()
        self.meters: dict[int, HomeMeter] = {}
        """By home; they stay when a home goes and comes back."""

    def start(self) -> None:
        """Begin to fold and to watch."""
        self._tasks = [
            asyncio.create_task(forever("rounds", self._fold_when_woken), name="rounds"),
            asyncio.create_task(forever("watchdog", self._watch), name="watchdog"),
        ]

    async def stop(self) -> None:
        """Give up every home and end."""
        owners = list(self.owners.values())
        self.revoke(set(self.owners))
        for owner in owners:
            await owner.closed_down()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._settled()

    def wake(self) -> None:
        """There is something to fold."""
        self._wake.set()

    # -- rebalance ----------------------------------------------------------------------------------------

    def assign(self, homes: set[int]) -> None:
        """These homes are ours now. Waits for nothing."""
        for home in sorted(homes - self.owners.keys()):
            owner = self.owners[home] = Owner(home, self._wiring)
            owner.meter = self.meters.setdefault(home, owner.meter)
            owner.start()

    def revoke(self, homes: set[int]) -> None:
        """These homes are ours no more. Waits for nothing."""
        for home in homes & self.owners.keys():
            self.owners.pop(home).close()
            self._progress.pop(home, None)

    def offer(self, home: int, record: LogRecord) -> bool:
        """A live record of the command topic; whether it is news."""
        owner = self.owners.get(home)
        return owner is None or owner.offer(record)

    def foresee(self, home: int, record: LogRecord) -> None:
        """A record that this worker has just written; its delivery is still to come."""
        owner = self.owners.get(home)
        if owner is not None:
            owner.foresee(record)

    # -- rounds -------------------------------------------------------------------------------------------

    async def _fold_when_woken(self) -> None:
        await self._wake.wait()
        self._wake.clear()
        try:
            await self._fold_all()
        except Exception:  # nobody knows which homes it has left half done
            self._alarm_all()
            raise

    def _alarm_all(self) -> None:
        for owner in list(self.owners.values()):
            owner.alarm("a round failed, see the log")

    async def _fold_all(self) -> None:
        await self._gather()
        while taken := self._take():
            await self._round(taken)
            await self._gather()

    async def _gather(self) -> None:
        """Wait a moment for packs of our own homes that are on their way.

        One round for all costs little more than one for each, and homes that are answered together send
        together again.
        """
        until = monotonic() + GATHER_S
        while any(self._is_coming(home, owner) for home, owner in self._live()):
            left = until - monotonic()
            if left <= 0:
                return
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                return

    def _is_coming(self, home: int, owner: Owner) -> bool:
        return not owner.has_records and not owner.is_committing and self._wiring.gateway.is_flying(home)

    def _live(self) -> list[tuple[int, Owner]]:
        return [(home, owner) for home, owner in self.owners.items() if owner.live]

    def _take(self) -> Taken:
        taken: Taken = []
        for owner in list(self.owners.values()):
            records = owner.take()
            if not records:
                continue
            try:
                taken.append((owner, owner.round_of(records)))
            except NewerVersionError as error:
                # The recovery folds what stands before it, and refuses the home there.
                owner.alarm(str(error))
        return taken

    async def _round(self, taken: Taken) -> None:
        self.rounds += 1
        try:
            rounds = [each for _, each in taken]
            await fold_rounds(self._wiring.store, rounds, before_load=self._settled, meter=self.stages)
        except (RedisError, OSError, TimeoutError, UnavailableError) as error:
            for owner, _ in taken:
                owner.alarm(f"{type(error).__name__}: {error}")
            return
        except Exception:  # a torn record of one home must not stop the others
            log.exception("a round failed", homes=[owner.home for owner, _ in taken])
            await self._isolate(taken)
            return
        await self._settled()
        self._commit(taken)

    async def _isolate(self, taken: Taken) -> None:
        await self._settled()
        if len(taken) == 1:
            taken[0][0].alarm("the round failed, see the log")
            return
        for owner, failed in taken:
            if owner.continues(failed):
                owner.doubt()
                again = owner.round_over(failed.entries)
                await self._round([(owner, again)])

    def _commit(self, taken: Taken) -> None:
        """Send the commits on their way: while Redis works, the next round is folded."""
        for owner, done in taken:
            if not done.sound and owner.continues(done):
                owner.not_committed(done, [], FencedError("another owner wrote while the round was reading"))
        live = [(owner, done) for owner, done in taken if owner.continues(done)]
        if not live:
            return
        prepared = [(owner, done, *owner.commit_of(done)) for owner, done in live]
        for owner, done in live:
            owner.committing(done)
        self._committing = asyncio.create_task(self._write(prepared), name="commit")

    async def _settled(self) -> None:
        """Wait for the commit that is under way."""
        if self._committing is not None:
            await asyncio.wait([self._committing])
            self._committing = None

    async def _write(self, prepared: Prepared) -> None:
        try:
            begun = perf_counter()
            errors = await self._wiring.store.commit([commit for _, _, commit, _ in prepared])
            self.stages.commit.observe(perf_counter() - begun)
            for (owner, done, _, trimmed), error in zip(prepared, errors, strict=True):
                self._act(owner, done, trimmed, error)
        except Exception:  # nobody knows which homes it has left half done
            log.exception("a commit failed")
            self._alarm_all()

    @staticmethod
    def _act(owner: Owner, done: HomeRound, trimmed: list[str], error: Exception | None) -> None:
        if error is not None:
            owner.not_committed(done, trimmed, error)
        elif owner.continues(done):
            owner.committed(done)
        else:
            # Revoked or alarmed while the commit was under way: it counts, who recovers acts on it.
            owner.answer(done.world.replies)

    # -- watchdog -----------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        await asyncio.sleep(WATCH_S)
        live = {home: owner for home, owner in self.owners.items() if owner.live}
        if live:
            await self._look(live)

    async def _look(self, live: dict[int, Owner]) -> None:
        before = {home: owner.applied for home, owner in live.items()}
        try:
            stored = await self._wiring.store.applied(list(live))
            ends = await self._ends.end_offsets(list(live))
        except (RedisError, OSError, TimeoutError, UnavailableError) as error:
            log.warning("watchdog cannot look", reason=str(error))
            # Who was not looked at did not stand still: else the first look after an outage would be an alarm.
            self._progress.clear()
            return
        for (home, owner), have in zip(live.items(), stored, strict=True):
            if before[home] is not None and (have is None or have < (before[home] or 0)):
                owner.alarm(f"Redis has applied {have}, this worker {before[home]}: records were lost")
            elif self._stuck(home, owner.next, ends.get(home, 0)):
                owner.alarm(f"offset {owner.next} is in the log and was not delivered for {STUCK_S:g} s")

    def idle_s(self, home: int) -> float:
        """How long a home has stood still though its log has more, as far as the watchdog has seen."""
        _, since = self._progress.get(home, (-1, 0.0))
        return monotonic() - since if since else 0.0

    def _stuck(self, home: int, following: int, end: int) -> bool:
        known, since = self._progress.get(home, (-1, 0.0))
        if known != following or end <= following:
            self._progress[home] = (following, monotonic())
            return False
        if monotonic() - since < STUCK_S:
            return False
        self._progress[home] = (following, monotonic())
        return True
