"""The Python, JavaScript and Go SDKs and the CLI, unmodified: their requests byte for byte, read as they read.

One server for all of it. The numbers are those of the traps in docs/clients.md.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.support import sdk
from tests.support.sdk import API, Cli, Go, JavaScript, Python, Sdk
from tests.support.servers import BrokerHandle, RedisHandle, Worker

SDKS = (Python, JavaScript, Go)
ALL = (*SDKS, Cli)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def url(kafka: BrokerHandle, redis_server: RedisHandle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for the module."""
    worker = Worker(
        tmp_path_factory.mktemp("clients"),
        brokers=kafka.bootstrap,
        redis_url=redis_server.url,
        namespace="clients",
        partitions=4,
        env={"OJS_TEST_MODE": "0"},
    )
    asyncio.run(worker.start())
    yield worker.url
    worker.kill()


def new(word: str = "queue") -> str:
    """A name that no other test uses."""
    return f"{word}-{next(_numbers)}"


def wait_for(holds: Callable[[], Any], what: str, within_s: float = 20.0) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"after {within_s:g} s still not: {what}"
        time.sleep(0.05)
    return found


def enqueue(client: Sdk, queue: str, **options: Any) -> str:
    body = {"type": "email.send", "args": [{"to": "a"}], "options": {"queue": queue, **options}}
    return str(client.ask("POST", "/jobs", body)["job"]["id"])


def fetch(client: Sdk, queue: str, worker: str = "w1", **more: Any) -> list[dict[str, Any]]:
    body = {"queues": [queue], "count": 1, "visibility_timeout_ms": 30_000, "worker_id": worker, **more}
    return list(client.ask("POST", "/workers/fetch", body)["jobs"])


def running(client: Sdk, **options: Any) -> tuple[str, str]:
    """(queue, id) of a job that worker ``w1`` has."""
    queue = new()
    job_id = enqueue(client, queue, **options)
    assert [job["id"] for job in fetch(client, queue)] == [job_id]
    return queue, job_id


# -- 1: the media type ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_01_every_answer_has_the_media_type_that_its_client_looks_for(url: str, kind: type[Sdk]) -> None:
    client = kind(url)
    got = client.send("POST", "/jobs", {"type": "a.b", "args": []})
    wanted = f'{sdk.OJS}; profile="application/json"' if kind in SDKS else sdk.OJS
    assert got.headers["content-type"] == wanted
    assert "_raw" not in client.read(got)
    assert client.send("GET", "/nothing").headers["content-type"] == wanted


# -- 2: heartbeats --------------------------------------------------------------------------------------------


def beat_of(kind: type[Sdk], job_id: str) -> dict[str, Any]:
    if kind is Python:
        return {"worker_id": "w1", "active_jobs": [job_id], "visibility_timeout_ms": 30_000}
    beat = {"worker_id": "w1", "state": "running", "active_jobs": 1, "active_job_ids": [job_id]}
    if kind is JavaScript:
        beat |= {"hostname": "h", "pid": 7, "queues": ["q"], "concurrency": 10, "labels": ["x"]}
    return beat


@pytest.mark.parametrize("kind", SDKS)
def test_02_heartbeats_in_three_dialects_extend_the_lease(url: str, kind: type[Sdk]) -> None:
    client = kind(url)
    _, job_id = running(client)
    told = client.ask("POST", "/workers/heartbeat", beat_of(kind, job_id))
    assert told["state"] == "running"
    assert told["jobs_extended"] == [job_id]


# -- 3: cron --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SDKS)
def test_03_cron_entries_of_sdks(url: str, kind: type[Sdk]) -> None:
    client, name = kind(url), new("nightly")
    body = {"name": name, "cron": "0 9 * * *", "timezone": "Europe/Berlin", "type": "report.make", "args": [1]}
    told = client.ask("POST", "/cron", {**body, "meta": {"k": "v"}, "options": {"queue": "reports"}})["cron_job"]
    assert (told["name"], told["cron"], told["timezone"], told["type"]) == (
        name,
        "0 9 * * *",
        "Europe/Berlin",
        "report.make",
    )
    assert (told["args"], told["status"], told["options"]) == ([1], "active", {"queue": "reports"})
    query = "?page=1&per_page=50" if kind is JavaScript else "?limit=50&offset=0"
    listed = client.ask("GET", f"/cron{query}")
    sdk.check(listed, {"cron_jobs": [sdk.CRON], "pagination": sdk.PAGINATION})
    assert name in [one["name"] for one in listed["cron_jobs"]]
    client.ask("DELETE", f"/cron/{name}")
    assert client.refused("DELETE", f"/cron/{name}").code == "not_found"


