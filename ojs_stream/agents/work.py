"""What this worker knows without asking Redis: which of its queues have work, and who waits for some."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import UNSET

from ojs_stream.agents.owner import DUE_INDEXES, Owner
from ojs_stream.core.homes import home_of
from ojs_stream.core.records import QueueRecord, has_room
from ojs_stream.core.world import World

REMOTE_POLL_S = 0.2
"""A queue whose home is at another worker is looked at so often by a waiting fetch."""


def _has_work(queue: QueueRecord) -> bool:
    return queue.counts.available > queue.held and not queue.paused and has_room(queue)


class Work:
    """Fed by every commit of this worker's homes."""

    def __init__(self, homes: int, owner_of: Callable[[int], Owner | None]) -> None:
        self._homes = homes
        self._owner_of = owner_of
        self._queues: dict[int, dict[str, QueueRecord]] = {}
        self._waiters: dict[str, set[asyncio.Event]] = {}

    def forget(self, home: int) -> None:
        """The home starts anew or is gone: nothing is known of its queues."""
        self._queues.pop(home, None)

    def committed(self, owner: Owner, world: World) -> None:
        """Queues that the round has changed; deadlines that it has set."""
        if world.blank:
            self.forget(owner.home)
        known = self._queues.setdefault(owner.home, {})
        for key, record in world.changed.items():
            if isinstance(record, QueueRecord):
                known[record.name] = record
                if _has_work(record):
                    self._wake(record.name)
            elif record is None and key[0] == "queue":
                known.pop(key[1], None)
        self._note_deadlines(owner, world)

    @staticmethod
    def _note_deadlines(owner: Owner, world: World) -> None:
        for index in DUE_INDEXES:
            view = world.indexes.get(("due", index))
            if view is None or not view.changes:
                continue
            first = min((score for score in view.changes.values() if score is not None), default=None)
            if first is not None:
                owner.note_deadline(index, first)

    def _wake(self, queue: str) -> None:
        for waiter in self._waiters.get(queue, ()):
            waiter.set()

    def hint(self, queue: str) -> bool:
        """Whether ``queue`` is known to have claimable work; if not, Redis may have some all the same."""
        if not self._is_local(queue):
            return False
        record = self._queues.get(home_of(queue, self._homes), {}).get(queue)
        return record is not None and _has_work(record) and not self._in_maintenance(queue)

    def _in_maintenance(self, queue: str) -> bool:
        owner = self._owner_of(home_of(queue, self._homes))
        return owner is not None and owner.state.maintenance is not UNSET

    async def wait(self, queues: tuple[str, ...], seconds: float) -> None:
        """Until one of ``queues`` may have got work, at most ``seconds``."""
        local = all(self._is_local(queue) for queue in queues)
        waiter = asyncio.Event()
        for queue in queues:
            self._waiters.setdefault(queue, set()).add(waiter)
        if any(self.hint(queue) for queue in queues):
            # It came after the caller had looked, and nobody was waiting then.
            waiter.set()
        try:
            async with asyncio.timeout(seconds if local else min(seconds, REMOTE_POLL_S)):
                await waiter.wait()
        except TimeoutError:
            pass
        finally:
            self._leave(queues, waiter)

    def _is_local(self, queue: str) -> bool:
        owner = self._owner_of(home_of(queue, self._homes))
        return owner is not None and owner.live

    def _leave(self, queues: tuple[str, ...], waiter: asyncio.Event) -> None:
        for queue in queues:
            left = self._waiters.get(queue)
            if left is not None:
                left.discard(waiter)
                if not left:
                    del self._waiters[queue]
