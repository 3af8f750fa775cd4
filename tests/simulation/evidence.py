"""What an audit may look at: topics, stored records, client histories. No code of the fold is used here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.json import decode as decode_json

from tests.simulation.history import Asked, History
from tests.support.recount import jobs

Event = dict[str, Any]
Topics = dict[tuple[str, int], list[Any]]
BURIED_BULK = b"bulk:"
"""Keys of records that the bulk agent has put aside begin with this."""


class Evidence:
    """All that is left of a run; ``problems`` are what is wrong with it already."""

    def __init__(self, topics: Topics, dumps: list[dict[str, Any]], history: History) -> None:
        self.problems: list[str] = []
        self.dumps = dumps
        self.history = history
        self.lines = history.lines
        self.homes = [decode_json(dump["home"]) for dump in dumps]
        self.stored = {job_id: record for dump in dumps for job_id, record in jobs(dump).items()}
        self._topics = topics
        self.events: list[list[Event]] = [self._events_of(home) for home in range(len(dumps))]
        self.deleted = Deleted(self.lines)

    def records(self, topic: str, home: int) -> list[Any]:
        """The records of a partition."""
        return self._topics.get((f"sim.{topic}", home), [])

    def asked(self, *kinds: str) -> Iterable[Asked]:
        """What clients have asked, in order."""
        return (line for line in self.lines if line.kind in kinds)

    def job_events(self) -> Iterable[Event]:
        """Events of jobs, home by home."""
        return (event for events in self.events for event in events if event["type"].startswith("job."))

    def in_time(self) -> Sequence[Event]:
        """All events by their times: of one home in their order, if no clock was ever set back."""
        return sorted((event for events in self.events for event in events), key=lambda event: event["time"])

    def positions(self, topic: str, home: int) -> dict[int, bytes]:
        """Position -> value; what a home has sent again must be the same."""
        found: dict[int, bytes] = {}
        for record in self.records(topic, home):
            if record.key is not None and record.key.startswith(BURIED_BULK):
                continue
            number = int(dict(record.headers)["ojs-position"])
            if found.setdefault(number, record.value) != record.value:
                self.problems.append(f"{topic}[{home}] has two different records at position {number}")
        return found

    def _events_of(self, home: int) -> list[Event]:
        found = self.positions("events", home)
        last = self.homes[home].get("events", 0)
        missing = sorted(set(range(1, last + 1)) - found.keys())
        if missing:
            self.problems.append(f"events[{home}] lacks positions {missing[:10]} of {last}")
        if max(found, default=0) > last:
            self.problems.append(f"events[{home}] has position {max(found)}, the home has made only {last}")
        events = [decode_json(found[number]) for number in sorted(found)]
        ids = Counter(event["id"] for event in events)
        self.problems += [f"event id {one} is used at {n} positions" for one, n in ids.items() if n > 1]
        return events


class Deleted:
    """Jobs that clients have had deleted: nothing but their events is left of them."""

    def __init__(self, lines: Iterable[Asked]) -> None:
        self.surely: set[str] = set()
        self.maybe: set[str] = set()
        """those whose deletion was not answered as well"""
        for line in lines:
            if line.kind == "delete_dead" and line.answer == "ok":
                self.surely.add(line.fields["job_id"])
            elif line.kind == "delete_dead" and line.answer == "unknown":
                self.maybe.add(line.fields["job_id"])
            elif line.kind == "bulk" and line.fields["action"] == "delete" and line.answer == "ok":
                self.surely.update(line.data["done"])
            elif line.kind == "bulk" and line.fields["action"] == "delete" and line.answer == "unknown":
                self.maybe.update(line.fields["ids"])
        self.maybe |= self.surely
