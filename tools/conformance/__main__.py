"""The command ``python -m tools.conformance``: servers, cases, table, exit code.

Exit codes: 0 no regression against the required table, 1 a regression, 2 nothing could be judged.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ojs_stream.errors import OjsError
from tools.conformance import report
from tools.conformance.cases import Case, CaseError, load_cases
from tools.conformance.report import REQUIRED, Required
from tools.conformance.runner import CORE_LEVELS, CaseResult, OnResult, lanes_of, run_lanes, split_long
from tools.conformance.servers import own_servers


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code."""
    options = _parser().parse_args(argv)
    required = dict(options.required) if options.required else dict(REQUIRED)
    try:
        chosen = _chosen(options)
    except CaseError as problem:
        Console(stderr=True).print(str(problem), markup=False)
        return 2
    short, long = split_long(chosen)
    cases, left_out = (short, long) if options.quick else (chosen, [])
    try:
        results = asyncio.run(_run(options, cases))
    except OjsError as problem:
        Console(stderr=True).print(str(problem), markup=False)
        return 2
    return _report(options, results, left_out, required)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.conformance", description="Judge OJS servers by the official conformance cases."
    )
    add = parser.add_argument
    add(
        "--url",
        action="append",
        default=[],
        help="a running server (repeatable: asked in turn); else own ones",
    )
    add("--level", action="append", type=int, default=[], help="a level to run (repeatable); else 0 to 4")
    add("--suite", type=Path, help="a folder of cases, instead of the core suites; runs all levels in it")
    add("--filter", default="", metavar="TEXT", help="only cases with TEXT in id, name, category or file")
    add("--json", type=Path, metavar="FILE", help="write every verdict to FILE")
    add("--quick", action="store_true", help="leave out the cases that wait over a minute (cron)")
    add(
        "--required",
        action="append",
        type=_requirement,
        default=[],
        metavar="LEVEL[:ID,...]",
        help="a level that must pass but for the named cases (repeatable); replaces the built-in table",
    )
    return parser


def _requirement(text: str) -> tuple[int, Required]:
    level, _, allowed = text.partition(":")
    return int(level), Required(allowed={case: "allowed by --required" for case in allowed.split(",") if case})


def _chosen(options: argparse.Namespace) -> list[Case]:
    levels = set(options.level) or (None if options.suite else CORE_LEVELS)
    chosen = load_cases(options.suite, levels=levels, text=options.filter)
    if not chosen:
        raise CaseError("No case is left by --level and --filter.")
    return chosen


async def _run(options: argparse.Namespace, cases: list[Case]) -> dict[str, list[CaseResult]]:
    async with AsyncExitStack() as stack:
        if options.url:
            lanes, servers = [cases], {"server": [list(options.url)]}
        else:
            lanes = lanes_of(cases)
            servers = await stack.enter_async_context(own_servers(len(lanes)))
        with _progress() as progress:
            heard = {name: _on_result(progress, name, len(cases)) for name in servers}
            runs = [run_lanes(of_one, lanes, on_result=heard[name]) for name, of_one in servers.items()]
            return dict(zip(servers, await asyncio.gather(*runs), strict=True))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))


def _on_result(progress: Progress, name: str, total: int) -> OnResult:
    task: TaskID = progress.add_task(name, total=total, note="")
    failed: list[str] = []

    def heard(result: CaseResult) -> None:
        if not result.passed:
            failed.append(result.case.id)
        progress.update(task, advance=1, note=f"{result.case.id}, {len(failed)} failed")

    return heard


def _report(
    options: argparse.Namespace,
    results: Mapping[str, Sequence[CaseResult]],
    left_out: Sequence[Case],
    required: Mapping[int, Required],
) -> int:
    console = Console()
    report.show(console, results, left_out, required)
    if options.json:
        report.write_json(options.json, results, left_out, required)
    wrong = _wrong(options, results, left_out, required)
    for sentence in wrong:
        console.print(f"regression: {sentence}", style="red", markup=False)
    console.print(report.last_line(results, required), markup=False, highlight=False, soft_wrap=True)
    return 1 if wrong else 0


def _wrong(
    options: argparse.Namespace,
    results: Mapping[str, Sequence[CaseResult]],
    left_out: Sequence[Case],
    required: Mapping[int, Required],
) -> list[str]:
    found = [f"{name} {case}" for name in results for case in report.regressions(results[name], required)]
    if options.suite or options.filter:
        return found
    wanted = {level: required[level] for level in required if level in (options.level or CORE_LEVELS)}
    everything = [*(result.case for result in report.combined(results)), *left_out]
    return [*report.shrunk(everything, wanted), *found]


if __name__ == "__main__":
    sys.exit(main())
