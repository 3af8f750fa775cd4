"""The HTTP edge alone: a fake gateway records commands, a fake store answers reads; no Kafka, no Redis."""

from __future__ import annotations

import asyncio
import gzip
import io
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web_runner import BaseRunner

from ojs_stream import stamp
from ojs_stream.core.commands import (
    Ack,
    Bulk,
    Cancel,
    Claim,
    Command,
    Configure,
    DeleteQueue,
    Enqueue,
    Extend,
    GiveBack,
    Nack,
    NewJob,
    Purge,
)
from ojs_stream.core.homes import home_of
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import ConfigRecord, Control, Job, JobRecord, Retention, WorkerRecord, public_json
from ojs_stream.core.retry import DEFAULT_POLICY
from ojs_stream.core.selection import Filter
from ojs_stream.errors import UnavailableError
from ojs_stream.store.queries import JobFilter, Queries
from ojs_stream.store.scans import Found, Page
from ojs_stream.store.walks import Matches
from ojs_stream.telemetry.facts import WorkerFacts
from ojs_stream.web import bulk, parser_errors, problems
from ojs_stream.web.context import Context, Limits
from ojs_stream.web.hub import Hub, Tail
from ojs_stream.web.routes import routes_of, setup
from tests.support.facts import worker_facts

HOMES = 8
RETENTION = Retention(1, 2, 3, 4)
PLAIN = "application/openjobspec+json"
CLIENT_ID = "019461a8-1a2b-7c3d-8e4f-5a6b7c8d9e0f"


def record_of(job_id: str, *, queue: str = "q", state: str = "available", extra: bytes | None = None) -> JobRecord:
    job = Job(
        specversion="1.0",
        id=job_id,
        type="a.b",
        state=cast("Any", state),
        queue=queue,
        args=msgspec.Raw(b'[12345678901234567890123,"\\u00e9"]'),
        meta=msgspec.Raw(b"{}"),
        priority=0,
        attempt=0,
        max_attempts=3,
        timeout_ms=1,
        visibility_timeout_ms=1,
        created_at="2026-01-01T00:00:00.000Z",
    )
    ctl = Control(retry=DEFAULT_POLICY, retention=RETENTION, created=1, since=1)
    return JobRecord(job, ctl, msgspec.Raw(extra) if extra else msgspec.UNSET)


class FakeGateway:
    """Records what is submitted; answers what the test says, else a plausible outcome."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Command]] = []
        self.answers: dict[type[Command], list[Outcome | Exception]] = {}
        self.before: Callable[[], None] = lambda: None

    async def submit(self, home: int, command: Command, *, late: Any = None) -> Outcome:
        self.sent.append((home, command))
        self.before()
        queued = self.answers.get(type(command))
        if queued:
            answer = queued.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return self.plausible(command)

    def plausible(self, command: Command) -> Outcome:
        if isinstance(command, Enqueue):
            return Outcome(jobs=tuple(self.stored(job) for job in command.jobs))
        if isinstance(command, Ack | Nack | Cancel):
            return Outcome(jobs=(job_json(command.job_id),), data={"previous_state": "active"})
        if isinstance(command, Extend):
            return Outcome(data={"extended": list(command.job_ids), "cancelled": []})
        return Outcome()

    def stored(self, job: NewJob) -> msgspec.Raw:
        return msgspec.Raw(public_json(record_of(job.id, queue=job.queue)))


def job_json(job_id: str) -> msgspec.Raw:
    return msgspec.Raw(public_json(record_of(job_id)))


class FakeWorkers:
    def __init__(self) -> None:
        self.known: dict[str, WorkerRecord] = {}

    async def record(self, worker_id: str) -> WorkerRecord | None:
        return self.known.get(worker_id)

    async def all(self) -> list[WorkerRecord]:
        return list(self.known.values())


class FakeQueues:
    def __init__(self) -> None:
        self.own: dict[str, ConfigRecord] = {}

    async def names(self) -> list[str]:
        return ["default", "q"]

    async def records(self, names: Sequence[str]) -> list[None]:
        return [None for _ in names]

    async def record(self, name: str) -> None:
        return None

    async def with_minutes(self, name: str, now_ms: int) -> tuple[None, list[Any]]:
        return None, []

    async def own_configs(self, names: Sequence[str]) -> list[ConfigRecord | None]:
        return [self.own.get(name) for name in names]

    async def configs(self, names: Sequence[str]) -> list[ConfigRecord | None]:
        return await self.own_configs(names)


class FakeQueries:
    def __init__(self) -> None:
        self.stored: dict[str, tuple[int, JobRecord]] = {}
        self.workers = FakeWorkers()
        self.queues = FakeQueues()
        self.ready: set[str] = set()
        self.keys: set[str] = set()
        self.pages: list[tuple[int, list[str]]] = []
        self.asked: list[Filter] = []
        self.looks = 0

    async def job(self, job_id: str) -> tuple[int, JobRecord] | None:
        return self.stored.get(job_id)

    async def jobs(self, job_ids: Iterable[str]) -> dict[str, tuple[int, JobRecord]]:
        return {job_id: self.stored[job_id] for job_id in job_ids if job_id in self.stored}

    async def replayed(self, key: str) -> bool:
        return key in self.keys

    async def matching(self, wanted: Filter) -> AsyncIterator[Matches]:
        self.asked.append(wanted)
        for home, ids in self.pages:
            yield Matches(home, ids)

    async def look(self, queues: Sequence[str], now_ms: int) -> dict[str, bool]:
        self.looks += 1
        return {name: name in self.ready for name in queues}

    async def list_jobs(self, wanted: JobFilter, page: Page) -> Found:
        return Found(records=[record for _, record in self.stored.values()], total=len(self.stored))

    async def leases(self, worker_id: str) -> list[JobRecord]:
        return [record for _, record in self.stored.values() if record.job.worker_id == worker_id]


class ServerAsDeployed(TestServer):
    """aiohttp's test server cancels the handlers of vanished clients; the deployed one does not."""

    async def _make_runner(self, **kwargs: Any) -> BaseRunner:
        return await super()._make_runner(**{**kwargs, "handler_cancellation": False})


