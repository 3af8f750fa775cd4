"""The outside checker: what clients were told, against the events topic and the records over HTTP.

It imports nothing of the server. Every finding is a sentence; an empty list is the proof.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.support.history import Answer, History

TERMINAL = {"completed", "cancelled", "discarded"}
STATES = ("available", "active", "scheduled", "retryable", "pending", *sorted(TERMINAL))
LEGAL: Mapping[str, frozenset[str]] = {
    "job.enqueued": frozenset({"", "scheduled", "pending", "active", "failed", "retryable"}),
    "job.scheduled": frozenset({""}),
    "job.pending": frozenset({""}),
    "job.started": frozenset({"available"}),
    "job.completed": frozenset({"active"}),
    "job.failed": frozenset({"active"}),
    "job.retrying": frozenset({"failed"}),
    "job.discarded": frozenset({"failed", "active"}),
    "job.expired": frozenset({"available", "scheduled", "retryable"}),
    "job.cancelled": frozenset({"scheduled", "pending", "available", "retryable", "active"}),
}
"""Event -> the states it may be seen in; "" is the unborn job, "failed" the moment between two events."""
LEADS_TO = {
    "job.enqueued": "available",
    "job.scheduled": "scheduled",
    "job.pending": "pending",
    "job.started": "active",
    "job.completed": "completed",
    "job.failed": "failed",
    "job.retrying": "retryable",
    "job.discarded": "discarded",
    "job.expired": "discarded",
    "job.cancelled": "cancelled",
}


@dataclass(slots=True)
class Seen:
    """The events of one job, walked through."""

    state: str = ""
    attempt: int = 0
    trail: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong, by the promise that it breaks."""

    lost: list[str]
    """Something that was accepted or had happened is not there."""
    twice: list[str]
    """Something was applied, given out or acknowledged more than once."""
    false: list[str]
    """A 2xx whose effect nobody can find."""
    other: list[str]

    @property
    def all(self) -> list[str]:
        return self.lost + self.twice + self.false + self.other


def check(
    history: History, events: Mapping[int, Iterable[Any]], jobs: Mapping[str, Mapping[str, Any] | None]
) -> Findings:
    """Everything that is wrong. ``events``: records by partition; ``jobs``: id -> the job by GET, None if 404."""
    distinct, holes = distinct_events(events)
    walked, illegal = _walk(distinct)
    return Findings(
        lost=holes + _lost(history, walked, jobs),
        twice=illegal
        + _strangers(history, walked)
        + _told_twice(history)
        + _marks(jobs)
        + _uniques(distinct, jobs),
        false=_acks(history, walked) + _cancels(history, walked),
        other=_states(walked, jobs),
    )