def test_03_cron_entries_of_the_cli(url: str) -> None:
    cli, name = Cli(url), new("hourly")
    job = {"type": "report.make", "options": {"queue": "reports"}}
    cli.ask("POST", "/cron", {"name": name, "expression": "0 * * * *", "job_template": job})
    (listed,) = [one for one in cli.ask("GET", "/cron?enabled=true")["cron_jobs"] if one["name"] == name]
    assert (listed["expression"], listed["enabled"], bool(listed["next_run_at"])) == ("0 * * * *", True, True)
    detail = cli.ask("PATCH", f"/cron/{name}", {"expression": "30 * * * *"}) and cli.ask("GET", f"/cron/{name}")
    assert (detail["expression"], detail["job_template"]["type"], detail["run_count"]) == (
        "30 * * * *",
        "report.make",
        0,
    )
    job_id = cli.ask("POST", f"/cron/{name}/trigger")["job_id"]
    (run,) = cli.ask("GET", f"/cron/{name}/history?limit=20")["executions"]
    assert (run["job_id"], run["state"], bool(run["scheduled_at"])) == (job_id, "available", True)
    assert not fetch(cli, "reports")[0]["args"]
    (run,) = cli.ask("GET", f"/cron/{name}/history?limit=20")["executions"]
    assert (run["state"], bool(run["started_at"])) == ("active", True)
    cli.ask("POST", f"/cron/{name}/pause")
    assert cli.ask("GET", f"/cron/{name}")["enabled"] is False
    cli.ask("POST", f"/cron/{name}/resume")
    cli.ask("DELETE", f"/cron/{name}")


# -- 4, 5: workflows ------------------------------------------------------------------------------------------