def no_tail() -> Tail:
    raise UnavailableError("There is no topic in this test.")


class Edge:
    """A running web application over fakes."""

    def __init__(self, *, test_mode: bool = False) -> None:
        self.gateway = FakeGateway()
        self.queries = FakeQueries()
        self.hinted: set[str] = set()
        self.waited: list[float] = []
        self.down = False
        self.context = Context(
            gateway=self.gateway,
            queries=cast("Queries", self.queries),
            hub=Hub(no_tail),
            homes=HOMES,
            namespace="t",
            retention=RETENTION,
            limits=Limits(body_bytes_max=3 * 1024 * 1024),
            test_mode=test_mode,
            ready=lambda: {"ready": not self.down, "partitions": [], "reason": None},
            backend_ms=self.backend_ms,
            facts=self.facts,
            hint=lambda queue: queue in self.hinted,
            wait_for_work=self.wait_for_work,
        )
        app = web.Application()
        self.site = setup(app, self.context)
        self.client = TestClient(ServerAsDeployed(app))

    async def backend_ms(self) -> float:
        if self.down:
            raise UnavailableError("Redis does not answer", retry_after_s=7)
        return 1.25

    async def facts(self) -> WorkerFacts:
        return worker_facts(web=self.context.meter)

    async def wait_for_work(self, queues: tuple[str, ...], seconds: float) -> None:
        self.waited.append(seconds)
        await asyncio.sleep(0)

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        data = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        sent = {"Content-Type": PLAIN} if data is not None else {}
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        async with self.client.request(method, path, data=data, headers=sent) as response:
            content = await response.read()
            return response.status, msgspec.json.decode(content) if content else None, response.headers

    @property
    def commands(self) -> list[Command]:
        return [command for _, command in self.gateway.sent]


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    made = Edge()
    async with made.client:
        yield made


JOB = {"type": "a.b", "args": [1]}


# ------------------------------------------------------------------ headers and envelopes


async def test_without_an_ojs_version_the_media_type_is_plain(edge: Edge) -> None:
    status, body, headers = await edge.call("POST", "/ojs/v1/jobs", JOB)
    assert status == 201
    assert headers["Content-Type"] == PLAIN
    assert headers["OJS-Version"] == "1.0"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-OJS-Version"]
    assert headers["X-Request-Id"].startswith("req_")
    assert headers["Location"] == f"/ojs/v1/jobs/{body['job']['id']}"


@pytest.mark.parametrize("version", ["1", "1.0", "1.x", "1.7", "1.0.0-rc.1"])
async def test_sdks_get_the_media_type_they_look_for(edge: Edge, version: str) -> None:
    status, _, headers = await edge.call("GET", "/ojs/v1/health", OJS_Version=version)
    assert (status, headers["Content-Type"]) == (200, f'{PLAIN}; profile="application/json"')


@pytest.mark.parametrize("version", ["2.0", "0", "x", "11"])
async def test_another_version_is_unsupported(edge: Edge, version: str) -> None:
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs", JOB, OJS_Version=version)
    assert (status, body["error"]["code"]) == (422, "unsupported")
    assert not edge.gateway.sent


async def test_the_request_id_is_echoed_in_header_and_error(edge: Edge) -> None:
    status, body, headers = await edge.call("GET", "/ojs/v1/jobs/x", X_Request_ID="mine-1")
    assert (status, headers["X-Request-Id"], body["error"]["request_id"]) == (404, "mine-1", "mine-1")
    _, _, headers = await edge.call("GET", "/livez", X_Request_ID="has space")
    assert headers["X-Request-Id"].startswith("req_")


def check_envelope(body: Any, code: str) -> None:
    error = body["error"]
    assert set(body) == {"error"}
    assert error["code"] == code
    assert {"code", "message", "retryable", "request_id", "hint", "docs_url"} <= set(error)
    assert isinstance(error["retryable"], bool)
    assert error["hint"]
    assert error["docs_url"].endswith("#" + code.lower())


WrongRow = tuple[str, str, bytes | None, dict[str, str], int, str]
WRONG: list[WrongRow] = [
    ("GET", "/nowhere", None, {}, 404, "not_found"),
    ("GET", "/ojs/v1/nothing", None, {}, 404, "not_found"),
    ("GET", "/ojs/v1/jobs/not-an-id", None, {}, 404, "not_found"),
    ("POST", "/ojs/v1/admin/reset", b"{}", {}, 404, "not_found"),
    ("PUT", "/ojs/v1/jobs", b"{}", {}, 405, "method_not_allowed"),
    ("PATCH", "/ojs/v1/queues/a/pause", None, {}, 405, "method_not_allowed"),
    ("POST", "/ojs/v1/jobs", None, {}, 400, "invalid_payload"),
    ("POST", "/ojs/v1/jobs", b"{ invalid", {}, 400, "invalid_payload"),
    ("POST", "/ojs/v1/jobs", b"[]", {}, 400, "invalid_payload"),
    ("POST", "/ojs/v1/jobs", b"{}", {}, 400, "invalid_request"),
    ("POST", "/ojs/v1/jobs", b"{}", {"Content-Type": "text/plain"}, 400, "invalid_request"),
    ("POST", "/ojs/v1/jobs", b"x" * 3_200_000, {}, 413, "PayloadTooLarge"),
    ("POST", "/ojs/v1/jobs", b'{"a":"%s"}' % (b"x" * 1_200_000), {}, 413, "PayloadTooLarge"),
    ("POST", "/ojs/v1/jobs", b"x", {"Content-Encoding": "snappy"}, 415, "UnsupportedCompression"),
    ("POST", "/ojs/v1/jobs", b"no gzip", {"Content-Encoding": "gzip"}, 400, "invalid_payload"),
    ("POST", "/ojs/v1/workers/fetch", b"{}", {}, 400, "invalid_request"),
    ("POST", "/ojs/v1/workers/ack", b'{"job_id":"zzz"}', {}, 404, "not_found"),
    ("GET", "/ojs/v1/queues/Bad_Name/stats", None, {}, 400, "invalid_request"),
    ("GET", "/ojs/v1/queues/unseen", None, {}, 404, "not_found"),
    ("PUT", "/ojs/v1/queues/q/config", b'{"max":1}', {}, 400, "invalid_request"),
    ("PUT", "/ojs/v1/queues/q/config", b'{"producers":["x"]}', {}, 422, "unsupported"),
    ("DELETE", "/ojs/v1/queues/_default", b"{}", {}, 400, "invalid_request"),
    ("DELETE", "/ojs/v1/admin/queues/q/jobs", b'{"states":["active"]}', {}, 400, "invalid_request"),
    ("GET", "/ojs/v1/workers/unseen", None, {}, 404, "not_found"),
    ("GET", "/ojs/v1/jobs?limit=x", None, {}, 400, "invalid_request"),
    ("GET", "/ojs/v1/jobs?state=lost", None, {}, 400, "invalid_request"),
]


