"""The requests of each case, built as bytes before anything is measured."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import Any

import orjson

from tools.bench.wire import post

BATCH_JOBS = 100
FETCH_COUNT_MAX = 100
WORKER_ID = "bench"

FLOOR = "floor"
ENQUEUE = "enqueue"
FETCH = "fetch"
ACK = "ack"
BATCH = f"batch of {BATCH_JOBS}"
CASES = (BATCH, FLOOR, ENQUEUE, FETCH, ACK)
"""In the order of a round: what is compared with each other stands side by side."""

NOTHING_LEFT = b'"jobs":[]'
"""What a fetch answers when the queue has nothing ready."""


def _job(queue: str) -> dict[str, Any]:
    return {"type": "bench.noop", "queue": queue, "args": [{"user": 4711, "action": "welcome"}]}


def enqueue_requests(queues: tuple[str, ...], host: str) -> tuple[bytes, ...]:
    """Return one single enqueue for each queue."""
    return tuple(post("/ojs/v1/jobs", orjson.dumps(_job(queue)), host=host) for queue in queues)


def batch_requests(queues: tuple[str, ...], host: str) -> tuple[bytes, ...]:
    """Return one batch for each queue; all jobs of a batch go to the same queue."""
    return tuple(
        post("/ojs/v1/jobs/batch", orjson.dumps({"jobs": [_job(queue)] * BATCH_JOBS}), host=host)
        for queue in queues
    )


def fetch_requests(queues: tuple[str, ...], host: str, count: int = 1) -> tuple[bytes, ...]:
    """Return one fetch for each queue."""
    return tuple(
        post(
            "/ojs/v1/workers/fetch",
            orjson.dumps({"queues": [queue], "count": count, "worker_id": WORKER_ID}),
            host=host,
        )
        for queue in queues
    )


def ack_requests(job_ids: list[str], host: str) -> tuple[bytes, ...]:
    """Return one ack with a small result for each job."""
    return tuple(
        post(
            "/ojs/v1/workers/ack",
            orjson.dumps({"job_id": job_id, "worker_id": WORKER_ID, "result": {"ok": True}}),
            host=host,
        )
        for job_id in job_ids
    )


def fetched_ids(bodies: tuple[bytes, ...]) -> list[str]:
    """Return the job ids of many fetch answers, one of each answer in turn, so that queues stay mixed."""
    answers = [[job["id"] for job in orjson.loads(body)["jobs"]] for body in bodies]
    return [job_id for job_id in chain.from_iterable(zip_longest(*answers)) if job_id is not None]