def distinct_events(events: Mapping[int, Iterable[Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Distinct events in order, and whether positions of each partition are 1, 2, 3 ... without a hole."""
    problems: list[str] = []
    found: list[dict[str, Any]] = []
    ids: set[str] = set()
    for partition, records in events.items():
        at: dict[int, dict[str, Any]] = {}
        for record in records:
            position = int(dict(record.headers)["ojs-position"])
            event = json.loads(record.value)
            if at.setdefault(position, event) != event:
                problems.append(f"events[{partition}] has two different events at position {position}")
        missing = sorted(set(range(1, max(at, default=0) + 1)) - at.keys())
        if missing:
            problems.append(f"events[{partition}] ends at {max(at)} and has no positions {missing[:5]}")
        for position in sorted(at):
            if at[position]["id"] in ids:
                problems.append(f"event {at[position]['id']} is at two positions")
            ids.add(at[position]["id"])
            found.append(at[position])
    return found, problems


def _walk(events: Iterable[dict[str, Any]]) -> tuple[dict[str, Seen], list[str]]:
    seen: dict[str, Seen] = defaultdict(Seen)
    problems: list[str] = []
    for event in events:
        if event["type"] in LEADS_TO:
            problems.extend(_step(seen[event["subject"]], event))
    return dict(seen), problems


def _step(job: Seen, event: dict[str, Any]) -> list[str]:
    kind, problems = event["type"], []
    job.trail.append(kind.removeprefix("job."))
    if job.state not in LEGAL[kind]:
        problems.append(f"{event['subject']}: {kind} in state {job.state or 'unborn'}, trail {job.trail}")
    if kind == "job.started":
        job.attempt += 1
        if event["data"]["attempt"] != job.attempt:
            problems.append(
                f"{event['subject']}: attempt {event['data']['attempt']} started, {job.attempt} is next"
            )
    job.state = LEADS_TO[kind]
    if kind != "job.failed" and event["data"]["state"] != job.state:
        problems.append(f"{event['subject']}: {kind} says state {event['data']['state']}")
    return problems


def _lost(history: History, walked: Mapping[str, Seen], jobs: Mapping[str, Any]) -> list[str]:
    lost = [f"{job_id} was accepted and is not there" for job_id in history.wanted if not jobs.get(job_id)]
    mute = [f"{job_id} was accepted and has no event" for job_id in history.wanted if job_id not in walked]
    changed = [
        f"{job_id}: {name} is {found[name]!r}, {value!r} was asked for"
        for job_id, wanted in history.wanted.items()
        if (found := jobs.get(job_id))
        for name, value in wanted.items()
        if name in ("type", "queue", "args") and found[name] != value
    ]
    return lost + mute + changed


def _strangers(history: History, walked: Mapping[str, Seen]) -> list[str]:
    """Jobs that nobody asked for. An unanswered enqueue may have been applied: those ids are known too."""
    chosen = {answer.sent.get("id") for answer in _enqueues(history) if isinstance(answer.sent, dict)}
    unnamed = sum(1 for answer in _enqueues(history) if answer.unknown and "id" not in (answer.sent or {}))
    strange = [job_id for job_id in walked if job_id not in history.wanted and job_id not in chosen]
    if len(strange) <= unnamed:
        return []
    return [f"{len(strange)} jobs were never asked for, {unnamed} enqueues had no answer: {strange[:5]}"]


def _enqueues(history: History) -> Iterable[Answer]:
    return (answer for answer in history.of("/jobs") if answer.method == "POST")


def _told_twice(history: History) -> list[str]:
    created = Counter(answer.body["id"] for answer in _enqueues(history) if answer.status == 201)
    given = Counter(
        (job["id"], job["attempt"])
        for answer in history.of("/workers/fetch")
        if answer.accepted
        for job in answer.body["jobs"]
    )
    acked = Counter(answer.body["id"] for answer in history.of("/workers/ack") if answer.accepted)
    return [
        *(f"{job_id} was created {times} times" for job_id, times in created.items() if times > 1),
        *(
            f"{job_id} attempt {n} was given out {times} times"
            for (job_id, n), times in given.items()
            if times > 1
        ),
        *(f"{job_id} was acknowledged {times} times" for job_id, times in acked.items() if times > 1),
    ]


def _acks(history: History, walked: Mapping[str, Seen]) -> list[str]:
    acked = [answer.body["id"] for answer in history.of("/workers/ack") if answer.accepted]
    return [
        f"{job_id}: its ack was accepted, its trail is {walked.get(job_id, Seen()).trail}"
        for job_id in acked
        if walked.get(job_id, Seen()).state != "completed"
    ]


def _cancels(history: History, walked: Mapping[str, Seen]) -> list[str]:
    cancelled = [answer.body["job"]["id"] for answer in history.of("/cancel") if answer.accepted]
    return [
        f"{job_id}: its cancel was accepted, its trail is {walked.get(job_id, Seen()).trail}"
        for job_id in cancelled
        if walked.get(job_id, Seen()).state != "cancelled"
    ]


def _marks(jobs: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """A client puts a mark of its own into the meta of each job that it asks for, however often it repeats."""
    marked: dict[str, list[str]] = defaultdict(list)
    for job_id, job in jobs.items():
        if job and "mark" in job["meta"]:
            marked[job["meta"]["mark"]].append(job_id)
    return [f"request {mark} has made {ids}" for mark, ids in marked.items() if len(ids) > 1]


def _uniques(events: Iterable[dict[str, Any]], jobs: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Jobs of one unique key (clients note it in the meta) do not live at the same time, by the log's clock."""
    lives: dict[str, list[str]] = {}
    for event in events:
        if event["type"] in LEADS_TO:
            born = lives.setdefault(event["subject"], [event["time"], "9999"])[0]
            lives[event["subject"]] = [born, event["time"] if LEADS_TO[event["type"]] in TERMINAL else "9999"]
    groups: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for job_id, job in jobs.items():
        if job and "unique" in job["meta"] and job_id in lives:
            born, ended = lives[job_id]
            groups[job["meta"]["unique"]].append((born, ended, job_id))
    return [
        f"{one[2]} and {other[2]} lived at the same time with the unique key {key}"
        for key, group in groups.items()
        for one, other in pairwise(sorted(group))
        if other[0] < one[1]
    ]


def _states(walked: Mapping[str, Seen], jobs: Mapping[str, Any]) -> list[str]:
    return [
        f"{job_id} is {job['state']} at attempt {job['attempt']}, its events say {seen.state} at {seen.attempt}"
        for job_id, seen in walked.items()
        if (job := jobs.get(job_id)) and (job["state"], job["attempt"]) != (seen.state, seen.attempt)
    ]


def check_stats(queue: str, stats: Mapping[str, Any], jobs: Iterable[Mapping[str, Any] | None]) -> list[str]:
    """Whether the counters of a queue are the number of its jobs."""
    counted = Counter(job["state"] for job in jobs if job and job["queue"] == queue)
    return [
        f"queue {queue}: {stats[state]} {state} by its counters, {counted[state]} jobs"
        for state in STATES
        if stats[state] != counted[state]
    ]
