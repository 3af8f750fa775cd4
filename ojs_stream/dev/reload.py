"""``ojs-stream dev --reload``: a worker starts again when the code has changed; Kafka and Redis stay up."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import ojs_stream
from ojs_stream.dev.process import ChildProcess, ServerError, check_alive
from ojs_stream.dev.worker import WorkerProcess

CODE = Path(ojs_stream.__file__).parent
LOOK_MS = 200
"""So often the servers are looked after while no file changes."""
READY_TIMEOUT_S = 60.0


def check_reload() -> None:
    """Refuse early, before any server is started, when the library that watches files is missing."""
    if importlib.util.find_spec("watchfiles") is None:
        raise ServerError(
            "--reload needs the package watchfiles. Install it with: pip install 'ojs-stream[dev]', "
            "or leave --reload away."
        )


async def reload_on_change(
    workers: Sequence[WorkerProcess],
    servers: Sequence[ChildProcess],
    console: Console,
    *,
    folder: Path = CODE,
) -> None:
    """Start the workers again whenever a Python file below ``folder`` changes; raise when a server ends."""
    from watchfiles import PythonFilter, awatch  # noqa: PLC0415 - optional extra

    changed = awatch(folder, watch_filter=PythonFilter(), rust_timeout=LOOK_MS, yield_on_timeout=True)
    console.print(f"Watching {folder} for changes.", markup=False, highlight=False)
    broken: set[WorkerProcess] = set()
    async for changes in changed:
        check_alive([*servers, *(worker.process for worker in workers if worker not in broken)])
        if changes:
            names = sorted({Path(path).relative_to(folder).as_posix() for _, path in changes})
            console.print(f"Changed: {', '.join(names)}", markup=False, highlight=False)
            # One after the other, so that the others serve meanwhile.
            broken = {worker for worker in workers if not await _restarted(worker, console)}


async def _restarted(worker: WorkerProcess, console: Console) -> bool:
    """Say whether the worker is ready again; a mistake in the code is shown and waits for the next change."""
    await worker.stop()
    try:
        await worker.start(READY_TIMEOUT_S)
    except ServerError as error:
        await worker.stop()
        console.print(f"{error}\nWaiting for the next change.", style="red", markup=False, highlight=False)
        return False
    console.print(f"{worker.url} is ready again.", highlight=False)
    return True
