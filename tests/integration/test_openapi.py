"""A real server does what openapi.yaml says, whatever schemathesis sends: no 5xx, no answer of another shape."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ojs_stream.web.document import OPENAPI
from tests.conftest import WorkerFactory

CHECKS = "not_a_server_error,response_schema_conformance,content_type_conformance"
EXAMPLES = 2
SEED = 7
HANGS_S = 100


async def test_every_route_answers_as_the_document_says(worker_factory: WorkerFactory, tmp_path: Path) -> None:
    worker = await worker_factory(partitions=2)
    document = tmp_path / "openapi.yaml"
    document.write_bytes(OPENAPI)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", worker.url),
            *("--seed", str(SEED), "--generation-deterministic", "--generation-database", "none"),
            *("--phases", "examples,fuzzing", "--max-examples", str(EXAMPLES), "--no-shrink", "--no-color"),
            *("--continue-on-failure", "--warnings", "off", "--checks", CHECKS),
        ],
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
