"""`python -m tools.soak`: a load for half an hour; memory, files and keys must not grow."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tools.bench.servers import own_servers
from tools.demo.target import EMBEDDED_PARTITIONS, TargetError
from tools.soak.report import judge, show, write_json
from tools.soak.run import Found, Plan, Soak

MINUTES = 30.0
WORKERS = 2
RETENTION_S = 30
REPORT_COLUMNS_MIN = 120


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"length of the load ({MINUTES:g})")
    parser.add_argument("--rate", type=float, help="lives per second (default: half of the measured capacity)")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"worker processes (default: {WORKERS})")
    parser.add_argument("--partitions", type=int, default=EMBEDDED_PARTITIONS, help="partitions of ojs.commands")
    parser.add_argument("--json", type=Path, help="write all samples and checks here")
    return parser.parse_args()


def retention(seconds: int) -> dict[str, str]:
    """Settings under which no job outlives its end for long."""
    kinds = ("COMPLETED", "CANCELLED", "DISCARDED", "DEAD_LETTERS")
    return {f"OJS_RETENTION_{kind}": f"PT{seconds}S" for kind in kinds}


async def _soak(arguments: argparse.Namespace, plan: Plan, console: Console) -> Found:
    console.print("starting ...", highlight=False)
    async with own_servers(
        workers=arguments.workers, partitions=arguments.partitions, settings=retention(RETENTION_S)
    ) as servers:
        columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=plan.seconds)

            def say(what: str, at_s: float) -> None:
                bar.update(task, description=what, completed=at_s)
                if not console.is_terminal:
                    console.print(f"{at_s:6.0f} s  {what}", highlight=False)

            return await Soak(servers, plan, say).run()


def main() -> int:
    """Run it; the exit code is 1 when something grew or failed, or there was no server."""
    arguments, console = _arguments(), Console()
    console = console if console.is_terminal else Console(width=max(console.width, REPORT_COLUMNS_MIN))
    plan = Plan(seconds=arguments.minutes * 60, rate_per_s=arguments.rate, retention_s=RETENTION_S)
    try:
        found = uvloop.run(_soak(arguments, plan, console))
    except TargetError as error:
        console.print(str(error), style="bold red", markup=False, soft_wrap=True)
        return 1
    checks = judge(found)
    show(found, plan, console)
    if arguments.json:
        write_json(found, plan, checks, arguments.json)
    checks.print(console)
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
