"""What a soak must show, as checks with figures, and everything it has seen, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from tools.bench.figures import machine
from tools.demo.checks import Checks
from tools.soak.judge import (
    BYTES_GROWTH_MIN,
    FDS_GROWTH_MAX,
    KEYS_GROWTH_MIN,
    RSS_MIB_PER_MIN_MAX,
    Point,
    Trend,
    trend,
    warmup_s,
)
from tools.soak.load import QUEUES
from tools.soak.run import STAYING, Found, Plan
from tools.soak.sample import Kind, Sample

MINUTE_SLOTS = 60
EVENTS_MAX = 10_000
CRON_RUNS_MAX = 100
CRON_RUN_BYTES = 256
REDIS_GROWTH_MIB_MIN = 8.0
CEILINGS: dict[str, int] = {"minute:*": MINUTE_SLOTS * len(QUEUES)}
"""Kinds that fill up slowly to so many keys, and no further."""
SIZE_CEILINGS: dict[str, int] = {"events": EVENTS_MAX, "cron:*": CRON_RUNS_MAX * CRON_RUN_BYTES}
_NO_KIND = Kind(keys=0, type="none", largest=0)


def judge(found: Found) -> Checks:
    """All checks of a run."""
    checks = Checks()
    samples = found.samples
    for name in samples[0].rss_mib:
        _check_worker(checks, name, samples)
    _check_kinds(checks, samples)
    redis = trend(_series(samples, lambda sample: sample.redis_mib))
    checks.add(
        "the memory of Redis does not grow",
        passed=not redis.grows(REDIS_GROWTH_MIB_MIN),
        found=f"{redis.per_min:+.2f} MiB/min at {redis.level:.0f} MiB",
    )
    total = found.total
    checks.add(
        "every answer is a 2xx",
        passed=total.errors == 0,
        found=f"{total.errors} of {sum(total.answers.values()):,} are not. {total.error_sample}".strip(),
    )
    left = {kind: found.left[kind].keys for kind in sorted(found.left.keys() - STAYING)}
    shown = ", ".join(f"{keys} x {kind}" for kind, keys in left.items()) or "nothing"
    checks.add("of jobs that have ended nothing is left behind", passed=not left, found=shown)
    return checks


def _check_worker(checks: Checks, name: str, samples: list[Sample]) -> None:
    rss = trend(_series(samples, lambda sample: sample.rss_mib[name]))
    checks.add(
        f"RSS of {name} grows by less than {RSS_MIB_PER_MIN_MAX:g} MiB/min",
        passed=rss.per_min < RSS_MIB_PER_MIN_MAX,
        found=f"{rss.per_min:+.2f} MiB/min at {rss.level:.0f} MiB, {rss.last:.0f} at last",
    )
    fds = trend(_series(samples, lambda sample: float(sample.fds[name])))
    checks.add(
        f"open files of {name} are flat",
        passed=abs(fds.growth) <= FDS_GROWTH_MAX,
        found=f"{fds.growth:+.1f} in {fds.span_min:.1f} min at {fds.level:.0f}",
    )


def _check_kinds(checks: Checks, samples: list[Sample]) -> None:
    growing = [said for kind in kinds_of(samples) if (said := growth_of(kind, samples))]
    found = "; ".join(growing) or f"none of {len(kinds_of(samples))} kinds"
    checks.add("no kind of key grows in Redis", passed=not growing, found=found)


def kinds_of(samples: list[Sample]) -> list[str]:
    """All kinds that were ever seen."""
    return sorted({kind for sample in samples for kind in sample.kinds})


def growth_of(kind: str, samples: list[Sample]) -> str:
    """How a kind grows, in number or in size; nothing if it does not."""
    keys = keys_trend(kind, samples)
    if keys.grows(KEYS_GROWTH_MIN) and keys.last > CEILINGS.get(kind, 0):
        return f"{kind}: {keys.growth:+.0f} keys in {keys.span_min:.1f} min at {keys.level:.0f}"
    size = size_trend(kind, samples)
    is_text = any(sample.kinds[kind].type == "string" for sample in samples if kind in sample.kinds)
    least = BYTES_GROWTH_MIN if is_text else KEYS_GROWTH_MIN
    if size.grows(least) and size.last > SIZE_CEILINGS.get(kind, 0):
        unit = "bytes" if is_text else "elements"
        return f"{kind}: its largest {size.growth:+.0f} {unit} in {size.span_min:.1f} min at {size.level:.0f}"
    return ""


def keys_trend(kind: str, samples: list[Sample]) -> Trend:
    """How the number of its keys goes."""
    return trend(_series(samples, lambda sample: float(sample.kinds.get(kind, _NO_KIND).keys)))


def size_trend(kind: str, samples: list[Sample]) -> Trend:
    """How the size of its largest key goes."""
    return trend(_series(samples, lambda sample: float(sample.kinds.get(kind, _NO_KIND).largest)))


def _series(samples: list[Sample], value: Callable[[Sample], float]) -> list[Point]:
    return [(sample.at_s, value(sample)) for sample in samples]


# -- for people -----------------------------------------------------------------------------------------------


def show(found: Found, plan: Plan, console: Console) -> None:
    """Print what was measured."""
    for line in _preface(found, plan):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(_kinds_table(found.samples))
    console.print(_answers_table(found))


def _preface(found: Found, plan: Plan) -> Iterator[str]:
    about, samples = machine(), found.samples
    yield f"machine: {about['cores']} cores, shared by load and all servers; {about['cpu']}; {about['python']}"
    yield (
        f"capacity {found.capacity_per_s:,.0f} lives/s, load {found.rate_per_s:,.0f} lives/s for "
        f"{plan.seconds / 60:.1f} min: {found.total.lives:,} lives"
    )
    warm_up = warmup_s([(sample.at_s, 0.0) for sample in samples])
    yield f"{len(samples)} samples, the first {warm_up:.0f} s are warm-up; retention {plan.retention_s:g} s"
    for name in samples[0].loop_wait_ms:
        waits = sorted(sample.loop_wait_ms[name] for sample in samples)
        middle, worst = waits[len(waits) // 2], waits[-1]
        yield f"{name}: slowest GET /livez of a look {middle:.1f} ms (median), {worst:.1f} ms (max)"


def _kinds_table(samples: list[Sample]) -> Table:
    table = Table(
        "kind of key", "keys", "per min", "largest", "per min", title="what Redis holds, after the warm-up"
    )
    for kind in kinds_of(samples):
        keys, size = keys_trend(kind, samples), size_trend(kind, samples)
        table.add_row(
            kind, f"{keys.level:,.0f}", f"{keys.per_min:+.2f}", f"{size.level:,.0f}", f"{size.per_min:+.2f}"
        )
    return table


def _answers_table(found: Found) -> Table:
    table = Table("operation", "answers", "not 2xx", "p50 ms", "p99 ms", title="answers, capacity run included")
    latencies = found.total.shown()["latency_ms"]
    for operation, figures in latencies.items():
        counts = {status: n for (name, status), n in found.total.answers.items() if name == operation}
        bad = sum(n for status, n in counts.items() if not 200 <= status < 300)
        table.add_row(operation, f"{sum(counts.values()):,}", str(bad), str(figures["p50"]), str(figures["p99"]))
    return table


def write_json(found: Found, plan: Plan, checks: Checks, path: Path) -> None:
    """Write everything."""
    content = {
        "machine": machine(),
        "plan": asdict(plan),
        "capacity_per_s": found.capacity_per_s,
        "rate_per_s": found.rate_per_s,
        "total": found.total.shown(),
        "samples": [asdict(sample) for sample in found.samples],
        "left": {kind: asdict(about) for kind, about in found.left.items()},
        "checks": [asdict(check) for check in checks.made],
    }
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
