"""A child process that never outlives its parent, usable from any event loop.

The child lives in a session of its own, so that a Ctrl-C in the terminal reaches only the parent, which then
stops the children in the right order. On Linux the kernel kills it when the parent dies (exactly: when the
thread that started it ends, so start children from the main thread); elsewhere an exit hook does.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ojs_stream.errors import OjsError

POLL_S = 0.02
KILL_WAIT_S = 10.0
LOG_TAIL_LINES = 25
PR_SET_PDEATHSIG = 1


class ServerError(OjsError):
    """A child server did not start, or ended by itself; the message names it and shows the end of its log."""


def free_port() -> int:
    """Give a TCP port on the loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(host: str, port: int) -> bool:
    """Say whether a server could listen on ``host:port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _die_with_parent() -> Callable[[], None] | None:
    """Build the hook that ties the child's life to ours (SIGKILL: the log makes a hard stop safe)."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)

    def tie() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return tie


class ChildProcess:
    """One child process whose output goes to ``log``; ``name`` is what messages call it."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.argv = [str(word) for word in argv]
        self.log = log
        self._env = env
        self._cwd = cwd
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running child."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether the child has been started and has not ended."""
        return self._child is not None and self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code (negative: the signal that ended it); None before the start and while it runs."""
        return None if self._child is None else self._child.poll()

    def start(self) -> None:
        """Start the child; its output is appended to the log file."""
        if self.alive:
            raise ServerError(f"{self.name} is already running with pid {self.pid}.")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self._child = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=None if self._env is None else dict(self._env),
                cwd=self._cwd,
                start_new_session=True,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509 - one prctl call, nothing that could take a lock
            )
        atexit.register(self.kill)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child, by its pid."""
        self._running().send_signal(number)

    def kill(self) -> None:
        """SIGKILL the child, if it runs, and reap it."""
        atexit.unregister(self.kill)
        if self._child is not None and self.alive:
            self._child.kill()
            self._child.wait(KILL_WAIT_S)

    async def stop(self, grace_s: float) -> bool:
        """SIGTERM the child and wait; SIGKILL it after ``grace_s``. True when it ended by itself."""
        if self._child is None or not self.alive:
            atexit.unregister(self.kill)
            return True
        self._child.terminate()
        gentle = True
        try:
            gentle = await self.wait(grace_s)
        finally:
            self.kill()
        return gentle

    async def wait(self, timeout_s: float) -> bool:
        """Wait until the child has ended; False after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while self.alive:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def finish(self, timeout_s: float) -> int:
        """Wait for a child that ends by itself, kill it when it takes longer, and give its exit code."""
        try:
            await self.wait(timeout_s)
        finally:
            self.kill()
        return self.exit_code or 0

    def lines(self) -> list[str]:
        """Read the child's log; empty when it has none yet."""
        with contextlib.suppress(FileNotFoundError):
            return self.log.read_text(errors="replace").splitlines()
        return []

    def tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """Give the last lines of the child's log, for messages."""
        return "\n".join(self.lines()[-lines:])

    def ended(self) -> ServerError:
        """Describe the unexpected end of the child."""
        return ServerError(f"{self.name} ended with exit code {self.exit_code}. {self._log_end()}")

    def silent(self, timeout_s: float) -> ServerError:
        """Describe a child that runs but did not answer in time."""
        return ServerError(f"{self.name} did not answer within {timeout_s:.0f} s. {self._log_end()}")

    def _log_end(self) -> str:
        return f"{self.log} ends:\n{self.tail()}"

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            raise ServerError(f"{self.name} is not running.")
        return self._child


def check_alive(processes: Iterable[ChildProcess]) -> None:
    """Raise for the first child that has ended by itself."""
    for process in processes:
        if not process.alive:
            raise process.ended()


def user_cache() -> Path:
    """Name the folder for downloads of this user (``XDG_CACHE_HOME`` is respected)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ojs-stream"
