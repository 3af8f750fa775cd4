"""What an owner need not read again: it is the only writer, as long as no fence says otherwise.

Queues, their configurations, minutes and days (every round touches them), limits, workflows whose steps end,
active jobs, and the heads of ready indexes with their jobs. Only speed depends on it; whoever doubts it starts
with an empty one.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Raw, UnsetType

from ojs_stream.core.index import Index
from ojs_stream.core.records import Job, JobRecord, Key, Record

if TYPE_CHECKING:
    from ojs_stream.core.world import World

BYTES_MAX = 32 * 1024 * 1024
"""So much is kept, about (measured sizes below); beyond it the oldest is forgotten."""
JOB_BYTES_MAX = 16 * 1024
"""Larger jobs are read again."""
WINDOW_ENTRIES_MAX = 1_024
"""A longer window is cut to its head: a million waiting jobs stay in the store."""

_KEPT_KINDS = frozenset(("queue", "minute", "day", "config", "limit", "workflow"))
_JOB_BYTES = 2_500
_ERROR_BYTES = 500
_COUNTERS_BYTES = 750
_WINDOW_BYTES = 1_000
_ENTRY_BYTES = 250


class Known:
    """Records and ready windows as of the last commit."""

    def __init__(self) -> None:
        self.records: dict[Key, Record | None] = {}
        self.windows: dict[Key, Index] = {}
        self.bytes = 0
        """What all of it takes, about."""
        self._sizes: OrderedDict[Key, int] = OrderedDict()
        """What each record and window takes, the longest untouched first."""

    def clear(self) -> None:
        """Know nothing."""
        self.records.clear()
        self.windows.clear()
        self._sizes.clear()
        self.bytes = 0

    def learn(self, world: World) -> None:
        """The round is committed: what it read and wrote is how the store is now."""
        if world.blank:
            self.clear()
            return
        for key, window in world.indexes.items():
            if key[0] == "waiting" or (key[0] == "state" and key[2] == "available"):
                window.settle(WINDOW_ENTRIES_MAX)
                self._put(self.windows, key, window, _bytes_of_window(window))
        read = ((key, world.get(key)) for key in world.read)
        for key, record in chain(read, world.changed.items()):
            self._put(self.records, key, record, self._worth(key, record))
        while self.bytes > BYTES_MAX:
            self._forget_oldest()

    def _put(self, target: dict[Key, Any], key: Key, value: Any, size: int) -> None:
        """Keep the value as the youngest, or forget what was known of it (size 0)."""
        self.bytes += size - self._sizes.pop(key, 0)
        if size:
            self._sizes[key] = size
            target[key] = value
        else:
            target.pop(key, None)

    def _forget_oldest(self) -> None:
        # A plain dict would walk over all that was taken from its front before.
        key, size = self._sizes.popitem(last=False)
        self.bytes -= size
        self.records.pop(key, None)
        self.windows.pop(key, None)

    def _worth(self, key: Key, record: Record | None) -> int:
        """How many bytes to keep the record for; 0: it is not soon asked for again, or too large."""
        if not isinstance(record, JobRecord):
            return _COUNTERS_BYTES if key[0] in _KEPT_KINDS else 0
        state = record.job.state
        if state == "active" or (state == "available" and self._is_next(record.job)):
            size = _bytes_of_job(record)
            return size if size < JOB_BYTES_MAX else 0
        return 0

    def _is_next(self, job: Job) -> bool:
        """At the head of its queue."""
        window = self.windows.get(("state", job.queue, "available"))
        return window is not None and job.id in window


def _bytes_of_window(window: Index) -> int:
    """0: it is empty, and more may be in the store."""
    return _WINDOW_BYTES + _ENTRY_BYTES * len(window) if len(window) or window.complete else 0


def _bytes_of_job(record: JobRecord) -> int:
    job = record.job
    size = _JOB_BYTES + len(job.args) + len(job.meta) + _length(record.extra)
    if record.ctl.progress is not None:
        size += _length(record.ctl.progress.data)
    for error in job.errors:
        size += _ERROR_BYTES + len(error.message) + _length(error.details) + _length(error.backtrace)
    return size


def _length(raw: Raw | UnsetType) -> int:
    return 0 if raw is UNSET else len(raw)
