"""Meters: plain numbers that the worker counts up as it goes, and that a scrape reads (``exposition.py``).

Nothing here knows Prometheus and nothing locks: a count costs an addition, a histogram a bisection. A scrape
reads from another thread; what it sees may be a few nanoseconds old.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

QUEUES_MAX = 200
"""So many queues have series of their own; the rest share one (``OTHER``)."""
OTHER = "_other"
"""No queue and no job type can have this name."""

STAGE_BOUNDS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
HTTP_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
LAG_BOUNDS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
ROUND_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


class Histogram:
    """How many observations fell below each bound (and above the last), and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation; a bound belongs to its bucket."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class HomeMeter:
    """What happened to one home on this worker, whichever owner object it had."""

    __slots__ = ("fences", "lost_events", "records", "recoveries", "rounds")

    def __init__(self) -> None:
        self.records = self.fences = self.recoveries = self.lost_events = 0
        self.rounds = Histogram(ROUND_BOUNDS)
        """Commands of each committed round: their count is that of the rounds, their sum that of the commands."""

    def committed(self, records: int, commands: int) -> None:
        """A round is in the store."""
        self.records += records
        self.rounds.observe(commands)


class StageMeter:
    """How long the stages of a round take, over all homes of the round."""

    __slots__ = ("commit", "fold", "load")

    def __init__(self) -> None:
        self.load, self.fold, self.commit = (Histogram(STAGE_BOUNDS_S) for _ in range(3))


class RouteMeter:
    """The answers of one route."""

    __slots__ = ("method", "path", "statuses", "times")

    def __init__(self, method: str, path: str) -> None:
        self.method = method
        self.path = path
        self.statuses: dict[int, int] = {}
        self.times = Histogram(HTTP_BOUNDS_S)

    def answered(self, status: int, seconds: float) -> None:
        """One request has its answer."""
        statuses = self.statuses
        statuses[status] = statuses.get(status, 0) + 1
        self.times.observe(seconds)


class WebMeter:
    """All routes, and how long clients wait for their jobs to be stored."""

    __slots__ = ("_enqueues", "routes")

    def __init__(self) -> None:
        self.routes: list[RouteMeter] = []
        self._enqueues: dict[str, Histogram] = {}

    def route(self, method: str, path: str) -> RouteMeter:
        """The meter of a route that is being registered."""
        meter = RouteMeter(method, path)
        self.routes.append(meter)
        return meter

    def enqueued(self, queue: str, seconds: float) -> None:
        """Jobs for ``queue`` are stored (or refused by their home)."""
        times = self._enqueues.get(queue)
        if times is None:
            times = self._new_queue(queue if len(self._enqueues) < QUEUES_MAX else OTHER)
        times.observe(seconds)

    def _new_queue(self, name: str) -> Histogram:
        known = self._enqueues.get(name)
        if known is None:
            known = self._enqueues[name] = Histogram(HTTP_BOUNDS_S)
        return known

    def enqueues(self) -> list[tuple[str, Histogram]]:
        """Queue and times, as of now."""
        return list(self._enqueues.items())
