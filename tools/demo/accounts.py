"""The accounts: which events a job's record says must exist, and what the event topic really holds.

Pure. Each transition has its events: entering `available` -> job.enqueued; a claim -> job.started;
an ack -> job.completed; a nack with attempts left -> job.failed and job.retrying; the last nack -> job.failed
and job.discarded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COUNTED_TYPES = frozenset(
    {"job.enqueued", "job.started", "job.completed", "job.failed", "job.retrying", "job.discarded"}
)

EventCounts = Counter[tuple[str, str]]
"""How often each (job id, event type) occurs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One record of the event topic, reduced to what is counted."""

    partition: int
    position: int
    event_id: str
    event_type: str
    job_id: str


@dataclass(slots=True)
class Ledger:
    """Distinct events by id, and how many records only repeated one."""

    distinct: dict[str, Event] = field(default_factory=dict)
    repeats: int = 0
    #: Ids that came twice with different content: must stay empty.
    contradictions: set[str] = field(default_factory=set)

    def note(self, event: Event) -> None:
        """Note one record of the topic."""
        known = self.distinct.setdefault(event.event_id, event)
        if known is event:
            return
        self.repeats += 1
        if known != event:
            self.contradictions.add(event.event_id)

    def counts(self, job_ids: Iterable[str]) -> EventCounts:
        """Return the counted event types of the given jobs."""
        wanted = frozenset(job_ids)
        return Counter(
            (event.job_id, event.event_type)
            for event in self.distinct.values()
            if event.job_id in wanted and event.event_type in COUNTED_TYPES
        )

    def gaps(self) -> dict[int, int]:
        """Return for each partition how many positions are missing or double among its distinct events."""
        positions: dict[int, list[int]] = {}
        for event in self.distinct.values():
            positions.setdefault(event.partition, []).append(event.position)
        return {partition: wrong for partition, found in positions.items() if (wrong := _irregular(found))}


def _irregular(positions: list[int]) -> int:
    different = set(positions)
    missing = max(different) - min(different) + 1 - len(different)
    return missing + len(positions) - len(different)


def expected_counts(records: Mapping[str, Mapping[str, Any]]) -> EventCounts:
    """Return the events that the transitions shown by the records must have left."""
    expected: EventCounts = Counter()
    for job_id, record in records.items():
        for event_type, count in expected_of(str(record["state"]), int(record["attempt"])).items():
            if count:
                expected[job_id, event_type] = count
    return expected


def expected_of(state: str, attempt: int) -> dict[str, int]:
    """Return how often each event type occurs in a life that ended in `state` after `attempt` claims."""
    completed, discarded = int(state == "completed"), int(state == "discarded")
    retries = max(attempt - 1, 0)
    return {
        "job.enqueued": 1 + retries,
        "job.started": attempt,
        "job.completed": completed,
        "job.failed": attempt - completed,
        "job.retrying": retries,
        "job.discarded": discarded,
    }


def difference(expected: EventCounts, found: EventCounts) -> list[str]:
    """Return one sentence for each job and type whose count is not as expected."""
    keys = sorted(key for key in expected.keys() | found.keys() if expected[key] != found[key])
    return [
        f"{job_id} {kind}: {expected[job_id, kind]} expected, {found[job_id, kind]} found" for job_id, kind in keys
    ]
