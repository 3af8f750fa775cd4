"""What a run says: the table by level, each failed case with its first mismatch, one last line, a JSON file.

`REQUIRED` is the one place that says what must pass. In the last line a case counts as passed when it passed
in every configuration.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tools.conformance.cases import Case
from tools.conformance.runner import CaseResult

Results = Mapping[str, Sequence[CaseResult]]
"""The verdicts of each configuration, by its name."""

CORE_CASES = {0: 65, 1: 25, 2: 13, 3: 14, 4: 16}
"""How many cases each core level has: a suite that got smaller must not look like a pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Required:
    """What one level must reach: every case but the `allowed` ones, each with the reason why it may fail."""

    allowed: Mapping[str, str] = field(default_factory=dict)


REQUIRED: Mapping[int, Required] = {
    0: Required(),
    1: Required(allowed={"L1-RTR-014": "needs a message classifier"}),
    2: Required(),
    3: Required(),
    4: Required(),
}
"""Core level -> what it must reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How many cases of a level passed, and which allowed failures are among the rest."""

    level: int
    passed: int
    total: int
    excused: tuple[str, ...]

    def __str__(self) -> str:
        """Give the level's part of the last line."""
        note = f" ({'; '.join(self.excused)})" if self.excused else ""
        return f"level {self.level} {self.passed}/{self.total}{note}"


def scores(results: Iterable[CaseResult], required: Mapping[int, Required] = REQUIRED) -> list[Score]:
    """Count one configuration's verdicts by level."""
    levels: dict[int, list[CaseResult]] = {}
    for result in results:
        levels.setdefault(result.case.level, []).append(result)
    return [_score(level, found, required.get(level)) for level, found in sorted(levels.items())]


def _score(level: int, results: Sequence[CaseResult], required: Required | None) -> Score:
    allowed = required.allowed if required else {}
    failed = [result.case.id for result in results if not result.passed]
    excused = [
        f"{case.split('-', 1)[-1]} stays failing: {allowed[case]}"
        for case in dict.fromkeys(failed)
        if case in allowed
    ]
    passed = len(results) - len(failed)
    return Score(level=level, passed=passed, total=len(results), excused=tuple(excused))


def combined(results: Results) -> list[CaseResult]:
    """Give one verdict a case: the first failed one of all configurations, else a passed one."""
    verdicts: dict[str, CaseResult] = {}
    for result in (result for of_one in results.values() for result in of_one):
        known = verdicts.setdefault(result.case.file, result)
        if known.passed and not result.passed:
            verdicts[result.case.file] = result
    return list(verdicts.values())


def regressions(results: Iterable[CaseResult], required: Mapping[int, Required] = REQUIRED) -> list[str]:
    """Name every failed case of one configuration that its level requires, with its first mismatch."""
    return [
        f"{result.case.id} ({result.case.name}): {result.failures[0]}"
        for result in results
        if result.case.level in required
        and not result.passed
        and result.case.id not in required[result.case.level].allowed
    ]


def shrunk(cases: Iterable[Case], required: Mapping[int, Required] = REQUIRED) -> list[str]:
    """Name every required core level that has not all its cases in a full set of `cases`."""
    found = [case.level for case in cases]
    return [
        f"level {level} has {found.count(level)} cases in the suite, {CORE_CASES[level]} are expected"
        for level in sorted(required)
        if level in CORE_CASES and found.count(level) != CORE_CASES[level]
    ]


def last_line(results: Results, required: Mapping[int, Required] = REQUIRED) -> str:
    """Sum all configurations up in one line."""
    return line("conformance", combined(results), required)


def line(name: str, results: Sequence[CaseResult], required: Mapping[int, Required] = REQUIRED) -> str:
    """Sum the verdicts of one configuration up: each level, then the total."""
    parts = [str(score) for score in scores(results, required)]
    total = f"total {sum(result.passed for result in results)}/{len(results)}"
    return f"{name}: {', '.join([*parts, total])}"


def show(
    console: Console, results: Results, left_out: Sequence[Case], required: Mapping[int, Required] = REQUIRED
) -> None:
    """Print the table, the failed cases and what was left out."""
    console.print(_table(results, required))
    for name, of_one in results.items():
        for result in of_one:
            if not result.passed:
                _show_failed(console, name, result)
    if left_out:
        named = ", ".join(f"{case.id} waits {case.wait_ms // 1000} s" for case in left_out)
        console.print(f"Left out for their length ({named}); without --quick they run too.")
    for name, of_one in results.items():
        console.print(line(name, of_one, required), markup=False, highlight=False, soft_wrap=True)


def _table(results: Results, required: Mapping[int, Required]) -> Table:
    table = Table("level", *results, "required", title="passed / total")
    counted = {
        name: {score.level: score for score in scores(of_one, required)} for name, of_one in results.items()
    }
    for level in sorted({level for of_one in counted.values() for level in of_one}):
        cells = [_cell(of_one.get(level)) for of_one in counted.values()]
        table.add_row(str(level), *cells, _demand(required.get(level)))
    sums = [f"{sum(result.passed for result in of_one)}/{len(of_one)}" for of_one in results.values()]
    table.add_section()
    table.add_row("total", *sums, "")
    return table


def _cell(score: Score | None) -> str:
    return "-" if score is None else f"{score.passed}/{score.total}"


def _demand(required: Required | None) -> str:
    if required is None:
        return "no"
    return f"all but {', '.join(sorted(required.allowed))}" if required.allowed else "all"


def _show_failed(console: Console, name: str, result: CaseResult) -> None:
    failure = result.failures[0]
    console.print(f"[red]failed[/] {escape(f'{name} {result.case.id} {result.case.name} ({result.case.file})')}")
    console.print(f"  {escape(str(failure))}", highlight=False)
    console.print(f"  expected {escape(failure.expected)}, got {escape(failure.got)}", highlight=False)


def write_json(
    file: Path, results: Results, left_out: Sequence[Case], required: Mapping[int, Required] = REQUIRED
) -> None:
    """Write every verdict with all its mismatches."""
    content = {
        "configurations": {name: _configuration(of_one, required) for name, of_one in results.items()},
        "left_out": [case.id for case in left_out],
        "required": {str(level): dict(demand.allowed) for level, demand in required.items()},
    }
    file.write_text(json.dumps(content, indent=2) + "\n")


def _configuration(results: Sequence[CaseResult], required: Mapping[int, Required]) -> dict[str, object]:
    return {
        "levels": {str(score.level): asdict(score) for score in scores(results, required)},
        "regressions": regressions(results, required),
        "cases": [_case(result) for result in results],
    }


def _case(result: CaseResult) -> dict[str, object]:
    case = result.case
    return {
        "id": case.id,
        "name": case.name,
        "level": case.level,
        "category": case.category,
        "file": case.file,
        "passed": result.passed,
        "seconds": round(result.seconds, 3),
        "failures": [asdict(failure) for failure in result.failures],
    }
