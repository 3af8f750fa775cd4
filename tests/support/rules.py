"""The rules of OJS once more, written from the specification and sharing nothing with the fold.

One dict of jobs and plain loops: slow, and easy to check by eye. Time stands still but for ``wait``. Labels of
jobs are ``1``, ``2``, ... as they are enqueued, ``w1:0`` for a step of a workflow; what a client is told is a
word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

RETRY_AFTER_MS = 1_000
UNFINISHED = ("available", "scheduled", "pending", "retryable", "active")
UNIQUE_STATES = ("available", "active", "scheduled", "retryable", "pending")


@dataclass
class Wish:
    """A job as a client wants it."""

    queue: str
    priority: int = 0
    delay_ms: int = 0
    attempts: int = 2
    unique: str = ""
    """The value that makes it unique, and what happens when it is taken."""
    conflict: str = "reject"
    unique_states: tuple[str, ...] = UNIQUE_STATES
    limit: str = ""
    slots: int = 0


@dataclass
class Job:
    """A job as the rules see it."""

    label: str
    wish: Wish
    state: str
    place: int = 0
    attempt: int = 0
    due: int = 0
    granted: bool = False
    flow: str = ""


@dataclass
class Flow:
    """A chain or a group."""

    kind: str
    wishes: tuple[Wish, ...]
    state: str = "running"
    jobs: list[Job] = field(default_factory=list)


class Rules:
    """Everything that a server knows."""

    def __init__(self) -> None:
        self.now = 0
        self.jobs: dict[str, Job] = {}
        self.flows: dict[str, Flow] = {}
        self._places = 0
        self._enqueued = 0

    # -- what clients ask -------------------------------------------------------------------------------

    def enqueue(self, wishes: tuple[Wish, ...]) -> str:
        """All or none: ``stored``, ``duplicate``, or ``existing <label>`` for a single job."""
        labels = [str(self._enqueued + 1 + place) for place in range(len(wishes))]
        self._enqueued += len(wishes)
        inside: list[Wish] = []
        for wish in wishes:
            holder = self._holder(wish)
            twin = any(other.unique == wish.unique for other in inside) if wish.unique else False
            if twin or (holder is not None and wish.conflict == "reject"):
                return "duplicate"
            inside.append(wish)
        told = "stored"
        for label, wish in zip(labels, wishes, strict=True):
            holder = self._holder(wish)
            if holder is not None and wish.conflict == "ignore":
                told = f"existing {holder.label}"
                continue
            if holder is not None:
                self._end(holder, "cancelled")
            self._store(label, wish)
        return told

    def claim(self, queue: str, count: int) -> list[str]:
        """The labels of the jobs that are leased now, in order."""
        ready = [job for job in self._in(queue, "available") if not job.wish.limit or job.granted]
        ready.sort(key=lambda job: (-job.wish.priority, job.place))
        for job in ready[:count]:
            job.state, job.granted = "active", False
            job.attempt += 1
        return [job.label for job in ready[:count]]

    def ack(self, label: str) -> str:
        """``ok``, ``conflict`` or ``not_found``."""
        return self._finish(label, "completed")

    def nack(self, label: str) -> str:
        """As ``ack``: to be tried again, or the end."""
        job = self.jobs.get(label)
        if job is None or job.state != "active":
            return "not_found" if job is None else "conflict"
        if job.attempt >= job.wish.attempts:
            return self._finish(label, "discarded")
        job.state, job.due = "retryable", self.now + RETRY_AFTER_MS
        self._grant()
        return "ok"

    def cancel(self, label: str) -> str:
        """As ``ack``."""
        job = self.jobs.get(label)
        if job is None or job.state not in UNFINISHED:
            return "not_found" if job is None else "conflict"
        self._end(job, "cancelled")
        return "ok"

    def start(self, kind: str, wishes: tuple[Wish, ...]) -> None:
        """Begin a chain or a group."""
        name = f"w{len(self.flows) + 1}"
        flow = self.flows[name] = Flow(kind, wishes)
        for _ in wishes[:1] if kind == "chain" else wishes:
            self._next_step(name, flow)

    def stop(self, name: str) -> str:
        """Cancel a workflow."""
        flow = self.flows.get(name)
        if flow is None:
            return "not_found"
        if flow.state != "running":
            return "conflict"
        flow.state = "cancelled"
        for job in flow.jobs:
            if job.state in UNFINISHED:
                self._end(job, "cancelled")
        return "ok"

    def wait(self, ms: int) -> None:
        """Time passes, and what is due becomes available: the earliest first, then the older job."""
        self.now += ms
        due = [
            job for job in self.jobs.values() if job.state in ("scheduled", "retryable") and job.due <= self.now
        ]
        order = list(self.jobs)
        for job in sorted(due, key=lambda job: (job.due, order.index(job.label))):
            self._make_available(job)

    # -- what follows -----------------------------------------------------------------------------------

    def _in(self, queue: str, *states: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.wish.queue == queue and job.state in states]

    def _holder(self, wish: Wish) -> Job | None:
        """The job that makes ``wish`` a duplicate. The last one that came into its states has the lock."""
        if not wish.unique:
            return None
        same = [job for job in self.jobs.values() if job.wish.unique == wish.unique]
        return next((job for job in reversed(same) if job.state in wish.unique_states), None)

    def _store(self, label: str, wish: Wish, flow: str = "") -> Job:
        job = self.jobs[label] = Job(label, wish, "scheduled", due=self.now + wish.delay_ms, flow=flow)
        if not wish.delay_ms:
            self._make_available(job)
        return job

    def _make_available(self, job: Job) -> None:
        self._places += 1
        job.state, job.place, job.due = "available", self._places, 0
        self._grant()

    def _grant(self) -> None:
        """A slot for the first that waits, as long as there are any."""
        for key in {job.wish.limit for job in self.jobs.values() if job.wish.limit}:
            under = [job for job in self.jobs.values() if job.wish.limit == key]
            used = sum(job.state == "active" or (job.state == "available" and job.granted) for job in under)
            waiting = [job for job in under if job.state == "available" and not job.granted]
            waiting.sort(key=lambda job: (-job.wish.priority, job.place))
            for job in waiting[: max(0, under[0].wish.slots - used)]:
                job.granted = True

    def _finish(self, label: str, state: str) -> str:
        job = self.jobs.get(label)
        if job is None or job.state != "active":
            return "not_found" if job is None else "conflict"
        self._end(job, state)
        return "ok"

    def _end(self, job: Job, state: str) -> None:
        job.state, job.granted = state, False
        self._grant()
        flow = self.flows.get(job.flow)
        if flow is not None and flow.state == "running":
            self._advance(job.flow, flow)

    def _advance(self, name: str, flow: Flow) -> None:
        ended = [job for job in flow.jobs if job.state not in UNFINISHED]
        failed = any(job.state != "completed" for job in ended)
        if len(ended) < len(flow.jobs):
            return
        if failed:
            flow.state = "failed"
        elif len(flow.jobs) == len(flow.wishes):
            flow.state = "completed"
        else:
            self._next_step(name, flow)

    def _next_step(self, name: str, flow: Flow) -> None:
        place = len(flow.jobs)
        flow.jobs.append(self._store(f"{name}:{place}", flow.wishes[place], flow=name))

    def ended(self) -> dict[str, str]:
        """The states of the workflows."""
        return {name: flow.state for name, flow in self.flows.items()}

    def shown(self) -> Iterator[tuple[str, str, int]]:
        """What a client sees of every job: (label, state, attempt)."""
        for job in self.jobs.values():
            yield job.label, job.state, job.attempt
