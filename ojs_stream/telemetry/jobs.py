"""What became of jobs, counted from their events when these are in the event topic (OJS.md 6.3).

An event is sent once, whichever worker folds its command and however often records are rebuilt from the log: so
the sum over all workers is true, but for an event that a crash between sending and noting it repeats.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from ojs_stream.core.records import Job, JobRecord
from ojs_stream.core.world import NumberedEvent
from ojs_stream.telemetry.meters import OTHER, Histogram

SERIES_MAX = 200
"""So many pairs of queue and job type have series of their own."""
DURATION_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
QUEUE_TIME_BOUNDS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0)
_ENDS = {"job.completed": "completed_at", "job.discarded": "discarded_at", "job.cancelled": "cancelled_at"}
_WAITING = ("job.enqueued", "job.scheduled", "job.pending")


class JobMeter:
    """The jobs of one type in one queue."""

    __slots__ = ("cancelled", "completed", "durations", "enqueued", "expired", "failed", "queue_time", "retried")

    def __init__(self) -> None:
        self.enqueued = self.completed = self.failed = self.retried = self.cancelled = self.expired = 0
        self.queue_time = Histogram(QUEUE_TIME_BOUNDS_S)
        self.durations: dict[str, Histogram] = {}
        """by final state"""

    def count(self, kind: str) -> None:
        """An event whose name alone says what it counts for."""
        if kind == "job.completed":
            self.completed += 1
        elif kind == "job.retrying":
            self.retried += 1
        elif kind == "job.discarded":
            self.failed += 1
        elif kind == "job.expired":
            # Its state is ``discarded`` as well.
            self.expired += 1
            self.failed += 1
        elif kind == "job.cancelled":
            self.cancelled += 1

    def time(self, kind: str, record: JobRecord) -> None:
        """What only the job's record tells: whether it is new, how long it waited or ran."""
        job, ctl = record.job, record.ctl
        if kind == "job.started":
            if job.attempt == 1:
                self.queue_time.observe(max(0, ctl.since - (ctl.enqueued or ctl.since)) / 1000)
        elif kind in _WAITING:
            self.enqueued += _is_new(record)
        elif kind in _ENDS:
            seconds = _ran_s(job, getattr(job, _ENDS[kind]))
            if seconds is not None:
                self._ended(job.state, seconds)

    def _ended(self, state: str, seconds: float) -> None:
        times = self.durations.get(state)
        if times is None:
            times = self.durations[state] = Histogram(DURATION_BOUNDS_S)
        times.observe(seconds)


def _is_new(record: JobRecord) -> bool:
    """Whether the job has just been stored: later it enters a waiting state at another time, or by these ways."""
    job, ctl = record.job, record.ctl
    moved = job.attempt or job.activated_at or job.re_enqueued_at
    return ctl.since == ctl.created and not moved


def _ran_s(job: Job, end: str | None) -> float | None:
    """How long the job ran until its end; ``None`` if it was waiting then. The fold's texts sort as times."""
    if job.started_at is None or end is None or (job.enqueued_at or "") > job.started_at:
        return None
    failed = job.errors[-1].occurred_at if job.errors else ""
    if job.started_at <= failed < end:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(job.started_at)).total_seconds()


class _StoredData(msgspec.Struct):
    job_type: str = ""


class _StoredEvent(msgspec.Struct):
    data: _StoredData


_decoder = msgspec.json.Decoder(_StoredEvent)


class JobMeters:
    """Meters by queue and job type, bounded."""

    def __init__(self) -> None:
        self._meters: dict[tuple[str, str], JobMeter] = {}

    def on_event(self, event: NumberedEvent) -> None:
        """An event is in its topic."""
        kind, record = event.type, event.job
        if record is None:
            if kind.startswith("job."):
                self._restored(event)
            return
        job = record.job
        meter = self._meters.get((job.queue, job.type))
        if meter is None:
            meter = self._new(job.queue, job.type)
        meter.count(kind)
        meter.time(kind, record)

    def _restored(self, event: NumberedEvent) -> None:
        """After a crash an event comes from the ring, without its job: it counts, but no time is known."""
        meter = self._new(event.queue, _decoder.decode(event.data).data.job_type)
        meter.count(event.type)

    def _new(self, queue: str, kind: str) -> JobMeter:
        key = (queue, kind)
        if key not in self._meters and len(self._meters) >= SERIES_MAX:
            key = (OTHER, OTHER)
        meter = self._meters.get(key)
        if meter is None:
            meter = self._meters[key] = JobMeter()
        return meter

    def series(self) -> list[tuple[tuple[str, str], JobMeter]]:
        """((queue, type), meter), as of now."""
        return list(self._meters.items())