@pytest.mark.parametrize("row", WRONG, ids=lambda row: f"{row[0]}-{row[1]}-{row[4]}")
async def test_what_is_wrong_gets_an_envelope_and_never_reaches_the_log(edge: Edge, row: WrongRow) -> None:
    method, path, body, extra, status, code = row
    headers = {"Content-Type": PLAIN} if body is not None else {}
    data = None if body is None else io.BytesIO(body)
    sent = edge.client.request(method, path, data=data, headers=headers | extra)
    async with sent as response:
        assert response.status == status
        assert response.headers["Content-Type"] == PLAIN
        assert response.headers["OJS-Version"] == "1.0"
        check_envelope(await response.json(content_type=None), code)
    assert not edge.gateway.sent


async def test_a_wrong_method_names_the_right_ones(edge: Edge) -> None:
    _, body, headers = await edge.call("PUT", "/ojs/v1/jobs", {})
    assert headers["Allow"] == "GET, POST"
    assert body["error"]["details"]["allowed"] == ["GET", "POST"]


async def test_a_full_queue_says_how_full_it_is(edge: Edge) -> None:
    details = {"queue": "q", "depth": 5, "bound": 5, "strategy": "reject", "type": "a.b"}
    edge.gateway.answers[Enqueue] = [Outcome(code="QUEUE_FULL", message="It is full.", details=details)]
    status, body, headers = await edge.call("POST", "/ojs/v1/jobs", JOB)
    check_envelope(body, "QUEUE_FULL")
    assert (status, headers["Retry-After"]) == (429, "1")
    assert (headers["X-OJS-Queue-Depth"], headers["X-OJS-Queue-Bound"]) == ("5", "5")
    assert body["error"]["details"] == details


async def test_the_template_is_configured_at_the_home_of_its_name(edge: Edge) -> None:
    edge.queries.queues.own["_default"] = ConfigRecord(name="_default", max_size=5, version=1)
    status, body, _ = await edge.call("PUT", "/ojs/v1/queues/_default/config", {"max_size": 5})
    ((home, command),) = edge.gateway.sent
    assert (status, home) == (200, home_of("_default", HOMES))
    assert isinstance(command, Configure)
    assert (command.names, command.config.max_size) == (("max_size",), 5)
    assert (body["own"]["max_size"], body["config"]["default_timeout"], body["version"]) == (5, 1800, 1)


async def test_a_purge_repeats_until_no_more_is_left(edge: Edge) -> None:
    counts = [(1_000, True), (1_000, True), (7, False)]
    edge.gateway.answers[Purge] = [Outcome(data={"purged": n, "more": more}) for n, more in counts]
    asked = {"states": ["completed"], "confirm": True}
    status, body, _ = await edge.call("DELETE", "/ojs/v1/admin/queues/q/jobs", asked)
    assert (status, body["purged_count"], body["states"]) == (200, 2_007, ["completed"])


@pytest.mark.parametrize(("gone", "status", "state"), [(True, 200, "deleted"), (False, 202, "draining")])
async def test_a_deletion_says_whether_it_goes_on(edge: Edge, gone: bool, status: int, state: str) -> None:
    edge.gateway.answers[DeleteQueue] = [Outcome(data={"jobs_affected": 3, "deleted": gone})]
    asked = {"strategy": "move", "target_queue": "other"}
    got, body, _ = await edge.call("DELETE", "/ojs/v1/queues/q", asked)
    assert (got, body["state"], body["deleted"], body["target_queue"]) == (status, state, gone, "other")


async def test_a_retry_policy_is_refused_with_422(edge: Edge) -> None:
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs", JOB | {"retry": {"max_attempts": -1}})
    assert (status, body["error"]["type"]) == (422, "validation_error")
    assert "max_attempts" in body["error"]["message"]


async def test_an_unavailable_backend_is_503_with_retry_after(edge: Edge) -> None:
    edge.gateway.answers[Enqueue] = [UnavailableError("Kafka is down", retry_after_s=3, unknown=True)]
    status, body, headers = await edge.call("POST", "/ojs/v1/jobs", JOB)
    check_envelope(body, "backend_error")
    assert (status, headers["Retry-After"]) == (503, "3")
    assert body["error"]["retryable"] is True
    assert body["error"]["details"] == {"unknown": True}


async def test_a_defect_is_a_500_that_shows_nothing(edge: Edge) -> None:
    edge.gateway.answers[Enqueue] = [ZeroDivisionError("secret")]
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs", JOB)
    check_envelope(body, "internal_error")
    assert status == 500
    assert "secret" not in str(body)


@pytest.mark.parametrize(("code", "status"), [("conflict", 409), ("duplicate", 409), ("rate_limited", 429)])
async def test_what_the_fold_refuses_has_its_status(edge: Edge, code: str, status: int) -> None:
    edge.gateway.answers[Enqueue] = [Outcome(code=code, message="no", details={"why": 1})]
    got, body, headers = await edge.call("POST", "/ojs/v1/jobs", JOB)
    check_envelope(body, code)
    assert got == status
    assert body["error"]["details"] == {"why": 1}
    assert ("Retry-After" in headers) == (status == 429)


