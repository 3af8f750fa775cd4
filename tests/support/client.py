"""Clients as they are outside: HTTP by aiohttp, every answer written down, no knowledge of the server's inside."""

from __future__ import annotations

import asyncio
import io
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

import aiohttp

from tests.support.history import Answer, History

API = "/ojs/v1"
GIVE_UP_S = 30.0
TIMEOUT_S = 20.0


def new_id(dice: random.Random) -> str:
    """A UUIDv7 that a client made."""
    a, b, c = dice.getrandbits(48), dice.getrandbits(12), dice.getrandbits(62) | 2 << 62
    text = f"{a:012x}7{b:03x}{c:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


async def until(
    holds: Callable[[], Awaitable[Any]], what: str, within_s: float = 20.0, every_s: float = 0.05
) -> Any:
    """Ask again until the answer is true, and give it."""
    deadline = time.monotonic() + within_s
    while not (found := await holds()):
        assert time.monotonic() < deadline, f"after {within_s:g} s still not: {what}"
        await asyncio.sleep(every_s)
    return found


class Client:
    """Asks servers; what goes wrong on the way is an answer with status 0."""

    def __init__(self, history: History | None = None) -> None:
        self.history = history or History()

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, url: str, method: str, path: str, sent: Any = None, *, key: str = "") -> Answer:
        """One request, with a value or with raw bytes, and with an ``Idempotency-Key``."""
        begun = time.monotonic()
        data = sent if isinstance(sent, bytes | None) else json.dumps(sent).encode()
        headers = {"Content-Type": "application/json"} if data is not None else {}
        if key:
            headers["Idempotency-Key"] = key
        got: dict[str, Any] = {}
        try:
            body = None if data is None else io.BytesIO(data)
            async with self._session.request(method, url + API + path, data=body, headers=headers) as answer:
                raw = await answer.read()
                got = {"status": answer.status, "raw": raw, "body": json.loads(raw)}
                got["retry_after"] = answer.headers.get("Retry-After", "")
                got["replayed"] = answer.headers.get("Idempotency-Replayed") == "true"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            got = {"problem": f"{type(error).__name__} {error}"}
        took_s = time.monotonic() - begun
        return self.history.add(
            Answer(url=url, method=method, path=path, sent=sent, key=key, begun=begun, took_s=took_s, **got)
        )

    async def must(self, url: str, method: str, path: str, sent: Any = None) -> Any:
        """The body of a 2xx answer."""
        answer = await self.ask(url, method, path, sent)
        assert answer.accepted, str(answer)
        return answer.body

    async def enqueue(self, url: str, queue: str, **job: Any) -> dict[str, Any]:
        wanted = {"type": "test.job", "args": [], "queue": queue, **job}
        body = await self.must(url, "POST", "/jobs", wanted)
        self.history.wanted[body["id"]] = wanted
        return dict(body["job"])

    async def fetch(self, url: str, queues: Sequence[str], worker: str = "", **more: Any) -> list[dict[str, Any]]:
        wanted = {"queues": list(queues), **({"worker_id": worker} if worker else {}), **more}
        return list((await self.must(url, "POST", "/workers/fetch", wanted))["jobs"])

    async def ack(self, url: str, job_id: str, **more: Any) -> dict[str, Any]:
        return dict(await self.must(url, "POST", "/workers/ack", {"job_id": job_id, **more}))

    async def job(self, url: str, job_id: str) -> dict[str, Any] | None:
        """The job by GET; a 503 is asked again."""

        async def ask() -> Answer | None:
            answer = await self.ask(url, "GET", f"/jobs/{job_id}")
            return None if answer.unknown else answer

        answer = await until(ask, f"GET {job_id} answered", GIVE_UP_S)
        return answer.body["job"] if answer.accepted else None

    async def stats(self, url: str, queue: str) -> dict[str, Any]:
        async def ask() -> Any:
            answer = await self.ask(url, "GET", f"/queues/{queue}/stats")
            return answer.body if answer.accepted else None

        return dict(await until(ask, f"stats of {queue} answered", GIVE_UP_S))


