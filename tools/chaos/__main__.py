"""`python -m tools.chaos`: real workers, Kafka and Redis under seeded faults, and an audit after each.

A round is one kind of fault on servers of its own; without ``--fault`` all kinds follow each other in the order
of the seed. The exit code is 1 when something was lost, applied twice or falsely confirmed, or was late.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tools.chaos.faults import FAULTS, Back, Fault
from tools.chaos.rounds import Result, play

SHOWN_MAX = 10
"""So many findings of a kind are shown."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="which faults hit whom and when (default: by dice)")
    parser.add_argument("--rounds", type=int, default=0, help="how many (default: one of each fault)")
    parser.add_argument("--fault", choices=sorted(FAULTS), action="append", help="only this one (may be repeated)")
    parser.add_argument("--seconds", type=float, default=4.0, help="calm between faults (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    parser.add_argument("--keep", type=Path, help="keep the logs of all servers in this folder")
    return parser.parse_args()


def order(names: list[str], *, seed: int, rounds: int) -> Iterator[tuple[int, Fault]]:
    """Seed and fault of each round: all of them once before one comes again."""
    dice = random.Random(seed)
    bag: list[str] = []
    for number in range(rounds or len(names)):
        bag = bag or dice.sample(names, len(names))
        yield seed + number, FAULTS[bag.pop()]


async def _chaos(arguments: argparse.Namespace, seed: int, console: Console) -> list[Result]:
    plan = list(order(arguments.fault or list(FAULTS), seed=seed, rounds=arguments.rounds))
    results: list[Result] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="ojs-chaos-") as temporary,
        Progress(*columns, console=console) as bars,
    ):
        root = arguments.keep or Path(temporary)
        bar = bars.add_task("chaos", total=len(plan))
        for number, (round_seed, fault) in enumerate(plan):
            bars.update(bar, description=fault.name)
            result = await play(
                root / f"{number:02}-{fault.name}", fault, seed=round_seed, calm_s=arguments.seconds
            )
            results.append(result)
            _show(console, result)
            bars.advance(bar)
    return results


def _show(console: Console, result: Result) -> None:
    console.print(f"seed {result.seed} {result}", highlight=False, soft_wrap=True, markup=False)
    verdict = result.verdict
    for text in (*verdict.lost, *verdict.twice, *verdict.false, *verdict.other)[:SHOWN_MAX]:
        console.print(f"  {text}", style="red", highlight=False, soft_wrap=True, markup=False)


def figures(results: list[Result], seed: int) -> dict[str, Any]:
    """Everything as JSON."""
    return {
        "seed": seed,
        "rounds": [
            {
                "fault": result.fault,
                "seed": result.seed,
                "seconds": round(result.took_s, 1),
                "requests": result.requests,
                "answers": result.answers,
                "backs": [_back(back) for back in result.backs],
                "jobs": result.verdict.jobs,
                "linearized": result.verdict.checked,
                "lost": len(result.verdict.lost),
                "applied_twice": len(result.verdict.twice),
                "false_2xx": len(result.verdict.false),
                "other": len(result.verdict.other),
            }
            for result in results
        ],
    }


def _back(back: Back) -> dict[str, Any]:
    return {"what": back.what, "seconds": round(back.seconds, 2), "bound_s": round(back.bound_s, 2)}


def _total(results: list[Result]) -> str:
    requests, jobs = sum(r.requests for r in results), sum(r.verdict.jobs for r in results)
    lost, twice = sum(len(r.verdict.lost) for r in results), sum(len(r.verdict.twice) for r in results)
    false, other = sum(len(r.verdict.false) for r in results), sum(len(r.verdict.other) for r in results)
    late = sum(not back.holds for r in results for back in r.backs)
    return (
        f"{len(results)} rounds, {requests} requests, {jobs} jobs: {lost} lost, {twice} applied twice, "
        f"{false} false 2xx, {other} other, {late} late"
    )


def main() -> int:
    """Play the rounds, print a line for each and the figures."""
    arguments, console = _arguments(), Console()
    # What clients say of a broker that we have killed is no news.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    seed = arguments.seed or random.randrange(1, 1_000_000)
    console.print(f"seed {seed}", highlight=False)
    results = asyncio.run(_chaos(arguments, seed, console))
    text = json.dumps(figures(results, seed))
    if arguments.json:
        arguments.json.write_text(text + "\n")
    print(text)
    print(_total(results))
    return 0 if all(result.verdict.clean and result.in_time for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
