"""The bounds that the bench holds the server to, each with the median that was measured and its spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.bench.cases import BATCH, ENQUEUE, FETCH
from tools.demo.checks import Checks

if TYPE_CHECKING:
    from tools.bench.figures import Figure, Figures

ALONE_P99_MS_MAX = 10.0
BUSY_CONNECTIONS = 64
JUDGED_CONNECTIONS = (1, BUSY_CONNECTIONS)
FLOOR_RATIO_ONE_QUEUE_MIN = 0.3
FLOOR_RATIO_MANY_QUEUES_MIN = 0.2
FETCH_TO_ENQUEUE_MIN = 0.9
BATCH_TO_SINGLE_MIN = 4.0
FLOOR_DRIFT_MAX = 0.3


def judge(figures: Figures) -> Checks:
    """Return every bound with what was measured; a case that was not measured fails its check."""
    checks = Checks()
    for queues in sorted({figure.queues for figure in figures.figures}):
        _judge_latency(checks, figures, queues)
        _judge_floor_ratio(checks, figures, queues)
        _judge_pair(checks, figures, queues, FETCH, FETCH_TO_ENQUEUE_MIN)
        _judge_pair(checks, figures, queues, BATCH, BATCH_TO_SINGLE_MIN)
    _judge_errors(checks, figures)
    _judge_drift(checks, figures)
    return checks


def _judge_latency(checks: Checks, figures: Figures, queues: int) -> None:
    alone = figures.find(ENQUEUE, connections=1, queues=queues)
    checks.add(
        f"enqueue at 1 connection, {_spoken(queues)}: p99 < {ALONE_P99_MS_MAX:g} ms",
        passed=_measured(alone) and alone is not None and alone.p99_ms < ALONE_P99_MS_MAX,
        found=f"{alone.p99_ms:.2f} ms (p50 {alone.p50_ms:.2f})" if alone else "not measured",
    )


def _judge_floor_ratio(checks: Checks, figures: Figures, queues: int) -> None:
    least = FLOOR_RATIO_ONE_QUEUE_MIN if queues == 1 else FLOOR_RATIO_MANY_QUEUES_MIN
    busy = figures.find(ENQUEUE, connections=BUSY_CONNECTIONS, queues=queues)
    checks.add(
        f"enqueue at {BUSY_CONNECTIONS} connections, {_spoken(queues)}: >= {least:g} of the floor",
        passed=busy is not None and busy.floor_ratio.median >= least,
        found=f"{busy.floor_ratio}, {busy.requests_per_second:,.0f}/s" if busy else "not measured",
    )


def _judge_pair(checks: Checks, figures: Figures, queues: int, case: str, least: float) -> None:
    found = figures.find(case, connections=BUSY_CONNECTIONS, queues=queues)
    checks.add(
        f"{case} at {BUSY_CONNECTIONS} connections, {_spoken(queues)}: >= {least:g} of enqueue in jobs",
        passed=found is not None and found.enqueue_ratio.median >= least,
        found=f"{found.enqueue_ratio}, {found.jobs_per_second:,.0f} jobs/s" if found else "not measured",
    )


def _judge_errors(checks: Checks, figures: Figures) -> None:
    errors = sum(figure.error_count for figure in figures.figures)
    sample = next((f"; first: {figure.error_sample}" for figure in figures.figures if figure.error_sample), "")
    checks.add("every request of every case got a 2xx", passed=errors == 0, found=f"{errors} did not{sample}")


def _judge_drift(checks: Checks, figures: Figures) -> None:
    """A floor that something else on the machine held down would make every ratio look good."""
    floor = next((floor for floor in figures.drifts if floor.connections == BUSY_CONNECTIONS), None)
    checks.add(
        f"the floor at {BUSY_CONNECTIONS} connections moved by at most {FLOOR_DRIFT_MAX:.0%} during the run",
        passed=floor is not None and abs(floor.drift) <= FLOOR_DRIFT_MAX,
        found=f"{floor.drift:+.0%}" if floor else "not measured",
    )


def _measured(figure: Figure | None) -> bool:
    return figure is not None and figure.requests_per_second > 0


def _spoken(queues: int) -> str:
    return "one queue" if queues == 1 else f"{queues} queues"
