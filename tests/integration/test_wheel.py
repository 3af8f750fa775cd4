"""What is published: the wheel in a fresh environment, with nothing of this folder in reach, serves a job."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from ojs_stream.dev.process import ChildProcess, free_port
from tests.support.client import Client, until
from tests.support.servers import clean_env
from tests.support.shipping import ROOT

#: A download of all wheels over a slow line, on a slow machine.
INSTALL_TIMEOUT_S = 540
READY_TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, as `make dist` builds them."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True, timeout=100)
    return folder


def _wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


def test_the_wheel_has_the_server_and_nothing_else(built: Path) -> None:
    names = zipfile.ZipFile(_wheel(built)).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"ojs_stream"}
    assert "ojs_stream/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ojs_stream").rglob("*.py")}
    assert modules <= set(names)


def test_the_sdist_has_what_builds_tests_and_deploys_it(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "Makefile",
        "Procfile",
        "docker-compose.yml",
        "deploy/Dockerfile",
        "deploy/helm/ojs-stream/Chart.yaml",
        "docs/ARCHITECTURE.md",
        "tests/conftest.py",
        "tools/chart.py",
    } <= names


@pytest.mark.timeout(INSTALL_TIMEOUT_S + 240)
async def test_the_installed_wheel_serves_a_job(built: Path, tmp_path: Path) -> None:
    program = _installed(_wheel(built), tmp_path / "venv")
    port = free_port()
    words = [program, "dev", "--port", str(port), "--data", tmp_path / "data"]
    server = ChildProcess("ojs-stream dev", words, log=tmp_path / "dev.log", env=_outside(), cwd=tmp_path)
    server.start()
    try:
        await _until_ready(server)
        await _one_job(f"http://127.0.0.1:{port}")
        assert await server.stop(60), server.tail()
        assert server.exit_code == 0, server.tail()
    finally:
        server.kill()


def _outside() -> dict[str, str]:
    """An environment in which the code of this folder cannot be imported."""
    return {name: value for name, value in clean_env().items() if name != "PYTHONPATH"}


def _installed(wheel: Path, venv: Path) -> Path:
    """Make the environment and give its ``ojs-stream``."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=100)
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--no-compile", f"{wheel}[dev]"]
    subprocess.run(install, check=True, timeout=INSTALL_TIMEOUT_S, env=_outside(), cwd=venv)
    return venv / "bin" / "ojs-stream"


async def _until_ready(server: ChildProcess) -> None:
    async def ready() -> bool:
        assert server.alive, server.tail()
        return any("ojs-stream is ready" in line for line in server.lines())

    await until(ready, "the installed server is ready", READY_TIMEOUT_S)


async def _one_job(url: str) -> None:
    async with Client() as client:
        made = await client.enqueue(url, "ship", type="ship.it", args=[1])
        got = await client.must(url, "POST", "/workers/fetch", {"queues": ["ship"], "worker_id": "w"})
        assert [job["id"] for job in got["jobs"]] == [made["id"]]
        done = {"job_id": made["id"], "worker_id": "w", "result": {"ok": True}}
        await client.must(url, "POST", "/workers/ack", done)
        job = await client.job(url, made["id"])
        assert job
        assert job["state"] == "completed"
