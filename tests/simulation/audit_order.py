"""Is the order of every queue kept? A claim takes the job of the highest priority that became available first.

From the events of a home alone: they stand in the order in which its states have changed. A job under a limit may
be passed by, since it waits for a slot; it may pass by nobody.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tests.simulation.evidence import Event, Evidence

OLD_PLACE = ("given_back", "visibility_timeout", "worker_death")
"""Reasons for which a job comes back to where it was."""
Place = tuple[int, int]
"""Lower is earlier: (the negative priority, when it became available)."""


class OrderAudit:
    """One home's events, from the first to the last."""

    def __init__(self, evidence: Evidence) -> None:
        self.problems: list[str] = []
        self._evidence = evidence
        revised = {
            rule[0]
            for line in evidence.asked("enqueue")
            for rule in line.fields["unique"]
            if rule[1] == "replace_except_schedule"
        }
        self._opaque = {
            job_id
            for job_id, record in evidence.stored.items()
            if record["ctl"].get("unique", {}).get("key") in revised
        } | evidence.deleted.maybe
        """Their priorities may have changed without an event."""
        self._limited = {job_id for job_id, record in evidence.stored.items() if record["ctl"].get("limit")}

    def run(self) -> list[str]:
        """All homes."""
        for events in self._evidence.events:
            self._of_home(events)
        return self.problems

    def _of_home(self, events: list[Event]) -> None:
        ready: dict[str, dict[str, Place]] = defaultdict(dict)
        places: dict[str, Place] = {}
        active: set[str] = set()
        for number, event in enumerate(events):
            job_id, data = event["subject"], event["data"]
            if event["type"] == "priority.changed" and job_id in places:
                self._reprioritized(ready, places, job_id, data)
            if not event["type"].startswith("job.") or job_id in self._opaque:
                continue
            if event["type"] == "job.enqueued":
                stays = job_id in active and job_id in places and data.get("reason") in OLD_PLACE
                kept = places[job_id][1] if stays else number
                places[job_id] = ready[data["queue"]][job_id] = (-data["priority"], kept)
            else:
                place = ready[data["queue"]].pop(job_id, None)
                if event["type"] == "job.started" and place is not None:
                    self._started(ready[data["queue"]], job_id, place, data)
            if event["type"] == "job.started":
                active.add(job_id)
            elif event["type"] != "job.failed":
                active.discard(job_id)

    @staticmethod
    def _reprioritized(
        ready: dict[str, dict[str, Place]], places: dict[str, Place], job_id: str, data: dict[str, Any]
    ) -> None:
        places[job_id] = (-data["new_priority"], places[job_id][1])
        if job_id in ready[data["queue"]]:
            ready[data["queue"]][job_id] = places[job_id]

    def _started(self, others: dict[str, Place], job_id: str, place: Place, data: dict[str, Any]) -> None:
        for other, before in others.items():
            if before < place and other not in self._limited:
                self.problems.append(f"queue {data['queue']}: job {job_id} started before {other}")
                return