class Load:
    """Clients that enqueue, fetch, ack and read at a modest rate until they are told to stop.

    A client repeats what has no clear answer at the next server, as a real one does; jobs that are asked for
    with an id of the client's own may be repeated without harm.
    """

    def __init__(
        self,
        client: Client,
        urls: Sequence[str],
        queues: Sequence[str],
        *,
        clients: int = 6,
        pause_s: float = 0.05,
        visibility_ms: int = 9_000,
        seed: int = 1,
    ) -> None:
        self.client = client
        self.urls = list(urls)
        self.queues = list(queues)
        self.unsettled: list[Answer] = []
        """Requests that nobody answered although they were repeated for long."""
        self.wrong: list[Answer] = []
        """Answers that no moment of the run allows."""
        self._visibility_ms = visibility_ms
        self._pause_s = pause_s
        self._stopping = False
        self._tasks = [asyncio.create_task(self._live(n, random.Random(seed * 1000 + n))) for n in range(clients)]

    async def stop(self) -> None:
        """End after the requests that are under way."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _live(self, number: int, dice: random.Random) -> None:
        while not self._stopping:
            await asyncio.sleep(dice.uniform(0.5, 1.5) * self._pause_s)
            await dice.choice((self._enqueue, self._enqueue, self._work, self._work, self._read))(number, dice)

    async def _enqueue(self, number: int, dice: random.Random) -> None:
        wanted: dict[str, Any] = {
            "type": "load.job",
            "queue": dice.choice(self.queues),
            "args": [number, dice.random()],
            "options": {"visibility_timeout_ms": self._visibility_ms, "retry": {"max_attempts": 50}},
        }
        if dice.random() < 0.5:
            wanted["id"] = new_id(dice)
        answer = await self._insist("/jobs", wanted, dice, repeat="id" in wanted)
        if answer.status == 201 or (answer.code == "duplicate" and "id" in wanted):
            self.client.history.wanted[answer.body["id"] if answer.status == 201 else wanted["id"]] = wanted
        elif not answer.unknown:
            self.wrong.append(answer)

    async def _work(self, number: int, dice: random.Random) -> None:
        wanted = {"queues": dice.sample(self.queues, 2), "count": 2, "worker_id": f"load-{number}"}
        answer = await self._insist("/workers/fetch", wanted, dice, repeat=False)
        for job in answer.body["jobs"] if answer.accepted else ():
            done = {"job_id": job["id"], "worker_id": f"load-{number}", "result": number}
            said = await self._insist("/workers/ack", done, dice, repeat=True)
            if not said.accepted and said.status != 409 and not said.unknown:
                self.wrong.append(said)

    async def _read(self, _number: int, dice: random.Random) -> None:
        known = list(self.client.history.wanted)[-200:]
        if known:
            answer = await self.client.ask(dice.choice(self.urls), "GET", f"/jobs/{dice.choice(known)}")
            if not answer.accepted and not answer.unknown:
                self.wrong.append(answer)

    async def _insist(self, path: str, sent: Any, dice: random.Random, *, repeat: bool) -> Answer:
        deadline = time.monotonic() + GIVE_UP_S
        while True:
            answer = await self.client.ask(dice.choice(self.urls), "POST", path, sent)
            if not answer.unknown or not repeat:
                return answer
            if time.monotonic() > deadline:
                self.unsettled.append(answer)
                return answer
            await asyncio.sleep(0.1)


async def finish_all(client: Client, url: str, queues: Sequence[str], within_s: float = 40.0) -> None:
    """Work until no queue has anything that waits or is leased."""

    async def finished() -> bool:
        answer = await client.ask(url, "POST", "/workers/fetch", {"queues": list(queues), "count": 50})
        for job in answer.body["jobs"] if answer.accepted else ():
            await client.ask(url, "POST", "/workers/ack", {"job_id": job["id"]})
        if not answer.accepted or answer.body["jobs"]:
            return False
        found = [await client.stats(url, queue) for queue in queues]
        return not any(stats[state] for stats in found for state in ("available", "active", "retryable"))

    await until(finished, "all jobs are finished", within_s, 0.2)