async def test_every_code_has_an_anchor_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    assert set(re.findall(r"^## `(\w+)`", text, re.MULTILINE)) == set(problems.CODES)


async def test_bytes_that_are_no_http_get_an_envelope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiohttp.web_server.RequestHandler", parser_errors.EnvelopeRequestHandler)
    edge = Edge()
    async with edge.client:
        for line in (b"GET / HTTP/9.9", b"GET /a b c HTTP/1.1", b"GET /" + b"x" * 20_000 + b" HTTP/1.1"):
            reader, writer = await asyncio.open_connection("127.0.0.1", edge.client.port)
            writer.write(line + b"\r\n\r\n")
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            assert head.split(b" ")[1] == b"400"
            assert b"Content-Type: application/openjobspec+json\r\n" in head + b"\r\n"
            check_envelope(msgspec.json.decode(body), "invalid_request")


async def test_a_connection_beyond_the_limit_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = parser_errors.EnvelopeRequestHandler
    monkeypatch.setattr("aiohttp.web_server.RequestHandler", handler)
    monkeypatch.setattr(handler, "open_max", handler.open_now + 1)
    edge = Edge()
    async with edge.client:
        _, held = await asyncio.open_connection("127.0.0.1", edge.client.port)
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.client.port)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        held.close()
        assert head.split(b" ")[1] == b"503"
        assert b"Retry-After: " in head
        check_envelope(msgspec.json.decode(body), "backend_error")


# ------------------------------------------------------------------ enqueue


async def test_enqueue_goes_to_the_home_of_its_queue(edge: Edge) -> None:
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs", JOB | {"options": {"queue": "mail"}})
    home, command = edge.gateway.sent[0]
    assert isinstance(command, Enqueue)
    assert home == home_of("mail", HOMES)
    assert stamp.HOME_BITS == 10
    assert int(command.jobs[0].id[-3:], 16) & 1023 == home
    assert (command.actor, command.v, command.batch) == ("anonymous", 1, False)
    assert command.request.startswith("req_")
    assert status == 201
    assert [body["id"], body["queue"], body["state"]] == [body["job"]["id"], "mail", "available"]


async def test_a_gzipped_body_is_read(edge: Edge) -> None:
    packed = gzip.compress(msgspec.json.encode(JOB))
    status, _, _ = await edge.call("POST", "/ojs/v1/jobs", packed, Content_Encoding="gzip")
    assert status == 201


async def test_a_gzip_bomb_is_bounded(edge: Edge) -> None:
    packed = gzip.compress(b"[" + b" " * 50_000_000)
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs", packed, Content_Encoding="gzip")
    assert (status, body["error"]["code"]) == (413, "PayloadTooLarge")


async def test_a_client_id_is_coordinated_by_its_own_home(edge: Edge) -> None:
    await edge.call("POST", "/ojs/v1/jobs", JOB | {"id": CLIENT_ID})
    assert edge.gateway.sent[0][0] == home_of(CLIENT_ID, HOMES)


async def test_a_client_id_that_is_taken_never_reaches_the_log(edge: Edge) -> None:
    edge.queries.stored[CLIENT_ID] = (3, record_of(CLIENT_ID, state="completed"))
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs", JOB | {"id": CLIENT_ID})
    assert (status, body["error"]["code"]) == (409, "duplicate")
    assert body["error"]["details"] == {"existing_job_id": CLIENT_ID, "existing_job_state": "completed"}
    assert not edge.gateway.sent


async def test_a_duplicate_that_the_fold_found_names_the_state(edge: Edge) -> None:
    refusal = Outcome(code="duplicate", message="taken", details={"existing_job_id": CLIENT_ID})
    edge.gateway.answers[Enqueue] = [refusal]
    found = record_of(CLIENT_ID, state="active")
    edge.gateway.before = lambda: edge.queries.stored.update({CLIENT_ID: (1, found)})
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs", JOB | {"id": CLIENT_ID})
    assert (status, body["error"]["details"]["existing_job_state"]) == (409, "active")


async def test_a_stage_that_was_not_decided_is_503(edge: Edge) -> None:
    edge.gateway.answers[Enqueue] = [Outcome(code="backend_error", message="not in time")]
    status, body, headers = await edge.call("POST", "/ojs/v1/jobs", JOB)
    check_envelope(body, "backend_error")
    assert (status, body["error"]["retryable"], headers["Retry-After"]) == (503, True, "1")


async def test_a_batch_is_one_command_and_keeps_its_order(edge: Edge) -> None:
    jobs = [JOB | {"queue": "b"}, JOB | {"queue": "a"}]
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs/batch", {"jobs": jobs})
    assert (status, body["count"], [job["queue"] for job in body["jobs"]]) == (201, 2, ["b", "a"])
    assert len(edge.gateway.sent) == 1
    assert edge.gateway.sent[0][0] == home_of("b", HOMES)


async def test_a_bad_job_in_a_batch_is_named(edge: Edge) -> None:
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs/batch", {"jobs": [JOB, {"type": "B", "args": []}]})
    assert (status, body["error"]["details"]["index"]) == (400, 1)
    assert not edge.gateway.sent


async def test_a_job_is_answered_byte_for_byte(edge: Edge) -> None:
    job_id = stamp.new_job_id(3)
    edge.queries.stored[job_id] = (3, record_of(job_id, extra=b'{"x":1e400}'))
    async with edge.client.get(f"/ojs/v1/jobs/{job_id}") as response:
        content = await response.read()
    assert b'"args":[12345678901234567890123,"\\u00e9"]' in content
    assert b'"x":1e400}' in content


# ------------------------------------------------------------------ fetch


async def test_an_idle_fetch_sends_no_command(edge: Edge) -> None:
    status, body, _ = await edge.call("POST", "/ojs/v1/workers/fetch", {"queues": ["a", "b"], "count": 2})
    assert (status, body) == (200, {"jobs": []})
    assert edge.queries.looks == 1
    assert not edge.gateway.sent


def three_homes() -> list[str]:
    names = {home_of(f"q{n}", HOMES): f"q{n}" for n in range(200)}
    return list(names.values())[:3]


