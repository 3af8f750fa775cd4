"""`python -m tools.demo`: thousands of real jobs and a workflow through a real server, everything checked."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tools.demo.api import Api, ApiError
from tools.demo.checks import Checks
from tools.demo.library import broken_sample, library_files, library_root
from tools.demo.run import Run
from tools.demo.target import Target, TargetError, Wish, open_target
from tools.demo.verify import Direct, check_events, check_records, check_workflow, compute_directly
from tools.demo.workflow import FILES_MAX, WorkflowRun

WORKERS = 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description=__doc__)
    url_help = "server to use (default: OJS_URL, then a server on port 8080, then an embedded one)"
    parser.add_argument("--url", default=os.environ.get("OJS_URL", ""), help=url_help)
    parser.add_argument("--brokers", default="", help="Kafka of that server (default: KAFKA_BROKERS)")
    parser.add_argument("--namespace", default="", help="its OJS_NAMESPACE (default: OJS_NAMESPACE, then ojs)")
    parser.add_argument("--embedded", action="store_true", help="start an embedded server even if one is running")
    parser.add_argument("--workers", type=int, default=WORKERS, help="worker processes (default: %(default)s)")
    parser.add_argument("--files", type=int, default=0, help="take only this many files (default: all)")
    return parser.parse_args()


async def _demo(arguments: argparse.Namespace, console: Console) -> Checks:
    wish = Wish(
        url="" if arguments.embedded else arguments.url,
        brokers=arguments.brokers,
        namespace=arguments.namespace,
        look_around=not arguments.embedded,
    )
    checks = Checks()
    console.print("looking for a server, or starting one ...", highlight=False)
    async with open_target(wish) as target:
        with tempfile.TemporaryDirectory(prefix="ojs-demo-") as folder:
            await _run_and_check(arguments, target, Path(folder), console, checks)
    return checks


async def _run_and_check(
    arguments: argparse.Namespace, target: Target, folder: Path, console: Console, checks: Checks
) -> None:
    root = library_root()
    console.print(f"server: {target.description}; files: {root}", highlight=False, soft_wrap=True)
    direct = _direct(root, arguments.files, arguments.workers, folder)
    stage = Stage(target, str(root), arguments.workers, console)
    await _first_act(stage, direct, checks)
    await _second_act(stage, list(direct)[:FILES_MAX], checks)


async def _first_act(stage: Stage, direct: Direct, checks: Checks) -> None:
    """One job a file."""
    async with stage.open() as (api, bars):
        run = Run(api, queue=_new_queue(), files=list(direct), bars=bars)
        outcome = await run.execute(url=stage.target.url, root=stage.root, workers=stage.workers)
    check_records(checks, outcome, direct)
    await check_events(checks, outcome, brokers=stage.target.brokers, topic=f"{stage.target.namespace}.events")
    took = f"{len(outcome.names)} jobs in {outcome.seconds:.1f} s, tokenizing included"
    stage.console.print(f"{outcome.jobs_per_second:,.0f} jobs/s ({took})", highlight=False)


async def _second_act(stage: Stage, files: list[str], checks: Checks) -> None:
    """One workflow over many files."""
    async with stage.open() as (api, bars):
        run = WorkflowRun(api, queue=_new_queue(), files=files, bars=bars)
        outcome = await run.execute(url=stage.target.url, root=stage.root, workers=stage.workers)
    check_workflow(checks, outcome, root=stage.root, names=files)
    took = f"a workflow of {len(files)} files and its callback in {outcome.seconds:.1f} s"
    stage.console.print(took, highlight=False)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where both acts play."""

    target: Target
    root: str
    workers: int
    console: Console

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Api, Progress]]:
        """Give a client of the server, and bars for one act."""
        columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        async with Api(self.target.url) as api:
            with Progress(*columns, console=self.console) as bars:
                yield api, bars


def _new_queue() -> str:
    return f"demo-{time.time_ns() // 1_000_000:x}"


def _direct(root: Path, limit: int, processes: int, folder: Path) -> Direct:
    """Compute all results directly, before the run; add a broken file when the library holds none."""
    names = library_files(root)
    direct = compute_directly(str(root), names[-limit:] if limit else names, processes)
    if None not in direct.values():
        direct[broken_sample(folder)] = None
    return direct


def main() -> int:
    """Run the demo; the exit code is 1 when a check failed or there was no server."""
    console = Console()
    try:
        checks = asyncio.run(_demo(_arguments(), console))
    except (TargetError, ApiError, aiohttp.ClientError) as error:
        console.print(str(error), style="bold red", markup=False, soft_wrap=True)
        return 1
    checks.print(console)
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
