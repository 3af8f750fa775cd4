"""The metrics page of a real worker says what happened."""

from __future__ import annotations

from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import WorkerFactory
from tests.support.client import Client, until


async def _samples(url: str) -> dict[str, float]:
    """The sum of each sample over its labels, as a scraper reads the page."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain")
        text = await answer.text()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


async def test_a_life_is_told(worker_factory: WorkerFactory) -> None:
    worker = await worker_factory(partitions=2)
    async with Client() as client:
        made = await client.enqueue(worker.url, "mail", type="a.b", args=[])
        before = await _samples(worker.url)
        assert (before["ojs_worker_ready"], before["ojs_partition_live"], before["ojs_backend_up"]) == (1, 2, 1)
        got: Any = await client.must(
            worker.url, "POST", "/workers/fetch", {"queues": ["mail"], "worker_id": "w", "wait_ms": 0}
        )
        assert [job["id"] for job in got["jobs"]] == [made["id"]]
        await client.must(worker.url, "POST", "/workers/ack", {"job_id": made["id"], "worker_id": "w"})

        async def told() -> bool:
            samples = await _samples(worker.url)
            # Events are counted when their topic has them.
            names = ("ojs_job_enqueued_total", "ojs_job_completed_total", "ojs_job_duration_seconds_count")
            return [samples.get(name) for name in names] == [1, 1, 1] and samples["ojs_partition_lag_records"] == 0

        await until(told, "the life is in the metrics", 20)
        samples = await _samples(worker.url)
    assert samples["ojs_http_requests_total"] >= 3
    assert samples["ojs_round_commands_count"] >= 3
    assert samples["ojs_partition_fences_total"] == 0