def queues_of_one_home(count: int) -> list[str]:
    names = [f"q{n}" for n in range(200)]
    return [name for name in names if home_of(name, HOMES) == 0][:count]


async def test_consecutive_queues_of_a_home_are_one_claim(edge: Edge) -> None:
    first, second = queues_of_one_home(2)
    other = next(name for name in ("x1", "x2", "x3", "x4") if home_of(name, HOMES) != 0)
    edge.hinted.update((first, second, other))
    await edge.call("POST", "/ojs/v1/workers/fetch", {"queues": [first, second, other], "count": 5})
    claims = [command for command in edge.commands if isinstance(command, Claim)]
    assert [claim.queues for claim in claims] == [(first, second), (other,)]
    assert edge.queries.looks == 0


async def test_fetch_fills_up_and_stops(edge: Edge) -> None:
    ids = [stamp.new_job_id(0) for _ in range(3)]
    one, two, three = three_homes()
    edge.queries.ready = {one, two, three}
    edge.gateway.answers[Claim] = [
        Outcome(jobs=(job_json(ids[0]),)),
        UnavailableError("home is down"),
        Outcome(jobs=(job_json(ids[1]),)),
    ]
    _, body, _ = await edge.call("POST", "/ojs/v1/workers/fetch", {"queues": [one, two, three], "count": 2})
    assert [job["id"] for job in body["jobs"]] == ids[:2]
    assert [command.count for command in edge.commands if isinstance(command, Claim)] == [2, 1, 1]


async def test_fetch_is_503_if_no_home_answers(edge: Edge) -> None:
    edge.queries.ready = {"x1"}
    edge.gateway.answers[Claim] = [UnavailableError("home is down")]
    status, _, _ = await edge.call("POST", "/ojs/v1/workers/fetch", {"queues": ["x1"]})
    assert status == 503


async def test_a_long_poll_waits_for_work(edge: Edge) -> None:
    async def work_comes(queues: tuple[str, ...], seconds: float) -> None:
        edge.queries.ready = set(queues)

    edge.context.wait_for_work = work_comes
    edge.gateway.answers[Claim] = [Outcome(jobs=(job_json(CLIENT_ID),))]
    _, body, _ = await edge.call("POST", "/ojs/v1/workers/fetch", {"queues": ["a"], "wait_ms": 5_000})
    assert len(body["jobs"]) == 1


async def test_a_vanished_client_gives_its_jobs_back(edge: Edge) -> None:
    claimed = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(home: int, command: Command, *, late: Any = None) -> Outcome:
        edge.gateway.sent.append((home, command))
        if isinstance(command, Claim):
            claimed.set()
            await go_on.wait()
            return Outcome(jobs=(job_json(CLIENT_ID),))
        claimed.set()
        return Outcome()

    edge.gateway.submit = slow  # type: ignore[method-assign]
    edge.queries.ready = {"a"}
    _, writer = await asyncio.open_connection("127.0.0.1", edge.client.port)
    body = b'{"queues":["a"],"worker_id":"w"}'
    writer.write(
        b"POST /ojs/v1/workers/fetch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    await asyncio.wait_for(claimed.wait(), 5)
    claimed.clear()
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.05)  # the server must see the connection close before the claim returns
    go_on.set()
    await asyncio.wait_for(claimed.wait(), 5)
    assert edge.commands[-1] == GiveBack(
        v=1, actor="anonymous", request=edge.commands[-1].request, job_ids=(CLIENT_ID,), worker_id="w"
    )


def worker(directive: str = "running", reported: str = "running", beat_ago_ms: int = 0) -> WorkerRecord:
    at = "2026-01-01T00:00:00.000Z"
    beat = stamp.now_ms() - beat_ago_ms
    return WorkerRecord(
        id="w", started_at=at, last_heartbeat_at=at, beat=beat, reported=reported, directive=directive
    )


@pytest.mark.parametrize("record", [worker("quiet"), worker("terminate"), worker(reported="drain")])
async def test_a_quiet_worker_gets_nothing(edge: Edge, record: WorkerRecord) -> None:
    edge.queries.workers.known["w"] = record
    edge.queries.ready = {"a"}
    _, body, _ = await edge.call("POST", "/ojs/v1/workers/fetch", {"queues": ["a"], "worker_id": "w"})
    assert body == {"jobs": []}
    assert not edge.gateway.sent


# ------------------------------------------------------------------ ack, nack, cancel


async def test_ack_goes_to_the_home_in_the_id(edge: Edge) -> None:
    job_id = stamp.new_job_id(5)
    status, body, _ = await edge.call(
        "POST", "/ojs/v1/workers/ack", b'{"job_id":"%s","result":[1e400]}' % job_id.encode()
    )
    home, command = edge.gateway.sent[0]
    assert isinstance(command, Ack)
    assert (home, bytes(cast("msgspec.Raw", command.result))) == (5, b"[1e400]")
    assert (status, body["acknowledged"], body["job_id"], body["id"]) == (200, True, job_id, job_id)
    assert body["job"]["id"] == job_id


async def test_a_command_follows_the_job_to_its_real_home(edge: Edge) -> None:
    job_id = stamp.new_job_id(5)
    edge.gateway.answers[Ack] = [Outcome(code="not_found", message="no")]
    edge.queries.stored[job_id] = (2, record_of(job_id))
    status, _, _ = await edge.call("POST", f"/ojs/v1/jobs/{job_id}/ack")
    assert (status, [home for home, _ in edge.gateway.sent]) == (200, [5, 2])


async def test_home_bits_beyond_the_homes_are_looked_up(edge: Edge) -> None:
    job_id = stamp.new_job_id(900)
    status, _, _ = await edge.call("DELETE", f"/ojs/v1/jobs/{job_id}")
    assert (status, edge.gateway.sent) == (404, [])
    edge.queries.stored[job_id] = (2, record_of(job_id))
    status, body, _ = await edge.call("DELETE", f"/ojs/v1/jobs/{job_id}?reason=why")
    home, command = edge.gateway.sent[0]
    assert isinstance(command, Cancel)
    assert (status, home, command.reason, body["job"]["previous_state"]) == (200, 2, "why", "active")


