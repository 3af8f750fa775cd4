"""What an owner need not read again: it is the only writer, as long as no fence says otherwise.

Queues and minutes (every round touches them), active jobs, and the heads of ready indexes with their jobs. Only
speed depends on it; whoever doubts it starts with an empty one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ojs_stream.core.index import Index
from ojs_stream.core.records import JobRecord, Key, Record

if TYPE_CHECKING:
    from ojs_stream.core.world import World

RECORDS_MAX = 20_000
WINDOWS_MAX = 256
WINDOW_ENTRIES_MAX = 1_024
"""A longer window is cut to its head: a million waiting jobs stay in the store."""
JOB_BYTES_MAX = 16 * 1024
"""Larger jobs are read again: bounded memory."""


class Known:
    """Records and ready windows as of the last commit."""

    def __init__(self) -> None:
        self.records: dict[Key, Record | None] = {}
        self.windows: dict[Key, Index] = {}

    def clear(self) -> None:
        """Know nothing."""
        self.records.clear()
        self.windows.clear()

    def learn(self, world: World) -> None:
        """The round is committed: what it read and wrote is how the store is now."""
        if world.blank or len(self.records) > RECORDS_MAX or len(self.windows) > WINDOWS_MAX:
            self.clear()
        if world.blank:
            return
        for key, view in world.indexes.items():
            if key[0] == "state" and key[2] == "available":
                view.settle(WINDOW_ENTRIES_MAX)
                self.windows[key] = view
        for key in world.read_jobs:
            self._keep(key, world.get(key))
        for key, record in world.changed.items():
            self._keep(key, record)

    def _keep(self, key: Key, record: Record | None) -> None:
        if key[0] in ("queue", "minute") or (isinstance(record, JobRecord) and self._is_hot(record)):
            self.records[key] = record
        else:
            self.records.pop(key, None)

    def _is_hot(self, record: JobRecord) -> bool:
        """Soon asked for again: active, or at the head of its queue; and not large."""
        job = record.job
        if job.state == "available":
            window = self.windows.get(("state", job.queue, "available"))
            if window is None or job.id not in window:
                return False
        elif job.state != "active":
            return False
        return len(bytes(job.args)) + len(bytes(job.meta)) < JOB_BYTES_MAX
