"""Hot reload: a changed file restarts the worker, a mistake waits for its correction, the servers stay."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from rich.console import Console

from ojs_stream.dev.process import ChildProcess, ServerError, free_port
from ojs_stream.dev.reload import reload_on_change
from ojs_stream.dev.worker import WorkerProcess

DEADLINE_S = 30.0
#: A stand-in for a worker: it is ready at once and says what the code beside it says.
STAND_IN = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
sys.path.insert(0, sys.argv[2])
import code_of_it

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(code_of_it.WORD.encode())

HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Site:
    """A worker under reload, beside a server that only sleeps."""

    def __init__(self, folder: Path) -> None:
        self.code = folder / "code"
        self.code.mkdir()
        self.said = io.StringIO()
        port = free_port()
        argv = [sys.executable, "-B", "-c", STAND_IN, str(port), str(self.code)]
        self.worker = WorkerProcess(folder / "worker", port=port, env={}, argv=argv)
        self.server = ChildProcess("The server", ["sleep", "600"], log=folder / "server.log")

    def write(self, text: str) -> None:
        (self.code / "code_of_it.py").write_text(text)

    async def says(self) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"{self.worker.url}/word") as answer:
            return await answer.text()

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, self.said.getvalue()
            await asyncio.sleep(0.02)

    async def until_said(self, text: str) -> None:
        await self.until(lambda: text in self.said.getvalue())
        self.said.seek(0)
        self.said.truncate()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    made.write("WORD = 'one'")
    made.server.start()
    await made.worker.start()
    yield made
    await made.worker.stop()
    made.server.kill()


@contextlib.asynccontextmanager
async def _reloading(site: Site) -> AsyncIterator[asyncio.Task[None]]:
    console = Console(file=site.said, width=500)
    task = asyncio.create_task(reload_on_change([site.worker], [site.server], console, folder=site.code))
    try:
        await site.until_said("Watching")
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_change_restarts_the_worker_and_not_the_server(site: Site) -> None:
    server = site.server.pid
    async with _reloading(site):
        assert await site.says() == "one"
        site.write("WORD = 'two'")
        await site.until_said("is ready again")
        assert await site.says() == "two"
    assert site.server.pid == server


async def test_a_mistake_in_the_code_waits_for_the_next_change(site: Site) -> None:
    async with _reloading(site) as task:
        site.write("WORD = ")
        await site.until_said("Waiting for the next change")
        assert not task.done()
        site.write("WORD = 'mended'")
        await site.until_said("is ready again")
        assert await site.says() == "mended"


async def test_the_end_of_a_server_ends_it_all(site: Site) -> None:
    async with _reloading(site) as task:
        site.server.kill()
        with pytest.raises(ServerError, match="The server ended"):
            await asyncio.wait_for(task, DEADLINE_S)


async def test_a_worker_that_dies_by_itself_is_no_reload(site: Site) -> None:
    async with _reloading(site) as task:
        site.worker.process.kill()
        with pytest.raises(ServerError, match="The worker on port"):
            await asyncio.wait_for(task, DEADLINE_S)
