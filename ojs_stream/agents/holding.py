"""Open-loop intake and bounded queues: a full or draining queue holds what comes, it does not kill it.

Nobody hears a no to a record of the bulk topic, so the agent asks for room before it hands records over.
Everything behind them waits as well: the order of a partition is kept, whatever queue a record is for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import structlog

from ojs_stream.core.commands import NewJob
from ojs_stream.core.config import is_allowed
from ojs_stream.core.records import ConfigRecord
from ojs_stream.errors import UnavailableError
from ojs_stream.store.queue_reads import Standing

log = structlog.get_logger(__name__)
LOOK_S = 0.25
"""So often a full queue is looked at again."""
Standings = Callable[[Sequence[str]], Awaitable[Mapping[str, Standing]]]


class Part(NamedTuple):
    """How many of the jobs, from the first on, may go now, and which of them their queues never take."""

    fitting: int
    forbidden: dict[str, str]
    """job id -> why"""
    reason: str = ""
    """Why the next one may not go."""


class Holding:
    """Looks at queues before jobs go to them."""

    def __init__(self, standings: Standings) -> None:
        self._standings = standings

    async def room_for(self, jobs: Sequence[NewJob]) -> Part:
        """The part of ``jobs`` that finds room: at least one job, so it may take as long as it takes.

        Clients may fill a queue between this look and the enqueue: then it is over its bound by one pack at most.
        """
        told = False
        while True:
            part = await self._look(jobs)
            if part.fitting:
                return part
            if not told:
                log.warning("bulk intake holds", jobs=len(jobs), reason=part.reason)
                told = True
            await asyncio.sleep(LOOK_S)

    async def _look(self, jobs: Sequence[NewJob]) -> Part:
        try:
            standings = await self._standings(list(dict.fromkeys(job.queue for job in jobs)))
        except UnavailableError as error:
            return Part(0, {}, str(error))
        coming: Counter[str] = Counter()
        forbidden: dict[str, str] = {}
        for place, job in enumerate(jobs):
            depth, config = standings[job.queue]
            if config is None:
                continue
            if not is_allowed(config, job.type):
                forbidden[job.id] = f"JOB_TYPE_NOT_ALLOWED: queue {job.queue} takes no jobs of type {job.type}"
                continue
            coming[job.queue] += 1
            if reason := _full(job.queue, depth + coming[job.queue], config):
                return Part(place, forbidden, reason)
        return Part(len(jobs), forbidden)


def _full(queue: str, depth: int, config: ConfigRecord) -> str:
    """Why a job that would be number ``depth`` of the queue must wait; nothing, if it need not."""
    if config.draining:
        return f"queue {queue} is draining"
    if config.max_size and depth > config.max_size:
        return f"queue {queue} has all of its {config.max_size} jobs"
    return ""
