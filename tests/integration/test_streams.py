"""Server-sent events over real HTTP from two real workers: every event, whichever worker one listens at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp

from tests.conftest import WorkerFactory
from tests.support.client import API, Client

STREAMS = 200
WITHIN_S = 60.0
QUEUES = ["s-a", "s-b", "s-c", "s-d", "s-e", "s-f"]


class Stream:
    """A stream as a client reads it: dictionaries of fields."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def next(self) -> dict[str, str]:
        """The next event; comments are passed over. An empty one at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(WITHIN_S):
            while line := (await self.answer.content.readline()).decode():
                name, _, value = line.rstrip("\n").partition(": ")
                if line != "\n":
                    fields[name] = value
                elif "data" in fields:
                    return fields
                else:
                    fields = {}
        return {}

    async def some(self, count: int) -> list[dict[str, str]]:
        return [await self.next() for _ in range(count)]

    async def rest(self) -> list[dict[str, str]]:
        found = []
        while event := await self.next():
            found.append(event)
        return found


@asynccontextmanager
async def listen(session: aiohttp.ClientSession, url: str, path: str, **headers: str) -> AsyncIterator[Stream]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.get(f"{url}{API}{path}", headers=named) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"] == "text/event-stream"
        yield Stream(answer)


def subjects(events: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(event["event"], json.loads(event["data"])["subject"]) for event in events]


async def run(client: Client, url: str, queue: str) -> str:
    """A job's whole life."""
    job = await client.enqueue(url, queue)
    (given,) = await client.fetch(url, [queue], "w")
    assert given["id"] == job["id"]
    await client.must(url, "POST", "/workers/ack", {"job_id": job["id"], "worker_id": "w"})
    return str(job["id"])


async def test_streams(worker_factory: WorkerFactory) -> None:
    one, other = await asyncio.gather(worker_factory(partitions=4), worker_factory(partitions=4))
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=WITHIN_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with Client() as client, aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        await everybody_hears_everything(client, session, [one.url, other.url])
        await one_job(client, session, one.url, other.url)
        await filters(client, session, one.url)
        await replays(client, session, one.url, other.url)
        await refusals(client, one.url)
        await progress_and_stats(client, session, one.url, other.url)
        async with listen(session, other.url, "/events/stream") as stream:
            stopping = asyncio.create_task(other.terminate())
            *_, last = await stream.rest()
            assert await stopping, "it ends by itself"
        assert last["event"] == "server.shutdown"
        assert set(json.loads(last["data"])) == {"reason", "grace_period_ms"}


async def everybody_hears_everything(client: Client, session: aiohttp.ClientSession, urls: list[str]) -> None:
    async with AsyncExitStack() as stack:
        streams = await asyncio.gather(
            *(
                stack.enter_async_context(listen(session, urls[n % 2], "/events/stream?channel=all"))
                for n in range(STREAMS)
            )
        )
        jobs = [await run(client, urls[n % 2], queue) for n, queue in enumerate(QUEUES)]
        heard = await asyncio.gather(*(stream.some(3 * len(jobs)) for stream in streams))
    for events in heard:
        by_job: dict[str, list[str]] = {}
        for kind, subject in subjects(events):
            by_job.setdefault(subject, []).append(kind)
        assert by_job == {job: ["job.enqueued", "job.started", "job.completed"] for job in jobs}
        assert all(event["id"] == json.loads(event["data"])["id"] for event in events)


async def one_job(client: Client, session: aiohttp.ClientSession, here: str, there: str) -> None:
    job = await client.enqueue(here, "s-job")
    paths = [f"/events/stream?channel=job:{job['id']}", f"/jobs/{job['id']}/events"]
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(listen(session, there, path)) for path in paths]
        await client.enqueue(here, "s-job")
        await client.fetch(here, ["s-job"], "w")
        await client.must(here, "POST", "/workers/ack", {"job_id": job["id"], "worker_id": "w"})
        for stream in streams:
            wanted = [("job.started", job["id"]), ("job.completed", job["id"])]
            # The event of the enqueue may be on its way to the topic when the stream begins.
            assert subjects(await stream.rest())[-2:] == wanted, "then the stream ends"
    async with listen(session, there, paths[1]) as stream:
        (only,) = await stream.rest()
    assert only["event"] == "job.state_changed"
    assert json.loads(only["data"])["to"] == "completed"


