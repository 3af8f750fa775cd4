"""The clients of a chaos round: each does what real ones do, and every request and answer is written down.

A client repeats what has no clear answer, at any server, with the id or the key that makes a repeat safe. What
has neither is asked once. Every request for a job carries a mark, so that two jobs of one request are seen.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.support.client import Client, new_id
from tests.support.history import Answer

CLIENTS = 16
PAUSE_S = 0.15
REPEAT_S = 0.25
GIVE_UP_S = 120.0
VISIBILITY_MS = 6_000
RETRY_MS = 1_000
FINAL = "FAIL"
"""The error code that ends a job at once."""
UNIQUE_KEYS = 12
RETRY = {"max_attempts": 1_000, "initial_interval_ms": RETRY_MS, "backoff_strategy": "constant", "jitter": False}
BEAT_EVERY_S = 5.0
Act = Callable[[], Awaitable[None]]


class Crowd:
    """Clients that go on until they are told to stop. ``urls`` may change while they do."""

    def __init__(
        self,
        client: Client,
        urls: Sequence[str],
        queues: Sequence[str],
        *,
        seed: int,
        clients: int = CLIENTS,
        pause_s: float = PAUSE_S,
    ) -> None:
        self.client = client
        self.urls = list(urls)
        self.queues = list(queues)
        self.pause_s = pause_s
        self.stopping = False
        self.wrong: list[Answer] = []
        """Answers that no moment of any run allows."""
        self.unsettled: list[Answer] = []
        """Requests that nobody answered although they were repeated for long."""
        one_each = [_One(self, number, random.Random(f"{seed}-{number}")) for number in range(clients)]
        self._tasks = [asyncio.create_task(one.live(), name=f"client-{one.name}") for one in one_each]

    async def stop(self) -> None:
        """End after the requests that are under way."""
        self.stopping = True
        await asyncio.gather(*self._tasks)

    def judge(self, answer: Answer, *allowed: int) -> Answer:
        """Keep an answer that must not be: a 503 is allowed when it says when to come again."""
        busy = answer.status == 503 and answer.retry_after
        if answer.status and not busy and answer.status not in allowed:
            self.wrong.append(answer)
        return answer


class _One:
    """One client, who is also a worker."""

    def __init__(self, crowd: Crowd, number: int, dice: random.Random) -> None:
        self._crowd = crowd
        self._dice = dice
        self.name = f"crowd-{number}"
        self._count = 0
        self._beat_at = 0.0

    async def live(self) -> None:
        """Act, pause, act, until the crowd stops."""
        acts: list[Act] = [self._with_id, self._with_key, self._unique, self._plain, self._cancel, self._look]
        weights = [3, 3, 2, 1, 1, 3]
        while not self._crowd.stopping:
            await asyncio.sleep(self._dice.uniform(0.5, 1.5) * self._crowd.pause_s)
            await self._beat_if_due()
            await (self._work() if self._dice.random() < 0.5 else self._dice.choices(acts, weights)[0]())

    # -- asking -------------------------------------------------------------------------------------------

    async def _ask(self, method: str, path: str, sent: Any, *allowed: int, key: str = "") -> Answer:
        crowd = self._crowd
        answer = await crowd.client.ask(self._dice.choice(crowd.urls), method, path, sent, key=key)
        return crowd.judge(answer, *allowed)

    async def _insist(self, path: str, sent: Any, *allowed: int, key: str = "") -> Answer:
        """Repeat until somebody knows."""
        deadline = time.monotonic() + GIVE_UP_S
        while (answer := await self._ask("POST", path, sent, *allowed, key=key)).unknown:
            if time.monotonic() > deadline:
                self._crowd.unsettled.append(answer)
                break
            await asyncio.sleep(REPEAT_S)
        return answer

    # -- jobs ---------------------------------------------------------------------------------------------

    def _wanted(self, **options: Any) -> dict[str, Any]:
        self._count += 1
        return {
            "type": "chaos.job",
            "queue": self._dice.choice(self._crowd.queues),
            "args": [self.name, self._count],
            "meta": {"mark": f"{self.name}-{self._count}"},
            "options": {"visibility_timeout_ms": VISIBILITY_MS, "retry": RETRY, **options},
        }

    async def _with_id(self) -> None:
        wanted = {"id": new_id(self._dice), **self._wanted()}
        answer = await self._insist("/jobs", wanted, 201, 409)
        if answer.status == 201 or answer.code == "duplicate":
            self._crowd.client.history.wanted[wanted["id"]] = wanted

    async def _with_key(self) -> None:
        wanted = self._wanted()
        self._note(wanted, await self._insist("/jobs", wanted, 201, key=f"key-{wanted['meta']['mark']}"))

    async def _plain(self) -> None:
        wanted = self._wanted()
        self._note(wanted, await self._ask("POST", "/jobs", wanted, 201))

    async def _unique(self) -> None:
        rule = {"keys": ["type", "args"], "on_conflict": self._dice.choice(["reject", "ignore"])}
        wanted = self._wanted(unique=rule)
        wanted |= {"type": "chaos.unique", "args": [self._dice.randrange(UNIQUE_KEYS)]}
        wanted["meta"]["unique"] = str(wanted["args"][0])
        answer = await self._insist("/jobs", wanted, 200, 201, 409, key=f"key-{wanted['meta']['mark']}")
        self._note(wanted, answer)

    def _note(self, wanted: dict[str, Any], answer: Answer) -> None:
        if answer.status == 201:
            self._crowd.client.history.wanted[answer.body["id"]] = wanted

    def _some_job(self) -> str:
        known = list(self._crowd.client.history.wanted)[-200:]
        return self._dice.choice(known) if known else ""

    async def _cancel(self) -> None:
        job_id = self._some_job()
        if job_id:
            await self._insist(f"/jobs/{job_id}/cancel", None, 200, 409)

    async def _look(self) -> None:
        job_id = self._some_job()
        if job_id:
            await self._ask("GET", f"/jobs/{job_id}", None, 200)

    # -- work ---------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        queues = self._dice.sample(self._crowd.queues, min(3, len(self._crowd.queues)))
        wanted: dict[str, Any] = {"queues": queues, "count": 3, "worker_id": self.name}
        if self._dice.random() < 0.2:
            wanted["wait_ms"] = 500
        answer = await self._ask("POST", "/workers/fetch", wanted, 200)
        for job in answer.body["jobs"] if answer.accepted else ():
            await self._finish(str(job["id"]))

    async def _finish(self, job_id: str) -> None:
        mine = {"job_id": job_id, "worker_id": self.name}
        failure = {"code": "bad", "message": "chaos"}
        luck = self._dice.random()
        if luck < 0.06:
            return  # its lease ends by itself
        if luck < 0.16:
            await self._beat([job_id])
        if luck < 0.75:
            await self._insist("/workers/ack", {**mine, "result": self._count}, 200, 409)
        elif luck < 0.9:
            await self._insist("/workers/nack", {**mine, "error": failure}, 200, 409)
        elif luck < 0.95:
            await self._insist("/workers/nack", {**mine, "error": {**failure, "code": FINAL}}, 200, 409)
        else:
            await self._insist(f"/jobs/{job_id}/cancel", None, 200, 409)

    async def _beat(self, jobs: Sequence[str]) -> None:
        await self._ask("POST", "/workers/heartbeat", {"worker_id": self.name, "active_jobs": list(jobs)}, 200)

    async def _beat_if_due(self) -> None:
        if time.monotonic() - self._beat_at > BEAT_EVERY_S:
            self._beat_at = time.monotonic()
            await self._beat([])
