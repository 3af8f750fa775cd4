"""The cron endpoints over the real fold in memory: what clients of both families send and read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from ojs_stream.core.commands import Command, NewJob, PutCron
from ojs_stream.core.homes import home_of
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import CronRecord, JobRecord, decode_record
from ojs_stream.errors import UnavailableError
from ojs_stream.store.queries import Queries
from ojs_stream.web.context import Context
from ojs_stream.web.hub import Hub, Tail
from ojs_stream.web.routes import setup
from tests.support.builders import KEEP, Fold

HOMES = 4
TEMPLATE = {"type": "report.make", "args": [{"a": 1}], "options": {"queue": "reports"}}
SUITE = {"name": "daily", "expression": "0 9 * * *", "job_template": TEMPLATE}
SDK = {"name": "daily", "cron": "0 9 * * *", **TEMPLATE}


class StoredCrons:
    """Reads of entries from the fold's store."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold

    async def names(self) -> list[str]:
        return sorted(name for dump in self._fold.dumps() for name in dump.get("crons", {}))

    async def records(self, names: Sequence[str]) -> list[CronRecord]:
        return [found for name in names if (found := await self.record(name))]

    async def record(self, name: str) -> CronRecord | None:
        data = self._fold.dump(home_of(name, HOMES)).get(f"cron:{name}")
        return cast("CronRecord", decode_record(("cron", name), data)) if data else None


def no_tail() -> Tail:
    raise UnavailableError("There is no topic in this test.")