async def test_a_nack_carries_the_error_and_the_dice(edge: Edge) -> None:
    job_id = stamp.new_job_id(1)
    error = {"code": "c", "message": "m", "details": {"error_class": "E"}, "retryable": False}
    status, body, _ = await edge.call(
        "POST", "/ojs/v1/workers/nack", {"job_id": job_id, "error": error, "requeue": True}
    )
    command = edge.commands[0]
    assert isinstance(command, Nack)
    assert (command.code, command.type, command.error_class, command.requeue) == ("c", "E", "E", True)
    assert 0 <= command.dice < 1
    assert (status, body["job_id"], body["max_attempts"]) == (200, job_id, 3)
    assert "retry_delay_ms" not in body


# ------------------------------------------------------------------ heartbeats


async def test_a_heartbeat_extends_per_home_and_beats_once(edge: Edge) -> None:
    ids = [stamp.new_job_id(1), stamp.new_job_id(2), stamp.new_job_id(1)]
    status, body, _ = await edge.call("POST", "/ojs/v1/workers/heartbeat", {"worker_id": "w", "active_jobs": ids})
    assert status == 200
    assert sorted(body["jobs_extended"]) == sorted(ids)
    assert body["state"] == "running"
    assert sorted(type(command).__name__ for command in edge.commands) == ["Beat", "Extend", "Extend"]


async def test_a_fresh_worker_record_needs_no_beat(edge: Edge) -> None:
    edge.queries.workers.known["w"] = worker("quiet", beat_ago_ms=5_000)
    _, body, _ = await edge.call("POST", "/ojs/v1/workers/beat", {"worker_id": "w", "active_jobs": 2})
    assert (body["state"], body["directive"], body["acknowledged"]) == ("quiet", "quiet", True)
    assert not edge.gateway.sent


@pytest.mark.parametrize(("record", "said"), [(worker(beat_ago_ms=11_000), "running"), (worker(), "drain")])
async def test_an_old_or_changed_record_is_written_again(edge: Edge, record: WorkerRecord, said: str) -> None:
    edge.queries.workers.known["w"] = record
    await edge.call("POST", "/ojs/v1/workers/heartbeat", {"worker_id": "w", "active_jobs": 0, "state": said})
    assert [type(command).__name__ for command in edge.commands] == ["Beat"]


async def test_a_heartbeat_answers_with_what_is_known(edge: Edge) -> None:
    ids = [stamp.new_job_id(1), stamp.new_job_id(2)]
    edge.gateway.answers[Extend] = [UnavailableError("home 1 is down")]
    _, body, _ = await edge.call("POST", "/ojs/v1/workers/heartbeat", {"worker_id": "w", "active_jobs": ids})
    assert body["jobs_extended"] == [ids[1]]
    edge.gateway.answers[Extend] = [UnavailableError("down"), UnavailableError("down")]
    status, _, headers = await edge.call(
        "POST", "/ojs/v1/workers/heartbeat", {"worker_id": "w", "active_jobs": ids}
    )
    assert (status, "Retry-After" in headers) == (503, True)


async def test_a_test_directive_counts_only_in_test_mode() -> None:
    job = record_of(CLIENT_ID, state="active")
    meta = msgspec.Raw(b'{"test_directive":"terminate"}')
    job = msgspec.structs.replace(job, job=msgspec.structs.replace(job.job, meta=meta, worker_id="w"))
    for test_mode, expected in ((False, "running"), (True, "terminate")):
        edge = Edge(test_mode=test_mode)
        edge.queries.stored[CLIENT_ID] = (0, job)
        async with edge.client:
            _, body, _ = await edge.call("POST", "/ojs/v1/workers/heartbeat", {"worker_id": "w"})
        assert body["state"] == expected


# ------------------------------------------------------------------ queues, system


async def test_queue_stats_have_both_shapes(edge: Edge) -> None:
    _, body, _ = await edge.call("GET", "/ojs/v1/queues/q/stats")
    assert body["queue"]["available"] == body["available"] == body["stats"]["available"] == 0
    _, body, _ = await edge.call("GET", "/ojs/v1/queues/q/stats", OJS_Version="1.0")
    assert (body["queue"], body["name"], body["status"]) == ("q", "q", "active")


@pytest.mark.parametrize(
    ("path", "ok"), [("/ojs/v1/health", 200), ("/health", 200), ("/healthz", 200), ("/ready", 200)]
)
async def test_health_and_readiness(edge: Edge, path: str, ok: int) -> None:
    status, body, _ = await edge.call("GET", path)
    assert (status, body["status"]) == (ok, "ready" if "ready" in path else "ok")
    edge.down = True
    status, _, headers = await edge.call("GET", path)
    assert (status, "Retry-After" in headers) == (503, True)
    status, _, _ = await edge.call("GET", "/livez")
    assert status == 200


async def test_the_manifest_says_what_is_there(edge: Edge) -> None:
    _, body, _ = await edge.call("GET", "/ojs/manifest")
    assert body["conformance_level"] == 4
    assert all(isinstance(value, bool) for value in body["capabilities"].values())
    assert body["capabilities"]["dead_letter"]
    assert body["capabilities"]["workflows"]
    assert not body["capabilities"]["webhooks"]
    assert "admin_reset" not in body["endpoints"]
    assert set(body["endpoints"].values()) <= {route.path for route in routes_of(edge.context)} | {"/ojs/manifest"}


async def test_reset_goes_to_every_home_in_test_mode() -> None:
    edge = Edge(test_mode=True)
    async with edge.client:
        status, _, _ = await edge.call("POST", "/ojs/v1/admin/reset")
    assert status == 200
    assert sorted(home for home, _ in edge.gateway.sent) == list(range(HOMES))


@pytest.mark.parametrize(
    ("query", "limit", "offset"),
    [
        ("", 50, 0),
        ("limit=7&offset=3", 7, 3),
        ("limit=0&offset=-5", 1, 0),
        ("limit=99999999999999999999", 200, 0),
        ("page=3&per_page=10", 10, 20),
    ],
)
async def test_limits_are_clamped_not_refused(edge: Edge, query: str, limit: int, offset: int) -> None:
    status, body, _ = await edge.call("GET", f"/ojs/v1/jobs?{query}")
    assert (status, body["pagination"]["limit"], body["pagination"]["offset"]) == (200, limit, offset)


