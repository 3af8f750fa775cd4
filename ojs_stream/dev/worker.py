"""One worker of the server as a child process: its command line, its environment, its readiness."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import aiohttp

from ojs_stream.dev.process import ChildProcess

READY_TIMEOUT_S = 30.0
READY_POLL_S = 0.05
PROBE_TIMEOUT_S = 2.0
STOP_GRACE_S = 20.0


def worker_argv(*, host: str, port: int, loglevel: str = "warn", app: str = "ojs_stream") -> list[str]:
    """Give the command line of one worker; Faust wants ``-A`` before the subcommand."""
    faust = [sys.executable, "-m", "faust", "-A", app, "-L", "uvloop"]
    return [*faust, "worker", "-l", loglevel, "--web-host", host, "--web-port", str(port)]


def worker_env(*, host: str, port: int, datadir: Path) -> dict[str, str]:
    """Give what the settings of a worker must know besides its command line."""
    return {"OJS_HOST": host, "OJS_PORT": str(port), "OJS_DATADIR": str(datadir)}


class WorkerProcess:
    """A worker that listens on ``host:port``; ``argv`` replaces the command line in tests."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        env: Mapping[str, str],
        host: str = "127.0.0.1",
        argv: list[str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.port = port
        self.url = f"http://{_reachable(host)}:{port}"
        self.process = ChildProcess(
            f"The worker on port {port}",
            argv or worker_argv(host=host, port=port),
            log=folder / "worker.log",
            env={**env, **worker_env(host=host, port=port, datadir=folder / "faust"), "PYTHONUNBUFFERED": "1"},
            cwd=cwd,
        )

    async def start(self, timeout_s: float = READY_TIMEOUT_S) -> Self:
        """Start the worker and wait until ``GET /ready`` answers 200."""
        self.process.log.parent.mkdir(parents=True, exist_ok=True)
        self.process.start()
        await self.wait_ready(timeout_s)
        return self

    async def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until ``GET /ready`` answers 200; raise when the worker ends or the time is over."""
        deadline = time.monotonic() + timeout_s
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)) as session:
            while not await _is_ready(session, self.url):
                if not self.process.alive:
                    raise self.process.ended()
                if time.monotonic() > deadline:
                    raise self.process.silent(timeout_s)
                await asyncio.sleep(READY_POLL_S)

    async def stop(self, grace_s: float = STOP_GRACE_S) -> bool:
        """Stop the worker: SIGTERM, and SIGKILL after ``grace_s``. True when it ended by itself."""
        return await self.process.stop(grace_s)


def _reachable(host: str) -> str:
    """Give the address under which a server bound to ``host`` is reached from this machine."""
    return "127.0.0.1" if host in {"", "0.0.0.0", "::"} else host  # noqa: S104 - a comparison, nothing is bound


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/ready") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