class Edge:
    def __init__(self) -> None:
        self.fold = Fold(HOMES)
        self.meanwhile: list[Command] = []
        """Commands of others that get ahead of the next ones."""
        context = Context(
            gateway=self,
            queries=cast("Queries", SimpleNamespace(crons=StoredCrons(self.fold), jobs=self.jobs)),
            hub=Hub(no_tail),
            homes=HOMES,
            namespace="t",
            retention=KEEP,
            ready=lambda: {"ready": True},
            backend_ms=lambda: None,
            facts=cast("Any", None),
            hint=lambda _queue: False,
            wait_for_work=lambda _queues, _seconds: None,
        )
        app = web.Application()
        setup(app, context)
        self.client = TestClient(TestServer(app))

    async def jobs(self, job_ids: Iterable[str]) -> dict[str, tuple[int, JobRecord]]:
        found = {job_id: self.fold.find(job_id) for job_id in job_ids}
        return {job_id: (0, record) for job_id, record in found.items() if record is not None}

    async def submit(self, home: int, command: Command) -> Outcome:
        if self.meanwhile:
            self.fold.do(self.meanwhile.pop(0), home=home)
        return self.fold.do(command, home=home)

    async def call(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        async with self.client.request(method, f"/ojs/v1{path}", data=data, headers=headers) as response:
            content = await response.json(content_type=None)
            assert response.status == status, content
            return content


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    made = Edge()
    async with made.client:
        yield made


@pytest.mark.parametrize("body", [SUITE, SDK], ids=["suite and CLI", "SDKs"])
async def test_every_family_finds_its_names_in_the_answer(edge: Edge, body: dict[str, Any]) -> None:
    made = await edge.call("POST", "/cron", body, 201)
    assert made["cron"] == made["cron_job"]
    shown = made["cron"]
    assert shown["id"] == shown["name"] == "daily"
    assert shown["expression"] == shown["cron"] == shown["schedule"] == "0 9 * * *"
    assert shown["job_template"] == {**TEMPLATE, "meta": {}}
    assert {name: shown[name] for name in ("type", "args", "options", "queue")} == {**TEMPLATE, "queue": "reports"}
    assert (shown["enabled"], shown["status"], shown["overlap_policy"]) == (True, "active", "skip")
    assert (shown["timezone"], shown["description"], shown["run_count"]) == ("UTC", None, 0)
    assert shown["last_run_at"] is None
    assert shown["next_run_at"].endswith("T09:00:00.000Z")
    assert shown["created_at"] == shown["updated_at"] == "2030-03-17T17:46:40.000Z"


async def test_a_second_registration_answers_200(edge: Edge) -> None:
    await edge.call("POST", "/cron", SUITE, 201)
    again = await edge.call("POST", "/cron", SDK | {"overlap_policy": "cancel"}, 200)
    assert again["cron"]["overlap_policy"] == "cancel_previous"


async def test_a_repeated_registration_is_told_the_same_and_changes_nothing(edge: Edge) -> None:
    async def post(body: dict[str, Any]) -> tuple[int, str | None, Any]:
        headers = {"Idempotency-Key": "k"}
        async with edge.client.post("/ojs/v1/cron", json=body, headers=headers) as response:
            return response.status, response.headers.get("Idempotency-Replayed"), await response.json()

    first = await post(SUITE)
    await edge.call("POST", f"/cron/{SUITE['name']}/pause")
    again = await post(SUITE)
    assert (first[:2], again[:2]) == ((201, None), (201, "true"))
    assert (first[2]["status"], again[2]["status"]) == ("active", "paused")
    assert (await post({**SUITE, "description": "another"}))[2]["error"]["code"] == "idempotency_mismatch"


async def test_args_keep_every_byte(edge: Edge) -> None:
    body = b'{"name":"n","cron":"@daily","type":"a.b","args":[18446744073709551616],"meta":{"x":1.50}}'
    await edge.call("POST", "/cron", body, 201)
    async with edge.client.get("/ojs/v1/cron/n") as response:
        raw = await response.read()
    assert raw.count(b'"args":[18446744073709551616]') == 6
    assert b'"meta":{"x":1.50}' in raw


async def test_what_can_never_fire_is_refused(edge: Edge) -> None:
    for wrong in ({"expression": "0 0 */28 2 MON#2"}, {"timezone": "Europe/Atlantis"}, {"expression": "* * * *"}):
        refused = await edge.call("POST", "/cron", SUITE | wrong, 400)
        assert refused["error"]["code"] == "invalid_request"
    assert (await edge.call("GET", "/cron"))["count"] == 0


async def test_lists_have_every_name_and_both_families_of_pages(edge: Edge) -> None:
    for number in range(5):
        await edge.call("POST", "/cron", SUITE | {"name": f"entry-{number}"}, 201)
    await edge.call("POST", "/cron/entry-3/pause")
    found = await edge.call("GET", "/cron?limit=2")
    assert found["crons"] == found["cron_jobs"] == found["items"]
    assert [one["name"] for one in found["items"]] == ["entry-0", "entry-1"]
    assert (found["count"], found["total"], found["pagination"]["has_more"]) == (2, 5, True)
    paged = await edge.call("GET", "/crons?page=3&per_page=2")
    assert [one["id"] for one in paged["items"]] == ["entry-4"]
    paused = await edge.call("GET", "/cron?enabled=false")
    assert [one["name"] for one in paused["crons"]] == ["entry-3"]
    assert (await edge.call("GET", "/cron?enabled=true"))["total"] == 4
    await edge.call("GET", "/cron?enabled=maybe", status=400)


async def test_pause_and_resume_in_every_spelling(edge: Edge) -> None:
    await edge.call("POST", "/cron", SUITE, 201)
    for method, path, body, enabled in (
        ("POST", "/cron/daily/pause", None, False),
        ("POST", "/cron/daily/resume", None, True),
        ("PATCH", "/cron/daily", {"enabled": False}, False),
        ("PATCH", "/crons/daily", {"enabled": True}, True),
        ("PATCH", "/crons/daily", {"enabled": True}, True),
    ):
        shown = (await edge.call(method, path, body))["cron"]
        assert (shown["enabled"], shown["status"]) == (enabled, "active" if enabled else "paused")
        assert (shown["next_run_at"] is not None) == enabled


async def test_a_change_of_some_fields(edge: Edge) -> None:
    await edge.call("POST", "/cron", SUITE, 201)
    shown = (await edge.call("PATCH", "/cron/daily", {"cron": "30 4 * * *", "args": [2]}))["cron"]
    assert shown["next_run_at"].endswith("T04:30:00.000Z")
    assert (shown["args"], shown["queue"], shown["type"]) == ([2], "reports", "report.make")


async def test_a_change_is_tried_again_when_somebody_was_faster(edge: Edge) -> None:
    await edge.call("POST", "/cron", SUITE, 201)
    theirs = await _put(edge, overlap="allow", changes=1)
    edge.meanwhile = [theirs]
    shown = (await edge.call("PATCH", "/cron/daily", {"args": [2]}))["cron"]
    assert (shown["args"], shown["overlap_policy"]) == ([2], "allow"), "neither change is lost"


async def test_who_never_gets_ahead_is_told_so(edge: Edge) -> None:
    await edge.call("POST", "/cron", SUITE, 201)
    edge.meanwhile = [await _put(edge, overlap="allow") for _ in range(9)]
    refused = await edge.call("PATCH", "/cron/daily", {"args": [2]}, 409)
    assert refused["error"]["code"] == "conflict"


async def _put(edge: Edge, **fields: Any) -> PutCron:
    entry = await StoredCrons(edge.fold).record("daily")
    assert entry is not None
    given: dict[str, Any] = {
        "v": 1,
        "actor": "other",
        "name": "daily",
        "expression": entry.expression,
        "timezone": "UTC",
        "overlap": "skip",
        "job": msgspec.json.decode(entry.job, type=NewJob),
        "template": entry.template,
        "anchor": 1,
        "next_at": 1,
    }
    return PutCron(**{**given, **fields})


async def test_a_run_by_hand_names_its_job_and_is_in_the_history(edge: Edge) -> None:
    await edge.call("POST", "/cron", SUITE, 201)
    first = await edge.call("POST", "/cron/daily/trigger")
    second = await edge.call("POST", "/cron/daily/trigger", {})
    assert edge.fold.record(first["job_id"]).job.queue == "reports"
    assert second["cron"]["run_count"] == 2
    assert second["cron"]["running_job_ids"] == [first["job_id"], second["job_id"]]
    assert second["cron"]["last_job_id"] == second["job_id"]
    told = await edge.call("GET", "/cron/daily/history?limit=1")
    (run,) = told["executions"]
    assert (run["job_id"], run["status"], run["reason"]) == (second["job_id"], "triggered", "manual")
    assert (told["count"], told["total"], run["job_state"]) == (1, 2, None)
    # What the job is by now, as the CLI reads it; ``job_state`` is what the entry was told.
    assert (run["state"], run["started_at"]) == ("available", None)


async def test_a_repeated_run_by_hand_names_the_first_job(edge: Edge) -> None:
    await edge.call("POST", "/cron", SUITE, 201)
    told = []
    for _ in range(2):
        async with edge.client.post("/ojs/v1/cron/daily/trigger", headers={"Idempotency-Key": "k"}) as response:
            told.append((await response.json(), response.headers.get("Idempotency-Replayed")))
    (first, fresh), (again, replayed) = told
    assert (again["job_id"], again["cron"]["run_count"]) == (first["job_id"], 1)
    assert (fresh, replayed) == (None, "true")


async def test_a_run_by_hand_beside_its_unique_twin_is_refused(edge: Edge) -> None:
    options = {"queue": "reports", "unique": {"keys": ["type", "queue"]}}
    await edge.call("POST", "/cron", SUITE | {"job_template": {**TEMPLATE, "options": options}}, 201)
    first = await edge.call("POST", "/cron/daily/trigger")
    refused = await edge.call("POST", "/cron/daily/trigger", status=409)
    assert refused["error"]["code"] == "duplicate"
    assert refused["error"]["details"]["existing_job_id"] == first["job_id"]
    assert (await edge.call("GET", "/cron/daily"))["cron"]["run_count"] == 1


async def test_a_deletion_names_the_entry_and_a_second_one_finds_none(edge: Edge) -> None:
    await edge.call("POST", "/cron", SUITE, 201)
    gone = await edge.call("DELETE", "/cron/daily")
    assert gone == {"cron": {"name": "daily"}, "cron_job": {"name": "daily"}, "deleted": True, "name": "daily"}
    for method, path in (
        ("DELETE", "/cron/daily"),
        ("GET", "/cron/daily"),
        ("GET", "/cron/daily/history"),
        ("POST", "/cron/daily/trigger"),
        ("POST", "/cron/daily/pause"),
    ):
        refused = await edge.call(method, path, status=404)
        assert refused["error"]["details"] == {"resource_type": "cron", "resource_id": "daily"}


async def test_the_manifest_says_that_there_is_cron(edge: Edge) -> None:
    async with edge.client.get("/ojs/manifest") as response:
        manifest = await response.json(content_type=None)
    assert manifest["capabilities"]["cron"] is True
    assert manifest["endpoints"]["cron"] == "/ojs/v1/cron"
    assert not any(name.startswith("crons") for name in manifest["endpoints"])
