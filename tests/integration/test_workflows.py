"""Workflows through HTTP: two workers, four homes, every request at a random one of the two."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from ojs_stream.core.homes import home_of
from tests.conftest import WorkerFactory
from tests.support.client import Client
from tests.support.history import Answer
from tests.support.replay import replay_difference
from tests.support.servers import BrokerHandle, RedisHandle

HOMES = 4
QUEUES = [
    next(f"f{home}-{n}" for n in range(100) if home_of(f"f{home}-{n}", HOMES) == home) for home in range(HOMES)
]
SEED = 36


def leaf(kind: str, home: int) -> dict[str, Any]:
    return {"type": kind, "args": [], "options": {"queue": QUEUES[home % HOMES], "retry": {"max_attempts": 1}}}


class Flows:
    """A client that never asks the same worker twice on purpose."""

    def __init__(self, client: Client, urls: list[str]) -> None:
        self.client = client
        self.urls = urls
        self.dice = random.Random(SEED)

    async def ask(self, method: str, path: str, sent: Any = None) -> Answer:
        return await self.client.ask(self.dice.choice(self.urls), method, path, sent)

    async def must(self, method: str, path: str, sent: Any = None) -> Any:
        answer = await self.ask(method, path, sent)
        assert answer.accepted, str(answer)
        return answer.body

    async def start(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self.ask("POST", "/workflows", body)
        assert answer.status == 201, str(answer)
        assert answer.body["workflow"]["id"] == answer.body["id"]
        return dict(answer.body["workflow"])

    async def get(self, workflow: dict[str, Any]) -> dict[str, Any]:
        return dict((await self.must("GET", f"/workflows/{workflow['id']}"))["workflow"])

    async def take(self) -> dict[str, dict[str, Any]]:
        """Everything that can be claimed, by job type."""
        taken: dict[str, dict[str, Any]] = {}
        for queue in QUEUES:
            body = await self.must("POST", "/workers/fetch", {"queues": [queue], "count": 50, "worker_id": "w"})
            taken.update((job["type"], job) for job in body["jobs"])
        return taken

    async def wait_for(self, *types: str) -> dict[str, dict[str, Any]]:
        """Claim until jobs of these types are there; a step at another home follows its ack."""
        taken: dict[str, dict[str, Any]] = {}
        async with asyncio.timeout(2):
            while not set(types) <= taken.keys():
                taken |= await self.take()
        assert set(taken) == set(types)
        return taken

    async def end(self, job: dict[str, Any], *, well: bool = True) -> None:
        if well:
            await self.must("POST", "/workers/ack", {"job_id": job["id"], "result": {"of": job["type"]}})
        else:
            error = {"code": "handler_error", "message": "no", "retryable": False}
            await self.must("POST", "/workers/nack", {"job_id": job["id"], "error": error})

    async def settled(self, workflow: dict[str, Any], state: str) -> dict[str, Any]:
        """The workflow in this state; it may hear of its last job a moment after the ack."""
        async with asyncio.timeout(2):
            while (found := await self.get(workflow))["state"] != state:
                assert found["state"] == "running", found
        return found


async def test_workflows_over_two_workers_and_four_homes(
    worker_factory: WorkerFactory, kafka: BrokerHandle, redis_server: RedisHandle, namespace: str
) -> None:
    workers = await asyncio.gather(worker_factory(partitions=HOMES), worker_factory(partitions=HOMES))
    async with Client() as client:
        flows = Flows(client, [worker.url for worker in workers])
        chain = await _chain(flows)
        batch = await _batch(flows)
        nested = await _nested(flows)
        cancelled = await _cancel(flows)
        await _list(flows, [chain, batch, nested, cancelled])
        await _refusals(flows)
        await _repeat(flows)
    assert await replay_difference(kafka.bootstrap, redis_server.url, namespace) == ""


async def _chain(flows: Flows) -> dict[str, Any]:
    chain = await flows.start({"type": "chain", "name": "c", "steps": [leaf(f"c.n{n}", n) for n in range(3)]})
    assert (chain["state"], chain["steps_total"], chain["steps_completed"]) == ("running", 3, 0)
    assert [step["state"] for step in chain["steps"]] == ["pending", "waiting", "waiting"]
    for number in range(3):
        job = (await flows.wait_for(f"c.n{number}"))[f"c.n{number}"]
        assert job["parent_results"] == [{"of": f"c.n{before}"} for before in range(number)]
        assert (await flows.get(chain))["steps"][number]["state"] == "active"
        progress = await flows.must("GET", f"/workflows/{chain['id']}/progress")
        assert progress["progress"] == number / 3
        await flows.end(job)
    done = await flows.settled(chain, "completed")
    assert (done["steps_completed"], done["metadata"]["completed_count"]) == (3, 3)
    assert done["steps"][2]["result"] == {"of": "c.n2"}
    return done


async def _batch(flows: Flows) -> dict[str, Any]:
    calls = {name: leaf(f"call.{name}", 3) for name in ("on_complete", "on_success", "on_failure")}
    batch = await flows.start({"type": "batch", "tasks": [leaf(f"b.n{n}", n) for n in range(3)], **calls})
    taken = await flows.wait_for("b.n0", "b.n1", "b.n2")
    await flows.end(taken["b.n1"], well=False)
    await flows.end(taken["b.n2"])
    await flows.end(taken["b.n0"])
    fired = await flows.wait_for("call.on_complete", "call.on_failure")
    assert fired["call.on_complete"]["parent_results"] == [{"of": "b.n0"}, None, {"of": "b.n2"}]
    failed = await flows.settled(batch, "failed")
    assert (failed["jobs_total"], failed["jobs_completed"], failed["jobs_failed"]) == (3, 2, 1)
    assert sorted(failed["callbacks_enqueued"]) == ["on_complete", "on_failure"]
    assert failed["failed_job_ids"] == [taken["b.n1"]["id"]]
    assert failed["errors"][0]["message"] == "no"
    for job in fired.values():
        await flows.end(job)
    assert await flows.take() == {}
    return failed


async def _nested(flows: Flows) -> dict[str, Any]:
    inner = {
        "type": "group",
        "jobs": [leaf("n.a", 1), {"type": "chain", "steps": [leaf("n.b", 2), leaf("n.c", 3)]}],
    }
    graph = {
        "name": "graph",
        "steps": [
            {"id": "last", **leaf("n.last", 0), "depends_on": ["middle", "first"]},
            {"id": "first", **leaf("n.first", 0)},
            {"id": "middle", **inner, "depends_on": ["first"]},
        ],
    }
    started = await flows.start(graph)
    assert [(step["id"], step["type"], step["depends_on"]) for step in started["steps"]] == [
        ("last", "n.last", ["first", "middle"]),
        ("first", "n.first", []),
        ("middle", "group", ["first"]),
    ]
    await flows.end((await flows.wait_for("n.first"))["n.first"])
    for job in (await flows.wait_for("n.a", "n.b")).values():
        assert job["parent_results"] == [{"of": "n.first"}]
        await flows.end(job)
    await flows.end((await flows.wait_for("n.c"))["n.c"])
    last = (await flows.wait_for("n.last"))["n.last"]
    assert last["parent_results"] == [[{"of": "n.a"}, {"of": "n.c"}], {"of": "n.first"}]
    await flows.end(last)
    return await flows.settled(started, "completed")


async def _cancel(flows: Flows) -> dict[str, Any]:
    group = await flows.start({"type": "group", "jobs": [leaf(f"x.n{n}", n) for n in range(4)]})
    taken = await flows.take()
    await flows.end(taken["x.n0"])
    answer = await flows.must("POST", f"/workflows/{group['id']}/cancel")
    assert (answer["state"], answer["steps_cancelled"], answer["workflow"]["cancelled_steps"]) == (
        "cancelled", 3, ["1", "2", "3"],
    )  # fmt: skip
    assert (await flows.must("GET", f"/jobs/{taken['x.n3']['id']}"))["job"]["state"] == "cancelled"
    again = await flows.ask("DELETE", f"/workflows/{group['id']}")
    assert (again.status, again.code) == (409, "conflict")
    return await flows.get(group)


async def _list(flows: Flows, made: list[dict[str, Any]]) -> None:
    newest = [each["id"] for each in reversed(made)]
    seen: list[str] = []
    path = "/workflows?limit=3"
    while path:
        page = await flows.must("GET", path)
        seen += [row["id"] for row in page["workflows"]]
        cursor = page["pagination"]["next_cursor"]
        path = f"/workflows?limit=3&cursor={cursor}" if cursor else ""
    assert seen == newest
    second = await flows.must("GET", "/workflows?page=2&per_page=3")
    assert [row["id"] for row in second["items"]] == newest[3:]
    assert second["pagination"]["total"] == len(made)
    failed = await flows.must("GET", "/workflows?state=failed")
    assert [row["id"] for row in failed["workflows"]] == [made[1]["id"]]
    chain = next(row for row in page["workflows"] if row["id"] == made[0]["id"])
    assert (chain["step_count"], chain["steps_completed"], chain["name"]) == (3, 3, "c")


async def _refusals(flows: Flows) -> None:
    unknown = "/workflows/0197f0a0-2222-7000-8000-000000000001"
    for method, path in (
        ("GET", unknown),
        ("DELETE", unknown),
        ("GET", f"{unknown}/progress"),
        ("GET", "/workflows/x"),
    ):
        answer = await flows.ask(method, path)
        assert (answer.status, answer.code) == (404, "not_found"), str(answer)
    bad = await flows.ask("POST", "/workflows", {"type": "chain", "steps": [leaf("a", 0), {"type": "b"}]})
    assert (bad.status, bad.body["error"]["details"]["index"]) == (400, 1)
    assert (await flows.ask("GET", "/workflows?state=nonsense")).status == 400


async def _repeat(flows: Flows) -> None:
    """With a key a request that had no answer may simply be sent again, to the other worker too."""
    body = {"type": "chain", "steps": [leaf("again", 2)]}
    first, second = [await flows.client.ask(url, "POST", "/workflows", body, key="once") for url in flows.urls]
    assert (first.status, second.status) == (201, 201)
    assert first.body["id"] == second.body["id"]
    assert list(await flows.take()) == ["again"]
