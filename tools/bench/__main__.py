"""`python -m tools.bench`: requests per second of one worker, as ratios to a floor of the same run."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from contextlib import closing
from pathlib import Path

from rich.console import Console

from tools.bench.figures import EMBEDDED_DURABILITY, OTHER_DURABILITY, Figures, machine
from tools.bench.floor import floor_server
from tools.bench.judge import judge
from tools.bench.others import Others
from tools.bench.queues import covering_queues
from tools.bench.report import show, write_json, write_markdown
from tools.bench.run import Bench, Client, Plan
from tools.demo.target import EMBEDDED_PARTITIONS, Target, TargetError, Wish, open_target

SECONDS = 1.0
ROUNDS = 5
WARMUP_S = 0.2
REPORT_COLUMNS_MIN = 140
QUICK_SECONDS = 0.5
QUICK_ROUNDS = 3
CONNECTIONS = (1, 16, 64, 256)
QUICK_CONNECTIONS = (1, 64)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("--url", default=os.environ.get("OJS_URL", ""), help="default: OJS_URL, else embedded")
    parser.add_argument("--partitions", type=int, default=EMBEDDED_PARTITIONS, help="partitions of ojs.commands")
    parser.add_argument("--seconds", type=float, default=0.0, help=f"length of each slice (default: {SECONDS:g})")
    parser.add_argument("--rounds", type=int, default=0, help=f"rounds that are judged (default: {ROUNDS})")
    parser.add_argument("--connections", type=int, nargs="+", help=f"default: {' '.join(map(str, CONNECTIONS))}")
    parser.add_argument("--quick", action="store_true", help="few, short rounds at 1 and 64 connections only")
    parser.add_argument("--json", type=Path, help="write all figures and checks here")
    parser.add_argument("--markdown", type=Path, help="write the report as markdown here")
    return parser.parse_args()


def _plan(arguments: argparse.Namespace) -> Plan:
    names = covering_queues(f"bench-{time.time_ns() // 1_000_000:x}", arguments.partitions)
    connections = arguments.connections or (QUICK_CONNECTIONS if arguments.quick else CONNECTIONS)
    return Plan(
        connections=tuple(connections),
        queue_sets=(names[:1], names) if len(names) > 1 else (names,),
        seconds=arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS),
        rounds=arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS),
        warmup_s=WARMUP_S,
    )


async def _bench(arguments: argparse.Namespace, console: Console) -> Figures:
    wish = Wish(url=arguments.url, look_around=False, needs_brokers=False, partitions=arguments.partitions)
    console.print("starting ...", highlight=False)
    async with open_target(wish) as target:
        # In a thread, so that the loop that owns the embedded processes stays awake.
        return await asyncio.to_thread(_measure, arguments, target, console)


def _measure(arguments: argparse.Namespace, target: Target, console: Console) -> Figures:
    plan = _plan(arguments)
    figures = Figures(
        machine=machine(),
        seconds=plan.seconds,
        rounds=plan.rounds,
        partitions=arguments.partitions,
        server=target.description,
        durability=EMBEDDED_DURABILITY if target.embedded else OTHER_DURABILITY,
    )
    with closing(Client()) as client, floor_server() as floor_port, console.status("") as status:
        bench = Bench(client=client, url=target.url, floor_port=floor_port, plan=plan, say=status.update)
        others = Others()
        bench.run(figures)
        figures.others_share = others.share() if target.embedded else 0.0
    return figures


def _console() -> Console:
    """Return a console on which the table fits, even when the output is not a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, REPORT_COLUMNS_MIN))


def main() -> int:
    """Run the bench; the exit code is 1 when a bound was missed or there was no server."""
    arguments, console = _arguments(), _console()
    try:
        figures = asyncio.run(_bench(arguments, console))
    except TargetError as error:
        console.print(str(error), style="bold red", markup=False, soft_wrap=True)
        return 1
    checks = judge(figures)
    show(figures, console)
    if arguments.json:
        write_json(figures, checks, arguments.json)
    if arguments.markdown:
        write_markdown(figures, checks, arguments.markdown)
    checks.print(console)
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
