"""After a run: the outside checker over everything, and the fold of the log against Redis."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.checker import Findings, check, check_stats
from tests.support.client import Client
from tests.support.recount import recount_all
from tests.support.replay import fold_difference, stored_dumps
from tests.support.stranger import read_topic

EVENTS_S = 15.0
"""Events follow their commit: so long the checker waits for the last ones."""
SETTLE_S = 15.0
"""So long homes may take to hear of each other."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit has seen, and what it has found."""

    findings: Findings
    events: dict[int, list[Any]]
    jobs: int


async def audit(
    client: Client, url: str, *, bootstrap: str, redis_url: str, namespace: str, releases: int = 1
) -> list[str]:
    """Everything that is wrong after a run whose clients have stopped; ``releases`` of the code were at work."""
    report = await inspect(
        client, url, bootstrap=bootstrap, redis_url=redis_url, namespace=namespace, releases=releases
    )
    return report.findings.all


async def inspect(
    client: Client, url: str, *, bootstrap: str, redis_url: str, namespace: str, releases: int = 1
) -> Report:
    """The same, with what was looked at."""
    deadline = time.monotonic() + EVENTS_S
    while (report := await _outside(client, url, bootstrap, namespace)).findings.all:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.5)
    report.findings.other.extend(await _inside(bootstrap, redis_url, namespace, releases=releases))
    return report


async def _inside(bootstrap: str, redis_url: str, namespace: str, *, releases: int) -> list[str]:
    """Redis against the fold of the log and a recount, once no message is on its way."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        dumps = await stored_dumps(bootstrap, redis_url, namespace)
        problems = recount_all(dumps)
        if not problems or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.5)
    # Each release may count more for charts than the one before (ADR 12).
    difference = await fold_difference(dumps, bootstrap, namespace, statistics=releases == 1)
    return problems + ([f"the fold of the log differs: {difference}"] if difference else [])


async def _outside(client: Client, url: str, bootstrap: str, namespace: str) -> Report:
    events = await read_topic(bootstrap, f"{namespace}.events")
    jobs = await _jobs(client, url, events)
    findings = check(client.history, events, jobs)
    for queue in sorted({str(job["queue"]) for job in jobs.values() if job}):
        findings.other.extend(check_stats(queue, await client.stats(url, queue), jobs.values()))
    return Report(findings, events, len(jobs))


async def _jobs(client: Client, url: str, events: dict[int, list[Any]]) -> dict[str, dict[str, Any] | None]:
    """Every job that somebody asked for or that the topic speaks of, by GET."""
    named = {event["subject"] for records in events.values() for event in map(_value, records)}
    ids: Sequence[str] = sorted({*client.history.wanted, *(name for name in named if _is_id(name))})
    found: dict[str, dict[str, Any] | None] = {}
    for start in range(0, len(ids), 50):
        part = ids[start : start + 50]
        found |= zip(part, await asyncio.gather(*(client.job(url, job_id) for job_id in part)), strict=True)
    return found


def _value(record: Any) -> dict[str, Any]:
    return dict(json.loads(record.value))


def _is_id(name: str) -> bool:
    return len(name) == 36 and name.count("-") == 4