async def test_head_is_answered_like_get(edge: Edge) -> None:
    async with edge.client.head("/health") as response:
        assert response.status == 200


async def test_a_claim_that_comes_too_late_gives_its_jobs_back(edge: Edge) -> None:
    given_back = asyncio.Event()

    async def too_late(home: int, command: Command, *, late: Any = None) -> Outcome:
        edge.gateway.sent.append((home, command))
        if isinstance(command, Claim):
            late(Outcome(jobs=(job_json(CLIENT_ID),)))
            raise UnavailableError("nobody knows", unknown=True)
        given_back.set()
        return Outcome()

    edge.gateway.submit = too_late  # type: ignore[method-assign]
    edge.queries.ready = {"a"}
    answer = await edge.client.post("/ojs/v1/workers/fetch", json={"queues": ["a"], "worker_id": "w"})
    assert answer.status == 503
    await asyncio.wait_for(given_back.wait(), 5)
    assert isinstance(edge.commands[-1], GiveBack)
    assert edge.commands[-1].job_ids == (CLIENT_ID,)


# ------------------------------------------------------------------ unique jobs


def _deduplicated(job_id: str, count: int = 1) -> Outcome:
    existing = {str(place): job_id for place in range(count)}
    return Outcome(jobs=(msgspec.Raw(b"null"),) * count, data={"existing": existing})


async def test_an_ignored_job_is_answered_with_the_existing_one(edge: Edge) -> None:
    edge.queries.stored[CLIENT_ID] = 3, record_of(CLIENT_ID, state="active")
    edge.gateway.answers[Enqueue] = [_deduplicated(CLIENT_ID)]
    status, body, headers = await edge.call("POST", "/ojs/v1/jobs", {**JOB, "unique": {"on_conflict": "ignore"}})
    assert (status, body["deduplicated"], body["job"]["id"]) == (200, True, CLIENT_ID)
    assert (body["job"]["state"], headers["Location"]) == ("active", f"/ojs/v1/jobs/{CLIENT_ID}")


async def test_an_existing_job_that_is_nowhere_yet_is_asked_for_again(edge: Edge) -> None:
    edge.gateway.answers[Enqueue] = [_deduplicated(CLIENT_ID)]
    status, body, headers = await edge.call("POST", "/ojs/v1/jobs", {**JOB, "unique": {"on_conflict": "ignore"}})
    assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "backend_error", "1")


async def test_in_a_batch_the_existing_job_stands_where_the_new_one_was_asked_for(edge: Edge) -> None:
    edge.queries.stored[CLIENT_ID] = 3, record_of(CLIENT_ID)
    edge.gateway.answers[Enqueue] = [_deduplicated(CLIENT_ID, 2)]
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs/batch", {"jobs": [JOB, JOB]})
    assert (status, body["count"], [job["id"] for job in body["jobs"]]) == (201, 2, [CLIENT_ID] * 2)


async def test_a_unique_job_is_decided_at_its_lock(edge: Edge) -> None:
    unique = {"keys": ["args"]}
    for queue in ("a", "b", "c"):
        await edge.call("POST", "/ojs/v1/jobs", {**JOB, "queue": queue, "unique": unique})
    homes = {home for home, _ in edge.gateway.sent}
    assert len(homes) == 1
    for command in edge.commands:
        assert isinstance(command, Enqueue)
        assert command.jobs[0].unique is not None
        assert command.jobs[0].unique.home in homes


async def test_a_duplicate_is_told_with_what_the_lock_knows(edge: Edge) -> None:
    details = {"existing_job_id": CLIENT_ID, "existing_job_state": "scheduled", "unique_key": "f" * 64}
    edge.gateway.answers[Enqueue] = [Outcome(code="duplicate", message="it is there", details=details)]
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs", {**JOB, "unique": {}})
    assert (status, body["error"]["details"]) == (409, details)


# ------------------------------------------------------------------ many jobs at once, requests that come again


def changed(*done: str, missing: Sequence[str] = (), skipped: dict[str, str] | None = None) -> Outcome:
    return Outcome(data={"done": list(done), "skipped": skipped or {}, "missing": list(missing)})


async def test_ids_go_to_their_homes_and_a_strayed_one_to_where_it_is_found(edge: Edge) -> None:
    here, there, stray = (stamp.new_job_id(home) for home in (1, 2, 3))
    edge.queries.stored[stray] = (5, record_of(stray))
    edge.gateway.answers[Bulk] = [changed(here), changed(skipped={there: "the job is active"})]
    edge.gateway.answers[Bulk] += [changed(missing=[stray]), changed(stray)]
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs/bulk/cancel", {"job_ids": [here, there, stray]})
    assert status == 200
    assert [home for home, _ in edge.gateway.sent] == [1, 2, 3, 5]
    assert (body["total_matched"], body["cancelled"], body["skipped"], body["failed"]) == (3, 2, 1, 0)
    assert [item["job_id"] for item in body["items"]] == [here, there, stray]
    assert [item["status"] for item in body["items"]] == ["cancelled", "skipped", "cancelled"]


async def test_a_home_that_is_away_fails_its_jobs_alone(edge: Edge) -> None:
    here, away = stamp.new_job_id(1), stamp.new_job_id(2)
    edge.gateway.answers[Bulk] = [changed(here), UnavailableError("home 2 is away")]
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs/bulk/delete", {"job_ids": [here, away]})
    assert (status, body["deleted"], body["failed"]) == (207, 1, 1)
    assert body["errors"] == [{"job_id": away, "code": "backend_error", "message": "home 2 is away"}]


async def test_when_nothing_could_be_asked_the_answer_is_503(edge: Edge) -> None:
    edge.gateway.answers[Bulk] = [UnavailableError("away", retry_after_s=4)]
    status, _, headers = await edge.call("POST", "/ojs/v1/jobs/bulk/retry", {"job_ids": [stamp.new_job_id(1)]})
    assert (status, headers["Retry-After"]) == (503, "4")