def step(number: int, word: str = "step", after: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return {"id": f"{word}-{number}", "type": "flow.step", "args": [number], "depends_on": after or [], **more}


def test_04_a_chain_of_python(url: str) -> None:
    python, queue = Python(url), new()
    steps = [step(0, options={"queue": queue}), step(1, after=["step-0"], options={"queue": queue})]
    made = python.ask("POST", "/workflows", {"name": "two", "steps": steps})["workflow"]
    assert (made["name"], made["state"], [one["id"] for one in made["steps"]]) == (
        "two",
        "running",
        ["step-0", "step-1"],
    )
    for _ in steps:
        (job,) = wait_for(lambda: fetch(python, queue), "the next step is there")
        python.ask("POST", "/workers/ack", {"job_id": job["id"], "result": {"ok": True}})
    path = f"/workflows/{made['id']}"
    done = wait_for(
        lambda: (w := python.ask("GET", path)["workflow"])["state"] == "completed" and w, "the workflow completed"
    )
    assert [one["state"] for one in done["steps"]] == ["completed", "completed"]
    Go(url).decode({"workflow": sdk.WORKFLOW}, "GET", path)
    shown = JavaScript(url).ask("GET", path)
    assert (shown["id"], shown["state"], shown["metadata"]["job_count"]) == (made["id"], "completed", 2)
    status = Cli(url).ask("GET", path)
    assert (status["name"], len(status["steps"]), bool(status["completed_at"])) == ("two", 2, True)


def callbacks_of(kind: type[Sdk], queue: str) -> list[dict[str, Any]]:
    options = {"queue": queue}
    names = ("on_complete", "on_success", "on_failure")
    if kind is Go:
        return [
            {"id": name.replace("_", "-"), "type": f"flow.{name}", "args": [], "depends_on": ["job-0"]}
            for name in names
        ]
    return [
        {
            "id": name,
            "type": f"flow.{name}",
            "args": [],
            "depends_on": ["job-0"],
            "options": {**options, "callback_type": name},
        }
        for name in names
    ]


@pytest.mark.parametrize("kind", [Python, Go])
def test_04_callbacks_of_a_batch_are_no_steps(url: str, kind: type[Sdk]) -> None:
    client, queue = kind(url), new()
    options = {"queue": queue}
    body = {"name": "all", "steps": [step(0, "job", options=options), *callbacks_of(kind, queue)]}
    if kind is Go:
        # Its steps carry no queue: the workflow's options are every step's default.
        body = {"name": "all", "steps": [step(0, "job"), *callbacks_of(kind, queue)], "options": options}
    client.ask("POST", "/workflows", body)
    (job,) = fetch(client, queue)
    client.ask("POST", "/workers/ack", {"job_id": job["id"]})
    started = [wait_for(lambda: fetch(client, queue), "a callback")[0]["type"] for _ in range(2)]
    assert sorted(started) == ["flow.on_complete", "flow.on_success"]
    assert fetch(client, queue) == []


def test_05_a_batch_of_javascript_reads_the_top_level(url: str) -> None:
    js, queue = JavaScript(url), new()
    one = {"type": "flow.step", "args": [], "options": {"queue": queue}}
    made = js.ask(
        "POST", "/workflows", {"type": "batch", "jobs": [one, one], "callbacks": {"on_complete": one}, "name": "b"}
    )
    assert (made["type"], made["name"], made["state"]) == ("batch", "b", "running")
    assert (made["metadata"]["job_count"], made["metadata"]["completed_count"]) == (2, 0)
    ended = js.ask("DELETE", f"/workflows/{made['id']}")
    assert ended["state"] == "cancelled"


def test_05_workflows_of_the_cli(url: str) -> None:
    cli = Cli(url)
    steps = [step(0), step(1, after=["step-0"])]
    made = cli.ask("POST", "/workflows", {"name": "cli", "steps": steps})
    assert made["state"] == "running"
    listed = cli.ask("GET", "/workflows?limit=25&state=running")
    (row,) = [one for one in listed["workflows"] if one["id"] == made["id"]]
    assert (row["name"], row["state"], row["step_count"], listed["total"] > 0) == ("cli", "running", 2, True)
    assert len(cli.ask("DELETE", f"/workflows/{made['id']}")["cancelled_steps"]) == 2


# -- 6: statistics of a queue ---------------------------------------------------------------------------------


def test_06_statistics_of_a_queue_in_four_shapes(url: str) -> None:
    queue, _ = running(Python(url))
    enqueue(Python(url), queue)
    path = f"/queues/{queue}/stats"
    told = Python(url).ask("GET", path)
    assert (told["queue"], told["status"], told["stats"]["available"], told["stats"]["active"]) == (
        queue,
        "active",
        1,
        1,
    )
    Go(url).decode(sdk.QUEUE_STATS, "GET", path)
    flat = JavaScript(url).ask("GET", path)
    assert (flat["name"], flat["available"], flat["active"], flat["completed"], flat["paused"]) == (
        queue,
        1,
        1,
        0,
        False,
    )
    plain = Cli(url).ask("GET", path)
    assert (plain["queue"]["available"], plain["stats"]["dead"]) == (1, 0)


def test_06_queues_are_listed_paused_and_resumed(url: str) -> None:
    queue, _ = running(Python(url))
    for kind in SDKS:
        client = kind(url)
        client.ask("POST", f"/queues/{queue}/pause")
        listed = client.ask("GET", "/queues?limit=200")
        sdk.check(listed, {"queues": [{"name": str, "status": str, "created_at": "time"}]})
        (mine,) = [one for one in listed["queues"] if one["name"] == queue]
        assert (mine["status"], mine["paused"]) == ("paused", True)
        client.ask("POST", f"/queues/{queue}/resume")
    assert "default" in [one["name"] for one in Python(url).ask("GET", "/queues")["queues"]]


# -- 7: units of retry and unique -----------------------------------------------------------------------------


def test_07_retry_policies_and_unique_rules_in_four_dialects(url: str) -> None:
    queue = new()
    go_retry = {"max_attempts": 4, "initial_interval_ms": 2500, "max_interval_ms": 9000, "jitter": False}
    iso_retry = {"max_attempts": 4, "initial_interval": "PT2.5S", "backoff_coefficient": 2.0, "jitter": False}
    for client, retry in ((Go(url), go_retry), (Python(url), iso_retry), (JavaScript(url), iso_retry)):
        job_id = enqueue(client, queue, retry=retry)
        policy = Cli(url).ask("GET", f"/jobs/{job_id}/retries")["policy"]
        assert (policy["max_attempts"], policy["initial_interval"]) == (4, "PT2.5S")
    rules: list[tuple[Sdk, dict[str, Any]]] = [
        (Go(url), {"key": ["type", "args"], "period_ms": 60_000, "on_conflict": "reject"}),
        (Python(url), {"on_conflict": "reject", "key": ["type", "queue", "args"], "period": "PT60S"}),
        (Cli(url), {"key": new("key"), "within": "1h"}),
    ]
    for client, rule in rules:
        other = new()
        enqueue(client, other, unique=rule)
        refused = client.refused(
            "POST",
            "/jobs",
            {"type": "email.send", "args": [{"to": "a"}], "options": {"queue": other, "unique": rule}},
        )
        assert (refused.status, refused.code) == (409, "duplicate")
        assert refused.error["details"]["existing_job_id"]


def test_07_the_cli_sets_the_attempts_beside_the_policy(url: str) -> None:
    cli = Cli(url)
    options = {"queue": new(), "priority": 5, "max_attempts": 7}
    made = cli.ask("POST", "/jobs", {"type": "email.send", "args": ["x"], "options": options})
    assert (made["state"], made["queue"], made["job"]["max_attempts"], made["job"]["priority"]) == (
        "available",
        options["queue"],
        7,
        5,
    )


# -- 8, 9: strict types ---------------------------------------------------------------------------------------


def test_08_the_manifest_and_health_fit_go(url: str) -> None:
    go = Go(url)
    manifest = go.decode(sdk.MANIFEST, "GET", "/ojs/manifest", root=True)
    assert (manifest["specversion"], manifest["ojs_version"]) == ("1.0", "1.0")
    assert manifest["implementation"]["name"] == "ojs-stream"
    assert go.decode(sdk.HEALTH, "GET", "/health")["status"] == "ok"
    for kind in (Python, JavaScript):
        assert kind(url).ask("GET", "/ojs/manifest", root=True)["capabilities"]["cron"] is True


def test_08_what_the_manifest_promises_is_there_and_what_is_missing_is_false(url: str) -> None:
    js = JavaScript(url)
    manifest = js.ask("GET", "/ojs/manifest", root=True)
    for path in manifest["endpoints"].values():
        assert path.startswith("/")
    missing = {
        "webhooks": "/webhooks/subscriptions",
        "schema_validation": "/schemas",
        "multi_tenancy": "/admin/tenants",
        "fair_scheduling": "/admin/pools",
        "agents": "/agents/x/fork",
        "grpc": "/grpc",
        "websocket": "/ws",
    }
    for capability, path in missing.items():
        assert manifest["capabilities"][capability] is False, capability
        assert js.refused("GET", path).code == "not_found"
    assert "grpc" not in manifest["protocols"]


def test_09_a_job_through_its_whole_life_fits_go(url: str) -> None:
    go, queue = Go(url), new()
    options = {
        "queue": queue,
        "priority": 3,
        "timeout_ms": 30_000,
        "tags": ["a"],
        "delay_until": "2020-01-01T00:00:00.123456789+01:00",
        "expires_at": "2099-01-01T00:00:00.5+01:00",
        "visibility_timeout_ms": 60_000,
        "retry": {"max_attempts": 2, "initial_interval_ms": 10, "jitter": False},
    }
    body = {"type": "email.send", "args": [{"to": "a"}], "meta": {"k": "v"}, "options": options}
    job_id = go.decode({"job": sdk.JOB}, "POST", "/jobs", body)["job"]["id"]
    claim = {"queues": [queue], "count": 5, "worker_id": "go-1"}

    def next_job() -> Any:
        return go.decode({"jobs": [sdk.JOB]}, "POST", "/workers/fetch", claim)["jobs"]

    for attempt in (1, 2):
        (job,) = wait_for(next_job, "the job can be fetched")
        assert job["attempt"] == attempt
        go.decode({"job": sdk.JOB}, "GET", f"/jobs/{job_id}")
        error = {"code": "handler_error", "message": "no", "retryable": True}
        told = go.ask("POST", "/workers/nack", {"job_id": job_id, "error": error})
        go.decode({"job": sdk.JOB}, "GET", f"/jobs/{job_id}")
    assert told["state"] == "discarded"
    batch = {"jobs": [body, {**body, "args": []}]}
    made = go.decode({"jobs": [sdk.JOB], "count": int}, "POST", "/jobs/batch", batch)
    assert made["count"] == 2
    ended = go.decode({"job": sdk.JOB}, "DELETE", f"/jobs/{made['jobs'][0]['id']}")["job"]
    assert (ended["state"], ended["previous_state"]) == ("cancelled", "available")
    assert go.refused("DELETE", f"/jobs/{ended['id']}").status == 409


# -- 10, 11 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.0", "1.0.0-rc.1", "1.3"])
def test_10_every_version_1_is_spoken(url: str, version: str) -> None:
    class Old(Go):
        def headers(self, data: bytes | None) -> dict[str, str]:
            return {**super().headers(data), "OJS-Version": version}

    got = Old(url).send("GET", "/queues")
    assert (got.status, got.headers["ojs-version"]) == (200, "1.0")


# -- 12, 13: checkpoints and progress -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Python, JavaScript])
def test_12_durable_jobs_go_on_where_they_were(url: str, kind: type[Sdk]) -> None:
    client = kind(url)
    retry = {"max_attempts": 3, "initial_interval": "PT0.01S", "jitter": False}
    queue, job_id = running(client, retry=retry)
    twice = f"{API}{API}/checkpoints/{job_id}"
    assert client.ask("GET", f"{twice}/resume", root=True)["has_checkpoint"] is False
    log = json.dumps([{"seq": 0, "type": "time", "key": "now", "result": "2026-01-01T00:00:00Z"}])
    body = {"state": {"row": 7}, "step_index": 1, "metadata": {"_replay_log": log, "attempt": "1"}}
    client.ask("POST", twice, body, root=True)
    resumed = client.ask("GET", f"{twice}/resume", root=True)
    assert resumed["has_checkpoint"] is True
    assert resumed["checkpoint"]["metadata"]["_replay_log"] == log
    assert (resumed["checkpoint"]["state"], resumed["checkpoint"]["step_index"]) == ({"row": 7}, 1)
    error = {"code": "handler_error", "message": "crash", "retryable": True, "details": {"traceback": "..."}}
    client.ask("POST", "/workers/nack", {"job_id": job_id, "error": error})
    (job,) = wait_for(lambda: fetch(client, queue), "the next attempt")
    assert (job["attempt"], job["checkpoint"]["state"]) == (2, {"row": 7})
    client.ask("DELETE", twice, root=True)
    assert client.ask("GET", f"{twice}/resume", root=True)["has_checkpoint"] is False


def test_12_checkpoints_of_the_suite(url: str) -> None:
    cli = Cli(url)
    job_id = enqueue(cli, new())
    path = f"/jobs/{job_id}/checkpoint"
    assert cli.ask("PUT", path, {"state": {"processed": 500}})["sequence"] == 1
    assert cli.ask("PUT", path, b'{"state":[18446744073709551616]}')["checkpoint"]["sequence"] == 2
    got = cli.send("GET", path)
    assert b"[18446744073709551616]" in got.body
    assert cli.ask("DELETE", path) == cli.ask("DELETE", path) == {"deleted": True, "job_id": job_id}
    assert cli.refused("GET", path).code == "not_found"
    unknown = "/jobs/01965000-0000-7000-8000-000000000000/checkpoint"
    assert cli.refused("PUT", unknown, {"state": 1}).status == cli.refused("GET", unknown).status == 404
    cli.ask("DELETE", f"/jobs/{job_id}")
    assert cli.refused("PUT", path, {"state": 1}).status == 409
    huge = {"state": "x" * (1024 * 1024)}
    assert (cli.refused("PUT", path, huge).status, cli.refused("PUT", path, {}).status) == (413, 400)


@pytest.mark.parametrize("kind", [Python, JavaScript])
def test_13_progress_of_sdks_and_of_the_suite_is_one(url: str, kind: type[Sdk]) -> None:
    client = kind(url)
    _, job_id = running(client)
    body = {"job_id": job_id, "percentage": 42, "message": "rows", "data": {"rows": 7}}
    client.ask("POST", "/workers/progress", body)
    told = client.ask("GET", f"/jobs/{job_id}/progress")
    assert (told["progress"], told["message"], told["data"], told["state"]) == (
        0.42,
        "rows",
        {"rows": 7},
        "active",
    )
    put = client.ask("PUT", f"/jobs/{job_id}/progress", {"progress": 1.5})
    assert (put["progress"], put["percentage"]) == (1.0, 100)
    assert client.ask("PUT", f"/jobs/{job_id}/progress", {"progress": 0.1})["progress"] == 1.0
    client.ask("POST", "/workers/ack", {"job_id": job_id})
    late = client.ask("POST", "/workers/progress", {"job_id": job_id, "percentage": 5})
    assert late["accepted"] is False
    assert client.refused("POST", "/workers/progress", {"job_id": job_id}).status == 400


# -- 14 to 18 -------------------------------------------------------------------------------------------------


def test_14_an_ack_without_a_worker_and_the_nack_that_follows_a_lost_one(url: str) -> None:
    for kind in SDKS:
        client = kind(url)
        _, job_id = running(client)
        assert client.ask("POST", "/workers/ack", {"job_id": job_id, "result": {"a": 1}})["acknowledged"] is True
        error = {"code": "ack_failed", "message": "no", "retryable": True}
        again = client.refused("POST", "/workers/nack", {"job_id": job_id, "error": error})
        assert (again.status, again.code) == (409, "conflict")


def test_14_javascript_in_functions_acks_and_nacks_by_path(url: str) -> None:
    js = JavaScript(url)
    _, one = running(js)
    assert js.ask("POST", f"/jobs/{one}/ack")["state"] == "completed"
    _, other = running(js)
    assert js.ask("POST", f"/jobs/{other}/nack", {"error": "it broke"})["state"] == "retryable"


@pytest.mark.parametrize("kind", ALL)
def test_15_every_refusal_has_an_envelope(url: str, kind: type[Sdk]) -> None:
    client = kind(url)
    for method, path, status in (
        ("GET", "/nothing/here", 404),
        ("PUT", "/workers/fetch", 405),
        ("GET", "/jobs/nonexistent", 404),
        ("POST", "/jobs", 400),
    ):
        assert client.refused(method, path).status == status
    assert client.send("POST", f"/queues/{new()}/pause").body


def test_16_a_timeout_is_in_milliseconds_and_has_no_twin_in_seconds(url: str) -> None:
    js = JavaScript(url)
    job_id = enqueue(js, new(), timeout_ms=30_000)
    job = js.ask("GET", f"/jobs/{job_id}")["job"]
    assert job["timeout_ms"] == 30_000
    assert "timeout" not in job


@pytest.mark.parametrize("kind", ALL)
def test_17_posts_without_a_body(url: str, kind: type[Sdk]) -> None:
    client, queue = kind(url), new()
    for action in ("pause", "resume"):
        assert client.send("POST", f"/queues/{queue}/{action}").status == 200
    assert client.send("POST", f"/queues/{queue}/pause", b"").status == 200


def test_18_dead_letters_are_reached_by_a_policy_of_javascript(url: str) -> None:
    js = JavaScript(url)
    queue, job_id = running(js, retry={"max_attempts": 1, "on_exhaustion": "dead_letter"})
    error = {"code": "handler_error", "message": "no", "retryable": True, "details": {"stack": "at x"}}
    js.ask("POST", "/workers/nack", {"job_id": job_id, "error": error})
    (dead,) = [job for job in js.ask("GET", "/dead-letter")["jobs"] if job["id"] == job_id]
    assert (dead["total_attempts"], dead["error"]["code"], bool(dead["discarded_at"])) == (
        1,
        "handler_error",
        True,
    )
    for client in (Python(url), Go(url)):
        listed = client.ask("GET", f"/dead-letter?limit=50&offset=0&queue={queue}")
        sdk.check(listed, {"jobs": [sdk.JOB], "pagination": sdk.PAGINATION})
        assert [job["id"] for job in listed["jobs"]] == [job_id]
    listed = Cli(url).ask("GET", "/dead-letter?limit=25")
    assert listed["total"] >= 1
    assert Cli(url).ask("GET", "/dead-letter/stats")["by_queue"][queue] == 1
    back = Go(url).decode({"job": sdk.JOB}, "POST", f"/dead-letter/{job_id}/retry")["job"]
    assert (back["state"], back["attempt"]) == ("available", 0)
    assert Go(url).refused("DELETE", f"/dead-letter/{job_id}").code == "not_found"


@pytest.mark.parametrize("kind", [Python, Go])
def test_18_a_queue_may_keep_dead_letters_for_those_who_cannot_ask(url: str, kind: type[Sdk]) -> None:
    client, queue = kind(url), new()
    Cli(url).ask("PUT", f"/queues/{queue}/config", {"default_retry": {"on_exhaustion": "dead_letter"}})
    interval = {"initial_interval_ms": 10} if kind is Go else {"initial_interval": "PT0.01S"}
    job_id = enqueue(
        client, queue, retry={"max_attempts": 1, "backoff_coefficient": 2.0, "jitter": True, **interval}
    )
    fetch(client, queue)
    error = {"code": "handler_error", "message": "no", "retryable": True}
    client.ask("POST", "/workers/nack", {"job_id": job_id, "error": error})
    listed = client.ask("GET", f"/dead-letter?queue={queue}")["jobs"]
    assert [job["id"] for job in listed] == [job_id]


# -- the CLI's commands ---------------------------------------------------------------------------------------


def test_cli_batch_and_import(url: str) -> None:
    cli, queue = Cli(url), new()
    made = cli.ask("POST", "/jobs/batch", {"jobs": [{"type": "a.b", "args": [], "options": {"queue": queue}}] * 2})
    assert (made["enqueued"], made["failed"]) == (2, 0)
    job = {"type": "a.b", "queue": queue, "args": [1], "priority": 9, "scheduled_at": "2099-01-01T00:00:00Z"}
    (imported,) = cli.ask("POST", "/jobs/batch", {"jobs": [job]})["jobs"]
    assert (imported["state"], imported["priority"], imported["queue"]) == ("scheduled", 9, queue)
    exported = cli.ask("GET", "/admin/jobs?limit=10000&exclude_terminal=true")["jobs"]
    assert sum(one["queue"] == queue for one in exported) == 3
    assert all(one["state"] not in ("completed", "cancelled", "discarded") for one in exported)


def test_cli_jobs_status_cancel_priority_retry(url: str) -> None:
    cli, queue = Cli(url), new()
    made = cli.ask("POST", "/jobs", {"type": "a.b", "args": [], "options": {"queue": queue}})
    path = f"/jobs/{made['id']}"
    listed = cli.ask("GET", f"/jobs?limit=25&queue={queue}&state=available&type=a.b")
    assert ([job["id"] for job in listed["jobs"]], listed["total"]) == ([made["id"]], 1)
    assert cli.ask("PATCH", path, {"priority": 8})["priority"] == 8
    assert cli.ask("GET", path)["state"] == "available"
    detail = cli.ask("GET", f"/admin/jobs/{made['id']}")
    assert (detail["id"], detail["errors"], detail["meta"]) == (made["id"], [], {})
    cli.ask("DELETE", path)
    assert cli.ask("POST", f"/admin/jobs/{made['id']}/retry")["state"] == "available"
    filtered = {"filter": {"state": "available", "queue": queue}}
    done = cli.ask("POST", "/jobs/bulk/cancel", filtered)
    assert (done["cancelled"], done["failed"]) == (1, 0)
    assert cli.ask("POST", "/jobs/bulk/retry", {"job_ids": [made["id"]]})["retried"] == 1
    cli.ask("DELETE", path)
    gone = cli.ask("POST", "/jobs/bulk/delete", {"filter": {"state": "cancelled", "queue": queue}})
    assert gone["deleted"] == 1
    # A bug of the CLI: `debug replay` posts a base64 string.
    assert cli.refused("POST", "/jobs", base64.b64encode(b"{}")).status == 400


def test_cli_result_retries_history_and_trace(url: str) -> None:
    cli = Cli(url)
    retry = {"max_attempts": 3, "initial_interval": "PT60S", "jitter": False}
    queue, job_id = running(cli, retry=retry)
    path = f"/jobs/{job_id}"
    assert cli.ask("GET", f"{path}/result")["state"] == "active"
    assert cli.refused("GET", f"{path}/result?wait=true&timeout=0").status == 408
    cli.ask("POST", "/workers/nack", {"job_id": job_id, "error": {"code": "boom", "message": "it broke"}})
    told = cli.ask("GET", f"{path}/retries")
    (failed,) = told["retries"]
    assert (failed["attempt"], failed["error"]) == (1, "boom: it broke")
    assert all(failed[name] for name in ("started_at", "failed_at", "next_retry_at"))
    assert told["policy"]["max_attempts"] == 3
    cli.ask("POST", f"/admin/jobs/{job_id}/retry")
    assert fetch(cli, queue)
    cli.ask("POST", "/workers/ack", {"job_id": job_id, "result": 42})
    result = cli.ask("GET", f"{path}/result?wait=true&timeout=30")
    assert (result["state"], result["result"], bool(result["completed_at"])) == ("completed", 42, True)
    events = cli.ask("GET", f"/events/{job_id}/history")["events"]
    sdk.check(events, [{"type": str, "state": str, "timestamp": "time"}])
    assert [one["state"] for one in events][:3] == ["available", "active", "active"]
    assert events[-1]["type"] == "job.completed"
    assert cli.ask("GET", f"{path}/history")["events"] == events
    snapshots = cli.ask("GET", f"/admin/jobs/{job_id}/trace")["snapshots"]
    sdk.check(snapshots, [{"phase": str, "duration": str, "state": str, "error": str}])
    assert [one["error"] for one in snapshots if one["phase"] == "job.failed"] == ["boom: it broke"]
    unknown = "01965000-0000-7000-8000-000000000000"
    for missing in (f"/jobs/{unknown}/result", f"/events/{unknown}/history", f"/admin/jobs/{unknown}/trace"):
        assert cli.refused("GET", missing).code == "not_found"


def test_cli_queues(url: str) -> None:
    cli, queue = Cli(url), new()
    cli.ask("POST", "/queues", {"name": queue, "concurrency": 3, "max_size": 100})
    shown = cli.ask("PUT", f"/admin/queues/{queue}/config", {"concurrency": 5, "retention": "7d"})
    assert (shown["concurrency"], shown["max_size"]) == (5, 100)
    enqueue(cli, queue)
    live = cli.ask("GET", f"/queues/{queue}")
    assert (live["depth"], live["running"], live["paused"]) == (1, 0, False)
    assert cli.ask("POST", f"/queues/{queue}/purge", {"states": ["available"]})["deleted"] == 1
    cli.ask("DELETE", f"/queues/{queue}")
    assert cli.refused("GET", f"/queues/{queue}").code == "not_found"


def test_cli_dead_letters_are_purged_by_age(url: str) -> None:
    cli = Cli(url)
    _, job_id = running(cli, retry={"max_attempts": 1, "on_exhaustion": "dead_letter"})
    cli.ask("POST", "/workers/nack", {"job_id": job_id, "error": {"code": "x", "message": "y"}})
    assert cli.ask("POST", "/dead-letter/purge?older_than=1d")["deleted"] == 0
    assert cli.ask("POST", "/dead-letter/purge")["deleted"] >= 1
    assert cli.ask("GET", "/dead-letter?limit=25")["total"] == 0
    assert cli.refused("GET", f"/jobs/{job_id}").code == "not_found"
    assert cli.refused("POST", "/dead-letter/purge?older_than=soon").status == 400


def test_cli_workers(url: str) -> None:
    cli, worker = Cli(url), new("worker")
    beat = {"worker_id": worker, "state": "running", "active_jobs": 0, "active_job_ids": [], "queues": ["q"]}
    Go(url).ask("POST", "/workers/heartbeat", beat)
    listed = cli.ask("GET", "/admin/workers")
    row = {"id": str, "state": str, "directive": str, "active_jobs": int, "last_heartbeat": str}
    sdk.check(listed, {"items": [row], "summary": dict.fromkeys(("total", "running", "quiet", "stale"), int)})
    path = f"/admin/workers/{worker}"
    assert cli.ask("GET", path)["queues"] == ["q"]
    cli.ask("POST", f"{path}/quiet")
    assert Go(url).ask("POST", "/workers/heartbeat", beat)["state"] == "quiet"
    told = cli.ask("POST", "/admin/workers/directive", {"directive": "resume"})
    assert told["matched"] >= 1
    assert Go(url).ask("POST", "/workers/heartbeat", beat)["state"] == "running"
    assert cli.refused("POST", "/admin/workers/directive", {"directive": "dance"}).status == 400
    cli.ask("DELETE", path)
    assert cli.refused("GET", path).code == "not_found"


def test_cli_rate_limits(url: str) -> None:
    cli, key = Cli(url), new("limit")
    body = {"type": "a.b", "args": [], "queue": new(), "rate_limit": {"key": key, "concurrency": 2}}
    cli.ask("POST", "/jobs", body)
    one = cli.ask("GET", f"/rate-limits/{quote(key)}")
    assert (one["key"], one["active"], one["available"]) == (key, 0, 1)
    (row,) = [each for each in cli.ask("GET", "/rate-limits")["rate_limits"] if each["key"] == key]
    assert (row["concurrency"], row["active"]) == (2, 0)
    cli.ask("PUT", f"/rate-limits/{key}/override", {"concurrency": 9})
    assert cli.ask("GET", f"/rate-limits/{key}")["override"]["concurrency"] == 9
    cli.ask("DELETE", f"/rate-limits/{key}/override")
    assert cli.ask("GET", f"/rate-limits/{key}")["override"] is None


def test_cli_stats_and_their_history(url: str) -> None:
    cli = Cli(url)
    queue, job_id = running(cli)
    cli.ask("POST", "/workers/ack", {"job_id": job_id})
    told = cli.ask("GET", f"/admin/stats?queue={queue}")
    assert (told["jobs"]["completed"], told["queues"]) == (1, 1)
    sdk.check(told["throughput"], dict.fromkeys(("enqueued_per_min", "completed_per_min", "failed_per_min"), int))
    rows = cli.ask("GET", "/admin/stats?detail=true&limit=500")["queues"]
    (row,) = [one for one in rows if one["name"] == queue]
    assert (row["depth"], row["error_rate"]) == (0, 0.0)
    for period in ("1m", "5m", "1h", "1d"):
        history = cli.ask("GET", f"/admin/stats/history?period={period}&queue={queue}")
        points = history["data_points"]
        sdk.check(points, [{"timestamp": "time", "enqueued": int, "completed": int, "avg_latency_ms": float}])
        assert (sum(one["enqueued"] for one in points), sum(one["completed"] for one in points)) == (1, 1)
        assert sum(one["processed"] for one in history["data"]) == 1
    assert cli.refused("GET", "/admin/stats/history?period=7m").status == 400
    assert cli.ask("GET", "/admin/stats/history?period=1m&since=2h")["period"] == "1m"
    metrics = cli.ask("GET", "/metrics")
    assert metrics["jobs_completed_total"] >= 1
    assert metrics["jobs_enqueued_total"] >= metrics["jobs_completed_total"]


def test_cli_maintenance(url: str) -> None:
    cli, queue = Cli(url), new()
    assert cli.ask("GET", "/admin/maintenance")["enabled"] is False
    told = cli.ask("POST", "/admin/maintenance", {"enabled": True, "reason": "upgrade"})
    assert (told["maintenance"], told["reason"]) == (True, "upgrade")
    try:
        job_id = enqueue(Python(url), queue)
        assert fetch(Python(url), queue) == []
        shown = cli.ask("GET", "/admin/maintenance")
        assert (shown["enabled"], shown["reason"], bool(shown["started_at"])) == (True, "upgrade", True)
        assert cli.ask("GET", "/admin/system/maintenance") == shown
    finally:
        cli.ask("POST", "/admin/maintenance", {"enabled": False})
    assert [job["id"] for job in fetch(Python(url), queue)] == [job_id]
    ui = cli.ask("POST", "/admin/system/maintenance", {"enabled": True, "reason": "x", "duration": "15m"})
    assert ui["ends_at"] == ui["estimated_end"]
    cli.ask("POST", "/admin/system/maintenance", {"enabled": False})


def test_cli_system_config_says_no_secrets(url: str) -> None:
    cli = Cli(url)
    shown = cli.ask("GET", "/admin/config")
    assert shown["partitions"] == 4
    assert shown == cli.ask("GET", "/admin/system/config")
    text = json.dumps(shown).lower()
    assert not [word for word in ("password", "secret", "api_key", "redis://", "token") if word in text]


def test_cli_doctor_looks_at_the_root(url: str) -> None:
    cli = Cli(url)
    health = cli.ask("GET", "/v1/health", root=True)
    assert (health["status"], bool(health["version"])) == ("ok", True)
    for path, name in (("/v1/queues", "queues"), ("/v1/dead-letter", "jobs"), ("/v1/workers", "workers")):
        assert isinstance(cli.ask("GET", path, root=True)[name], list)


def test_ui_retries_dead_letters_by_filter(url: str) -> None:
    cli = Cli(url)
    queue, job_id = running(cli, retry={"max_attempts": 1, "on_exhaustion": "dead_letter"})
    cli.ask("POST", "/workers/nack", {"job_id": job_id, "error": {"code": "x", "message": "y"}})
    path = "/admin/dead-letter/retry"
    assert cli.refused("POST", path, {"filter": {"queue": queue}}).status == 400
    told = cli.ask("POST", path, {"filter": {"queue": queue}, "confirm": True})
    assert (told["action"], told["matched"], told["succeeded"], told["failed"]) == ("retry", 1, 1, 0)
    assert cli.ask("GET", f"/jobs/{job_id}")["state"] == "available"
