"""After a run: the outside checker over everything, and the fold of the log against Redis."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from tests.support.checker import check, check_stats
from tests.support.client import Client
from tests.support.replay import replay_difference
from tests.support.stranger import read_topic

EVENTS_S = 15.0
"""Events follow their commit: so long the checker waits for the last ones."""


async def audit(client: Client, url: str, *, bootstrap: str, redis_url: str, namespace: str) -> list[str]:
    """Everything that is wrong after a run whose clients have stopped."""
    deadline = time.monotonic() + EVENTS_S
    while (problems := await _outside(client, url, bootstrap, namespace)) and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
    difference = await replay_difference(bootstrap, redis_url, namespace)
    return problems + ([f"the fold of the log differs: {difference}"] if difference else [])


async def _outside(client: Client, url: str, bootstrap: str, namespace: str) -> list[str]:
    events = await read_topic(bootstrap, f"{namespace}.events")
    jobs = await _jobs(client, url, events)
    problems = check(client.history, events, jobs)
    for queue in sorted({str(job["queue"]) for job in jobs.values() if job}):
        problems += check_stats(queue, await client.stats(url, queue), jobs.values())
    return problems


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
