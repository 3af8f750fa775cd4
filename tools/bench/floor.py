"""The floor: a bare aiohttp + uvloop server that reads a JSON body and answers 201 with it, storing nothing.

It is what HTTP alone costs in Python on this machine; `python -m tools.bench.floor PORT` runs it.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import orjson
import uvloop
from aiohttp import web

HOST = "127.0.0.1"
PATH = "/echo"
START_S = 10.0
STOP_S = 5.0


async def echo(request: web.Request) -> web.Response:
    """Answer 201 with the JSON that came in."""
    body = orjson.loads(await request.read())
    return web.Response(status=201, body=orjson.dumps(body), content_type="application/json")


def serve(port: int) -> None:
    """Serve the echo on a port until the process is stopped."""
    app = web.Application()
    app.router.add_post(PATH, echo)
    web.run_app(app, host=HOST, port=port, access_log=None, print=None, loop=uvloop.new_event_loop())


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def floor_server() -> Iterator[int]:
    """Run the floor in a process of its own and yield its port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "tools.bench.floor", str(port)])
    try:
        _await_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(STOP_S)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the floor server did not listen on port {port} within {START_S:g} s")


if __name__ == "__main__":
    serve(int(sys.argv[1]))
