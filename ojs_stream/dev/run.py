"""``ojs-stream dev``: the stack, the workers in front of it, one panel with the addresses, a clean end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.panel import Panel

from ojs_stream.dev.process import ChildProcess, ServerError, check_alive, is_free
from ojs_stream.dev.reload import check_reload, reload_on_change
from ojs_stream.dev.stack import DevStack
from ojs_stream.dev.worker import WorkerProcess, worker_argv

WATCH_S = 0.2
FIRST_READY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DevOptions:
    """What ``ojs-stream dev`` was asked for."""

    host: str = "127.0.0.1"
    port: int = 8080
    data: Path = Path(".ojs")
    workers: int = 1
    reload: bool = False
    """Start the workers again when the code changes."""

    @property
    def ports(self) -> range:
        """One port a worker, counted up from the first."""
        return range(self.port, self.port + self.workers)


Command = Callable[[DevOptions, int], list[str]]


def _command(options: DevOptions, port: int) -> list[str]:
    return worker_argv(host=options.host, port=port)


def run_dev(options: DevOptions, *, command: Command = _command) -> int:
    """Run everything until Ctrl-C or SIGTERM and give the exit code of the program."""
    console = Console(stderr=True)
    try:
        asyncio.run(_until_signalled(options, console, command))
    except asyncio.CancelledError:
        console.print("Stopped.")
        return 0
    except ServerError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
    return 1


async def _until_signalled(options: DevOptions, console: Console, command: Command) -> None:
    """Serve; the first signal cancels us, a second one during the clean-up ends it at once."""
    us = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, us.cancel)  # type: ignore[union-attr]
    _check_ports(options)
    if options.reload:
        check_reload()
    async with DevStack(options.data, env=os.environ, console=console) as stack:
        workers = [_worker(options, port, stack, command) for port in options.ports]
        try:
            for worker in workers:
                await worker.start(FIRST_READY_TIMEOUT_S)
            console.print(_panel(workers, stack))
            if options.reload:
                await reload_on_change(workers, stack.processes, console)
            else:
                await _watch([*(worker.process for worker in workers), *stack.processes])
        finally:
            await asyncio.gather(*(worker.stop() for worker in workers))


def _check_ports(options: DevOptions) -> None:
    for port in options.ports:
        if not is_free(options.host, port):
            raise ServerError(
                f"Port {port} is in use. Stop what listens there, or choose another with --port or OJS_PORT."
            )


def _worker(options: DevOptions, port: int, stack: DevStack, command: Command) -> WorkerProcess:
    folder = stack.data / f"worker-{port - options.port + 1}"
    env = {
        "OJS_KAFKA_QUEUE_TOPICS": "1",
        **os.environ,
        "KAFKA_BROKERS": stack.kafka_brokers,
        "REDIS_URL": stack.redis_url,
    }
    (folder / "worker.log").unlink(missing_ok=True)
    argv = command(options, port)
    return WorkerProcess(folder, host=options.host, port=port, env=env, argv=argv)


async def _watch(processes: Sequence[ChildProcess]) -> None:
    """Look after the children; raise when one of them ends by itself."""
    while True:
        check_alive(processes)
        await asyncio.sleep(WATCH_S)


def _panel(workers: Sequence[WorkerProcess], stack: DevStack) -> Panel:
    lines = [f"[bold]{worker.url}[/]  (log: {worker.process.log})" for worker in workers]
    lines += [f"Kafka  {stack.kafka_brokers}", f"Redis  {stack.redis_url}", f"Data   {stack.data}"]
    return Panel("\n".join([*lines, "Ctrl-C stops everything."]), title="ojs-stream is ready", expand=False)