async def test_when_no_job_is_known_the_answer_is_422_with_an_envelope(edge: Edge) -> None:
    lost = stamp.new_job_id(1)
    edge.gateway.answers[Bulk] = [changed(missing=[lost])]
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs/bulk/retry", {"job_ids": [lost, "no id"]})
    assert (status, body["error"]["code"], body["total_matched"]) == (422, "bulk_failed", 0)
    assert {error["code"] for error in body["errors"]} == {"not_found"}


async def test_a_filter_is_applied_in_portions_and_what_is_gone_meanwhile_does_not_count(edge: Edge) -> None:
    pages = [[stamp.new_job_id(3) for _ in range(450)], [], [stamp.new_job_id(4)]]
    edge.queries.pages = list(zip((3, 3, 4), pages, strict=True))
    sizes = [pages[0][:200], pages[0][200:400], pages[0][400:]]
    edge.gateway.answers[Bulk] = [*[changed(*ids) for ids in sizes], changed(missing=pages[2])]
    body = {"filter": {"type": "a.*"}, "confirm": True}
    status, body, _ = await edge.call("POST", "/ojs/v1/admin/jobs/bulk/cancel", body)
    assert (status, body["action"], body["matched"], body["succeeded"], body["more"]) == (
        200,
        "cancel",
        450,
        450,
        False,
    )
    assert [len(cast("Bulk", one).job_ids) for one in edge.commands] == [200, 200, 50, 1]
    assert edge.queries.asked[0].states == ("available", "scheduled")


async def test_a_filter_that_takes_too_long_says_that_more_is_left(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "BULK_S", -1.0)
    job_id = stamp.new_job_id(3)
    edge.queries.pages = [(3, [job_id]), (3, [stamp.new_job_id(3)])]
    edge.gateway.answers[Bulk] = [changed(job_id)]
    _, body, _ = await edge.call("POST", "/ojs/v1/jobs/bulk/cancel", {"filter": {"queue": "q"}})
    assert (body["cancelled"], body["more"]) == (1, True)


async def test_a_key_is_decided_at_its_own_home(edge: Edge) -> None:
    status, _, headers = await edge.call("POST", "/ojs/v1/jobs", JOB, Idempotency_Key="mine")
    ((home, command),) = edge.gateway.sent
    assert isinstance(command, Enqueue)
    assert (command.replay, len(command.body), home) == ("anonymous/jobs/mine", 64, home_of(command.replay, HOMES))
    assert (status, "Idempotency-Replayed" in headers) == (201, False)


@pytest.mark.parametrize("key", ["", "x" * 257, "café"])
async def test_a_key_that_is_no_plain_word_is_refused(edge: Edge, key: str) -> None:
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs", JOB, Idempotency_Key=key)
    assert (status, body["error"]["code"], edge.gateway.sent) == (400, "invalid_request", [])


async def test_a_repeat_is_answered_the_job_as_it_is_now_or_what_is_known_of_it(edge: Edge) -> None:
    known, gone = stamp.new_job_id(1), stamp.new_job_id(1)
    edge.queries.stored[known] = (1, record_of(known, state="completed"))
    for job_id, state in ((known, "completed"), (gone, "available")):
        head = b'{"id":"%s","type":"a.b","state":"available","queue":"q"}' % job_id.encode()
        edge.gateway.answers[Enqueue] = [Outcome(jobs=(msgspec.Raw(head),), data={"replayed": True})]
        status, body, headers = await edge.call("POST", "/ojs/v1/jobs", JOB, Idempotency_Key="mine")
        assert (status, headers["Idempotency-Replayed"]) == (201, "true")
        assert (body["id"], body["job"]["id"], body["job"]["state"]) == (job_id, job_id, state)


async def test_a_chosen_id_that_is_there_already_may_be_the_first_of_these_requests(edge: Edge) -> None:
    edge.queries.stored[CLIENT_ID] = (1, record_of(CLIENT_ID))
    status, _, _ = await edge.call("POST", "/ojs/v1/jobs", JOB | {"id": CLIENT_ID}, Idempotency_Key="mine")
    assert (status, edge.gateway.sent) == (409, [])
    edge.queries.keys.add("anonymous/jobs/mine")
    status, _, _ = await edge.call("POST", "/ojs/v1/jobs", JOB | {"id": CLIENT_ID}, Idempotency_Key="mine")
    assert (status, len(edge.gateway.sent)) == (201, 1)


async def test_the_header_wins_over_the_key_of_the_body(edge: Edge) -> None:
    body = {"jobs": [JOB], "idempotency_key": "inside"}
    await edge.call("POST", "/ojs/v1/jobs/bulk", body)
    await edge.call("POST", "/ojs/v1/jobs/bulk", body, Idempotency_Key="outside")
    keys = [cast("Enqueue", command).replay for command in edge.commands]
    assert keys == ["anonymous/bulk/inside", "anonymous/bulk/outside"]


async def test_an_atomic_bulk_request_with_a_bad_job_never_reaches_the_log(edge: Edge) -> None:
    body = {"jobs": [JOB, {}, JOB], "atomicity": "atomic"}
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs/bulk", body)
    assert (status, body["succeeded"], body["failed"], edge.gateway.sent) == (422, 0, 3, [])
    assert [item["error"]["code"] for item in body["items"]] == ["bulk_failed", "invalid_request", "bulk_failed"]


async def test_a_unique_job_that_is_there_already_is_a_duplicate_and_no_failure(edge: Edge) -> None:
    edge.queries.stored[CLIENT_ID] = (1, record_of(CLIENT_ID))
    told = Outcome(jobs=(msgspec.Raw(b"null"),), data={"existing": {"0": CLIENT_ID}})
    edge.gateway.answers[Enqueue] = [told]
    status, body, _ = await edge.call("POST", "/ojs/v1/jobs/bulk", {"jobs": [JOB]})
    assert (status, body["items"][0]["status"], body["items"][0]["job"]["id"]) == (200, "duplicate", CLIENT_ID)
