"""A client that does a little of everything a server can do, so that its log has every kind of command."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

from tests.support.client import Client, new_id

QUEUES = [f"all-{number}" for number in range(6)]
HOUR_LATER = "+PT1H"
SOON_S = 1.2


class Everything:
    """What is refused on the way is of no interest: the log and the state are looked at, not the answers."""

    def __init__(self, client: Client, url: str, seed: int = 1) -> None:
        self._client, self._url = client, url
        self._dice = random.Random(seed)

    async def run(self) -> None:
        await self._call("POST", "/admin/reset")
        for part in (
            self._configure,
            self._enqueue,
            self._unique,
            self._limited,
            self._work,
            self._dead_letters,
            self._workflows,
            self._crons,
            self._bulk,
            self._workers,
            self._queues,
        ):
            await part()
        await self._configure()
        await self._enqueue()

    async def _call(self, method: str, path: str, sent: Any = None, *, key: str = "") -> Any:
        return (await self._client.ask(self._url, method, path, sent, key=key)).body or {}

    def _job(self, queue: str = "", **fields: Any) -> dict[str, Any]:
        args = [self._dice.randrange(100), "ü\u2028", {"deep": [None, 1.5]}]
        return {"type": "every.kind", "queue": queue or self._dice.choice(QUEUES), "args": args, **fields}

    async def _put(self, queue: str = "", **fields: Any) -> str:
        return str((await self._call("POST", "/jobs", self._job(queue, **fields))).get("id", ""))

    async def _take(self, *queues: str, count: int = 1, worker: str = "w") -> list[dict[str, Any]]:
        asked = {"queues": list(queues), "count": count, "worker_id": worker}
        return list((await self._call("POST", "/workers/fetch", asked)).get("jobs", ()))

    async def _ack(self, job: dict[str, Any]) -> None:
        await self._call("POST", "/workers/ack", {"job_id": job["id"], "result": {"of": job["type"]}})

    async def _nack(self, job: dict[str, Any], **more: Any) -> None:
        error = {"code": "handler_error", "message": "no", "details": {"n": 2**70}, **more}
        await self._call("POST", "/workers/nack", {"job_id": job["id"], "error": error})

    async def _configure(self) -> None:
        await self._call("PUT", "/queues/_default/config", {"max_size": 500})
        config = {"max_size": 40, "concurrency": 30, "retention": {"completed": "PT0.5S", "cancelled": "PT2H"}}
        await self._call("PUT", f"/admin/queues/{QUEUES[0]}/config", config)
        await self._call("PUT", f"/queues/{QUEUES[1]}/config", {"default_priority": 5}, key="configured")
        for verb in ("pause", "resume", "drain", "resume"):
            await self._call("POST", f"/queues/{QUEUES[2]}/{verb}")

    async def _enqueue(self) -> None:
        for number in range(12):
            await self._put(meta={"trace": number}, options={"priority": number % 3, "tags": ["a"]})
        for number in range(6):
            await self._put(id=new_id(self._dice), options={"priority": -number})
        await self._put(options={"scheduled_at": HOUR_LATER, "expires_at": "+PT2H"})
        await self._put(options={"scheduled_at": "+PT0.5S"})
        pending = await self._put(options={"pending": True})
        await self._call("POST", f"/jobs/{pending}/activate")
        await self._call("DELETE", f"/jobs/{await self._put()}")
        await self._call("PATCH", f"/jobs/{await self._put()}", {"priority": 9})
        for _ in range(2):
            await self._call("POST", "/jobs", self._job(QUEUES[3]), key="once")
        await self._call("POST", "/jobs/batch", {"jobs": [self._job(id=new_id(self._dice)) for _ in range(8)]})
        await self._call("POST", "/jobs/bulk", {"jobs": [self._job(), {"type": "A B"}, self._job()]}, key="parts")

    async def _unique(self) -> None:
        for conflict in ("reject", "ignore", "replace", "replace_except_schedule", "reject"):
            for queue in QUEUES[:3]:
                rule = {"keys": ["type"], "on_conflict": conflict}
                job = self._job(queue, type=f"only.{queue}", options={"unique": rule, "scheduled_at": HOUR_LATER})
                await self._call("POST", "/jobs", job)
        jobs = [self._job(type=f"both.n{n}", options={"unique": {"keys": ["type"]}}) for n in range(4)]
        await self._call("POST", "/jobs/batch", {"jobs": jobs})

    async def _limited(self) -> None:
        for on_limit in ("wait", "reschedule", "drop"):
            rule = {"key": f"limit-{on_limit}", "concurrency": 1, "on_limit": on_limit}
            for queue in QUEUES[:4]:
                await self._put(queue, options={"rate_limit": rule})
        for job in (await self._take(*QUEUES, count=60))[::2]:
            await self._ack(job)
        await self._call("PUT", "/rate-limits/limit-wait", {"concurrency": 3})
        await self._call("DELETE", "/rate-limits/limit-wait/override")
        made = await self._put(QUEUES[4], options={"rate_limit": {"key": "told", "concurrency": 5}})
        for job in await self._take(QUEUES[4], count=50):
            if job["id"] == made:
                await self._nack(job, type="rate_limited", details={"rate_limit_until": "2099-01-01T00:00:00Z"})

    async def _work(self) -> None:
        retry = {"max_attempts": 3, "initial_interval": "PT0.2S", "jitter": False}
        for number in range(6):
            await self._put("work", options={"retry": retry, "visibility_timeout_ms": 1_000 + number})
        taken = await self._take("work", count=6)
        await self._call("POST", "/workers/heartbeat", {"worker_id": "w", "active_jobs": [j["id"] for j in taken]})
        for job in taken[:2]:
            await self._ack(job)
        for job in taken[2:4]:
            await self._nack(job)
        await asyncio.sleep(2 * SOON_S)
        for job in await self._take("work", count=6):
            await self._nack(job, retryable=False)

    async def _dead_letters(self) -> None:
        retry = {"max_attempts": 1, "on_exhaustion": "dead_letter"}
        ids = [await self._put("mortal", options={"retry": retry}) for _ in range(5)]
        for job in await self._take("mortal", count=5):
            await self._nack(job)
        await self._call("POST", f"/dead-letter/{ids[0]}/retry")
        for job_id, queue in zip(ids[1:3], QUEUES, strict=False):
            await self._call("POST", f"/dead-letter/{job_id}/retry", {"queue": queue, "priority": 3})
        await self._call("DELETE", f"/dead-letter/{ids[3]}")
        await self._call("POST", f"/jobs/{ids[4]}/retry")

    async def _workflows(self) -> None:
        leaves = [{"type": f"step.n{n}", "args": [n], "options": {"queue": QUEUES[n % 6]}} for n in range(6)]
        for body in (
            {"type": "chain", "steps": leaves[:3]},
            {"type": "group", "jobs": leaves},
            {"type": "batch", "jobs": leaves[:2], "callbacks": {"on_complete": leaves[3]}},
            {"type": "chain", "steps": [leaves[0], {"type": "group", "jobs": leaves[1:4]}, leaves[5]]},
        ):
            kept = {"retention": {"completed": "PT0.3S"}} if body["type"] == "batch" else {}
            made = await self._call("POST", "/workflows", {**body, **kept}, key=f"flow {body['type']}")
            if body["type"] == "group":
                await self._call("POST", f"/workflows/{made.get('id')}/cancel")
            for job in await self._take(*QUEUES, count=60):
                await self._ack(job)

    async def _crons(self) -> None:
        for name in ("tick", "tock", "gone"):
            entry = {"name": name, "cron": "@every 1s", "type": "cron.job", "options": {"queue": QUEUES[5]}}
            await self._call("POST", "/cron", entry, key=f"cron {name}")
            await self._call("POST", f"/cron/{name}/trigger")
        await self._call("POST", "/cron/tock/pause")
        await self._call("DELETE", "/cron/gone")
        await asyncio.sleep(2 * SOON_S)
        await self._call("POST", "/cron/tick/pause")

    async def _bulk(self) -> None:
        ids = [await self._put("bulk") for _ in range(9)]
        await self._call("POST", "/jobs/bulk/cancel", {"job_ids": ids[:6]})
        await self._call("POST", "/jobs/bulk/retry", {"job_ids": ids[:4]})
        await self._call("POST", "/jobs/bulk/delete", {"filter": {"state": "cancelled", "queue": "bulk"}})

    async def _workers(self) -> None:
        for number in range(3):
            beat = {
                "worker_id": f"worker-{number}",
                "hostname": "h",
                "pid": 7,
                "queues": QUEUES,
                "labels": {"a": 1},
            }
            await self._call("POST", "/workers/heartbeat", beat)
        await self._call("POST", "/admin/workers/worker-0/quiet")
        await self._call("DELETE", "/workers/worker-1")

    async def _queues(self) -> None:
        for queue, verb in (("old", "move"), ("older", "discard")):
            for _ in range(3):
                await self._put(queue)
            gone = {"strategy": verb, **({"target_queue": "new"} if verb == "move" else {})}
            await self._call("DELETE", f"/queues/{queue}", gone)
        await self._put("purged")
        await self._call("POST", "/queues/purged/purge", {"states": ["available"]})
        await self._call("DELETE", "/admin/queues/purged/jobs", {"states": ["available"], "confirm": True})


def by_hand(job_id: str) -> list[dict[str, Any]]:
    """Commands that a server writes only when something goes wrong, as it would write them."""
    head = {"v": 1, "actor": "system"}
    return [
        {"kind": "give_back", **head, "job_ids": [job_id], "worker_id": "w"},
        {"kind": "worker_died", **head, "worker_id": "w"},
        {"kind": "ungrant", **head, "job_id": job_id, "ask": 1},
        {"kind": "divert", **head, "job_id": job_id, "ask": 1, "key": "limit-wait"},
        {"kind": "limit_pause", **head, "key": "limit-wait", "until": 4_000_000_000_000},
        {"kind": "cancel_members", **head, "job_ids": [job_id]},
        {"kind": "empty_queue", **head, "queue": "new"},
        {"kind": "drop_workflow", **head, "id": job_id},
    ]


def pack(*commands: Any) -> bytes:
    """A record of the log."""
    return json.dumps({"v": 1, "commands": commands}).encode()
