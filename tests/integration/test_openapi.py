"""A real server does what openapi.yaml says, whatever schemathesis sends: no 5xx, no answer of another shape."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ojs_stream.web.document import OPENAPI
from tests.conftest import WorkerFactory
from tests.support.client import Client

CHECKS = "not_a_server_error,response_schema_conformance,content_type_conformance"
EXAMPLES = 2
HANGS_S = 100
STREAMS = r"(/stream|/jobs/\{id\}/events|/queues/\{name\}/events)$"
"""They do not end: tests/integration/test_streams.py has them."""
ID = "019461a8-1a2b-7c3d-8e4f-5a6b7c8d9e0f"
CRON = {"name": "mail", "expression": "0 3 * * *", "job_template": {"type": "report.make", "args": []}}
THERE = (
    ("PUT", "/queues/mail", {"config": {}}),
    ("POST", "/jobs", {"type": "email.send", "queue": "mail", "args": [], "id": ID}),
    ("POST", "/cron", CRON),
    ("POST", "/workers/register", {"worker_id": ID, "queues": ["mail"]}),
)
"""What the examples of the document name: without it most of their answers would be 404."""


async def test_every_route_answers_as_the_document_says(worker_factory: WorkerFactory, tmp_path: Path) -> None:
    worker = await worker_factory(partitions=2)
    async with Client() as client:
        for method, path, body in THERE:
            answer = await client.ask(worker.url, method, path, body)
            assert answer.accepted, (path, answer)
    document = tmp_path / "openapi.yaml"
    document.write_bytes(OPENAPI)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", worker.url),
            "--generation-deterministic",
            *("--phases", "examples,fuzzing", "--max-examples", str(EXAMPLES), "--no-shrink", "--no-color"),
            *("--exclude-path-regex", STREAMS),
            *("--continue-on-failure", "--warnings", "off", "--checks", CHECKS),
        ],
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
