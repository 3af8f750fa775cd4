"""Are the limits kept? By the times of the events: the clock of the log must never have been set."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from tests.simulation.evidence import Event, Evidence
from tests.simulation.history import Bound

ENDS = ("job.completed", "job.failed", "job.cancelled", "job.enqueued")
"""What ends the work on a job. A lost lease is told as ``job.enqueued`` or ``job.failed``."""


def limits_kept(evidence: Evidence) -> list[str]:
    """For every key: never more jobs at work than it allows, nor more starts in one of its periods."""
    keys = {
        job_id: record["ctl"]["limit"]["key"]
        for job_id, record in evidence.stored.items()
        if record["ctl"].get("limit")
    }
    problems: list[str] = []
    for key, bound in evidence.history.limits.items():
        events = [event for event in evidence.in_time() if keys.get(event["subject"]) == key]
        problems += _working(key, bound, events) if bound.concurrency else _starting(key, bound, events)
    return problems


def _working(key: str, bound: Bound, events: list[Event]) -> list[str]:
    working: set[str] = set()
    # Of two events of the same millisecond an end may have come first, whichever home it is of.
    by_time: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_time[event["time"]].append(event)
    for moment, together in by_time.items():
        working -= {event["subject"] for event in together if event["type"] in ENDS}
        for event in together:
            if event["type"] == "job.started":
                working.add(event["subject"])
            elif event["type"] in ENDS:
                working.discard(event["subject"])
        if len(working) > bound.concurrency:
            return [f"limit {key} allows {bound.concurrency} at once, at {moment} there were {sorted(working)}"]
    return []


def _starting(key: str, bound: Bound, events: list[Event]) -> list[str]:
    """Windows are fixed: two of them may be used up back to back, never more in one period's length."""
    starts = [_ms(event) for event in events if event["type"] == "job.started"]
    for first, at in enumerate(starts):
        count = sum(1 for other in starts[first:] if other < at + bound.period_ms)
        if count > 2 * bound.starts:
            return [f"limit {key} allows {bound.starts} in {bound.period_ms} ms, {count} started from {at} on"]
    return []


def _ms(event: Event) -> int:
    return int(datetime.fromisoformat(event["time"]).timestamp() * 1000)
