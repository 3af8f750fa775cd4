"""``python -m tests.simulation --seeds 1000`` or ``--seed 42 --verbose``."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.scenario import Result, simulate

SHOWN_MAX = 8


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
    if asked.jobs > 1:
        with ProcessPoolExecutor(asked.jobs) as pool:
            results = list(pool.map(simulate, seeds, chunksize=10))
    else:
        results = [simulate(seed) for seed in seeds]
    failed = [result for result in results if result.problems]
    for result in failed:
        show(result)
    if asked.verbose:
        for result in results:
            for entry in result.journal:
                print(entry)
    spent = time.perf_counter() - started
    requests, records = sum(r.requests for r in results), sum(r.records for r in results)
    virtual = sum(r.virtual_s for r in results)
    print(f"{requests} requests, {records} log records, {virtual:.0f} virtual seconds in {spent:.1f} s")
    print(f"{len(results)} seeds, {len(failed)} failed")
    return 1 if failed else 0


def show(result: Result) -> None:
    """A failed seed and how to see it again."""
    print(f"seed {result.seed} failed: python -m tests.simulation --seed {result.seed} --verbose")
    for problem in result.problems[:SHOWN_MAX]:
        print(f"  {problem}"[:1500])
    if len(result.problems) > SHOWN_MAX:
        print(f"  and {len(result.problems) - SHOWN_MAX} more")


if __name__ == "__main__":
    sys.exit(main())