async def filters(client: Client, session: aiohttp.ClientSession, url: str) -> None:
    async with AsyncExitStack() as stack:
        enter, base = stack.enter_async_context, "/events/stream"
        typed = await enter(listen(session, url, f"{base}?types=job.completed&queue=s-f1,s-f2"))
        queue = await enter(listen(session, url, f"{base}?channel=queue:s-f2&types=job.started"))
        accepted = await enter(listen(session, url, "/events?queues=s-f1", Accept="text/event-stream"))
        first = await run(client, url, "s-f1")
        await run(client, url, "s-f3")
        second = await run(client, url, "s-f2")
        assert sorted(subjects(await typed.some(2))) == sorted(("job.completed", job) for job in (first, second))
        assert subjects(await queue.some(1)) == [("job.started", second)]
        assert subjects(await accepted.some(1)) == [("job.enqueued", first)]
    async with listen(session, url, "/queues/s-f2/events") as stream:
        third = await run(client, url, "s-f2")
        assert ("job.completed", third) in subjects(await stream.some(3))


async def replays(client: Client, session: aiohttp.ClientSession, here: str, there: str) -> None:
    path = "/events/stream?channel=queue:s-r"
    async with listen(session, here, path) as stream:
        await run(client, here, "s-r")
        first = await stream.next()
    missed = await run(client, here, "s-r")
    async with listen(session, there, path, Last_Event_ID=first["id"]) as stream:
        assert [kind for kind, _ in subjects(await stream.some(2))] == ["job.started", "job.completed"]
        assert [subject for _, subject in subjects(await stream.some(3))] == [missed] * 3
        later = await run(client, here, "s-r")
        assert [subject for _, subject in subjects(await stream.some(3))] == [later] * 3, "each of them once"
    async with listen(session, there, path, Last_Event_ID="evt_forgotten") as stream:
        gap, oldest = await stream.some(2)
    assert gap["event"] == "system.gap"
    assert "id" not in gap, "the client's last id stays an event's"
    assert oldest["id"] == first["id"]


async def refusals(client: Client, url: str) -> None:
    for path, status in {
        "/events/stream?channel=room:1": 400,
        "/jobs/0190a0a0-0000-7000-8000-000000000000/events": 404,
        "/events/stream?channel=job:nobody": 404,
        "/queues/never-seen/events": 404,
    }.items():
        answer = await client.ask(url, "GET", path)
        assert (answer.status, path) == (status, path)


async def progress_and_stats(client: Client, session: aiohttp.ClientSession, here: str, there: str) -> None:
    job: dict[str, Any] = await client.enqueue(here, "s-p")
    await client.fetch(here, ["s-p"], "w")
    async with listen(session, there, f"/jobs/{job['id']}/progress/stream") as stream:
        begin = await stream.next()
        assert "event" not in begin
        assert json.loads(begin["data"])["progress"] is None
        await client.must(here, "PUT", f"/jobs/{job['id']}/progress", {"progress": 0.5, "message": "half"})
        half = json.loads((await stream.next())["data"])
        assert (half["progress"], half["percentage"], half["message"]) == (0.5, 50, "half")
        await client.must(here, "POST", "/workers/ack", {"job_id": job["id"], "worker_id": "w"})
        end = json.loads((await stream.rest())[-1]["data"])
        assert (end["state"], end["progress"]) == ("completed", 1.0)
    async with listen(session, there, "/admin/stats/stream") as stream:
        assert json.loads((await stream.next())["data"])["jobs"]["completed"] > 0
