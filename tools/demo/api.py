"""The few calls of the OJS HTTP API that the demo makes, with bounded patience for a 429 or 503."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import aiohttp
import orjson

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

TRIES_MAX = 6
PAUSE_S = 0.5
TIMEOUT_S = 30.0
PAGE_JOBS = 200
_MEDIA_TYPE = "application/openjobspec+json"
_LATER = frozenset({429, 503})

Json = dict[str, Any]


class ApiError(Exception):
    """The server refused a request that the demo needs."""

    def __init__(self, status: int, path: str, body: str) -> None:
        super().__init__(f"{path} answered {status}: {body[:400]}")
        self.status = status


class Api:
    """A client of one server; use it as an async context manager."""

    def __init__(self, url: str, *, connections: int = 32) -> None:
        self._url = url.rstrip("/")
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            headers={"Content-Type": _MEDIA_TYPE, "OJS-Version": "1.0"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def enqueue_batch(self, jobs: list[Json]) -> list[str]:
        """Enqueue jobs in one request and return their ids in the same order."""
        answer = await self._call("POST", "/ojs/v1/jobs/batch", {"jobs": jobs})
        return [job["id"] for job in answer["jobs"]]

    async def fetch(self, *, queues: Sequence[str], worker_id: str, count: int, wait_ms: int) -> list[Json]:
        """Claim up to `count` jobs, waiting up to `wait_ms` for the first."""
        body = {"queues": queues, "worker_id": worker_id, "count": count, "wait_ms": wait_ms}
        answer = await self._call("POST", "/ojs/v1/workers/fetch", body)
        jobs: list[Json] = answer["jobs"]
        return jobs

    async def ack(self, *, job_id: str, worker_id: str, result: Json) -> None:
        """Complete a claimed job with its result."""
        await self._call(
            "POST", "/ojs/v1/workers/ack", {"job_id": job_id, "worker_id": worker_id, "result": result}
        )

    async def nack(self, *, job_id: str, worker_id: str, error: Json) -> str:
        """Report a failure and return the state that the job has now."""
        body = {"job_id": job_id, "worker_id": worker_id, "error": error}
        answer = await self._call("POST", "/ojs/v1/workers/nack", body)
        return str(answer["state"])

    async def job(self, job_id: str) -> Json:
        """Return the record of a job."""
        answer = await self._call("GET", f"/ojs/v1/jobs/{job_id}")
        record: Json = answer["job"]
        return record

    async def jobs(self, *, queue: str, job_type: str) -> list[Json]:
        """Return the first jobs of a queue that have this type."""
        answer = await self._call("GET", f"/ojs/v1/jobs?queue={queue}&type={job_type}&limit={PAGE_JOBS}")
        jobs: list[Json] = answer["jobs"]
        return jobs

    async def start_workflow(self, workflow: Json) -> Json:
        """Start a workflow and return it. Never sent twice: a workflow has no id by which it would be known."""
        answer = await self._call("POST", "/ojs/v1/workflows", workflow, tries_max=1)
        created: Json = answer["workflow"]
        return created

    async def workflow(self, workflow_id: str) -> Json:
        """Return a workflow as it is now."""
        answer = await self._call("GET", f"/ojs/v1/workflows/{workflow_id}")
        shown: Json = answer["workflow"]
        return shown

    async def dead_letters(self, queue: str) -> AsyncIterator[Json]:
        """Yield all dead-lettered jobs of a queue."""
        path = f"/ojs/v1/dead-letter?queue={queue}&limit={PAGE_JOBS}"
        cursor = ""
        while True:
            page = await self._call("GET", f"{path}&cursor={quote(cursor)}" if cursor else path)
            for job in page["jobs"]:
                yield job
            cursor = str(page.get("pagination", {}).get("next_cursor") or "")
            if not cursor:
                return

    async def _call(self, method: str, path: str, body: Json | None = None, *, tries_max: int = TRIES_MAX) -> Json:
        """Send a request again while the server says 429 or 503.

        A 503 may have been applied all the same: a repeated ack or nack then gets 409, which the caller
        leaves to the final comparison of all records.
        """
        status, content = await self._send(method, path, body)
        for attempt in range(1, tries_max):
            if status not in _LATER:
                break
            await asyncio.sleep(PAUSE_S * attempt)
            status, content = await self._send(method, path, body)
        if status >= 300:
            raise ApiError(status, path, content.decode(errors="replace"))
        answer: Json = orjson.loads(content)
        return answer

    async def _send(self, method: str, path: str, body: Json | None) -> tuple[int, bytes]:
        if self._session is None:
            raise RuntimeError("Api is used outside of `async with`")
        data = None if body is None else orjson.dumps(body)
        async with self._session.request(method, self._url + path, data=data) as response:
            return response.status, await response.read()
