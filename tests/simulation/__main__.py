"""``python -m tests.simulation --seeds 1000`` or ``--seed 42 --verbose`` (``make sim``, ``make sim SEED=42``)."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from rich.progress import track

from tests.simulation.scenario import Result, simulate

SHOWN_MAX = 8
SENTENCE_CHARS_MAX = 1_500
CHUNK = 10


def main() -> int:
    """Run seeds; 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first one")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--verbose", action="store_true", help="show what the product logged")
    asked = parser.parse_args()
    seeds = [asked.seed] if asked.seed is not None else range(asked.start, asked.start + asked.seeds)
    started = time.perf_counter()
    failed = requests = records = 0
    virtual_s = 0.0
    for result in track(run(seeds, asked.jobs), "Simulating", total=len(seeds), disable=not sys.stdout.isatty()):
        failed += bool(result.problems)
        requests, records = requests + result.requests, records + result.records
        virtual_s += result.virtual_s
        show(result, verbose=asked.verbose)
    spent_s = time.perf_counter() - started
    print(f"{requests} requests, {records} log records, {virtual_s:.0f} virtual seconds in {spent_s:.1f} s")
    print(f"{len(seeds)} seeds, {failed} failed")
    return 1 if failed else 0


def run(seeds: Sequence[int], jobs: int) -> Iterator[Result]:
    """The results in the order of the seeds."""
    if jobs == 1:
        yield from map(simulate, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(simulate, seeds, chunksize=CHUNK)


def show(result: Result, *, verbose: bool) -> None:
    """What the product logged, if that is wanted; a failed seed, and how to see it again."""
    if verbose:
        lines(str(entry) for entry in result.journal)
    if not result.problems:
        return
    print(f"seed {result.seed} failed, to see it again: make sim SEED={result.seed}")
    lines(f"  {problem}"[:SENTENCE_CHARS_MAX] for problem in result.problems[:SHOWN_MAX])
    if len(result.problems) > SHOWN_MAX:
        print(f"  and {len(result.problems) - SHOWN_MAX} more")


def lines(texts: Iterable[str]) -> None:
    """One a line."""
    for text in texts:
        print(text)


if __name__ == "__main__":
    sys.exit(main())
