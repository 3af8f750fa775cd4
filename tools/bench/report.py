"""The figures as a table on the terminal, as JSON and as markdown."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson
from rich.table import Table

from tools.bench.cases import ENQUEUE, FLOOR

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console

    from tools.bench.figures import Figure, Figures
    from tools.demo.checks import Checks

CLIENT_BOUND_SHARE = 0.9
"""Above this share of one core the client itself limits a figure, which the report says."""
OTHERS_SHARE = 0.05
"""Above this share of the machine other processes are worth a remark."""

_COLUMNS = (
    "conns",
    "queues",
    "case",
    "requests/s",
    "jobs/s",
    "p50 ms",
    "p99 ms",
    "x floor",
    "x enqueue",
    "errors",
)
_TEXT_COLUMNS = 3


def show(figures: Figures, console: Console) -> None:
    """Print machine, table, drift and remarks."""
    for line in _preface(figures):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(_table(figures))
    for line in (*_drifts(figures), *_remarks(figures)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def write_json(figures: Figures, checks: Checks, path: Path) -> None:
    """Write everything that was measured, and the checks."""
    content: dict[str, Any] = asdict(figures)
    content["checks"] = [asdict(check) for check in checks.made]
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def write_markdown(figures: Figures, checks: Checks, path: Path) -> None:
    """Write the table and the checks as markdown."""
    lines = ["# Bench", "", *(f"- {line}" for line in _preface(figures)), ""]
    lines += ["| " + " | ".join(_COLUMNS) + " |", "| " + " | ".join("---:" for _ in _COLUMNS) + " |"]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(figures)]
    lines += ["", *(f"- {line}" for line in (*_drifts(figures), *_remarks(figures))), ""]
    lines += [f"- {'pass' if check.passed else '**FAIL**'}: {check.name}: {check.found}" for check in checks.made]
    path.write_text("\n".join([*lines, "", checks.summary, ""]))


def _preface(figures: Figures) -> Iterator[str]:
    machine = figures.machine
    yield f"machine: {machine['cores']} cores, shared by the client and all servers; {machine['cpu']}"
    yield f"system: {machine['system']}, {machine['python']}"
    yield f"versions: {machine['versions']}"
    yield f"server: {figures.server}, {figures.partitions} partitions; durability: {figures.durability}"
    yield f"closed loop, slices of {figures.seconds:g} s in turn, {figures.rounds} rounds of what is judged"
    yield "rates are medians of the slices; a ratio is of one round: median of the rounds (lowest-highest)"


def _table(figures: Figures) -> Table:
    table = Table()
    for number, column in enumerate(_COLUMNS):
        table.add_column(column, justify="left" if number == _TEXT_COLUMNS - 1 else "right", no_wrap=True)
    section = ""
    for row in _rows(figures):
        if section not in ("", f"{row[0]}/{row[1]}"):
            table.add_section()
        section = f"{row[0]}/{row[1]}"
        table.add_row(*row, style=None if row[-1] in ("", "0") else "bold red")
    return table


def _rows(figures: Figures) -> Iterator[tuple[str, ...]]:
    yield from (_row(figure) for figure in figures.figures)


def _row(figure: Figure) -> tuple[str, ...]:
    return (
        str(figure.connections),
        str(figure.queues),
        figure.case,
        f"{figure.requests_per_second:,.0f}",
        "" if figure.case == FLOOR else f"{figure.jobs_per_second:,.0f}",
        f"{figure.p50_ms:.2f}",
        f"{figure.p99_ms:.2f}",
        "" if figure.case == FLOOR else str(figure.floor_ratio),
        "" if figure.case in (FLOOR, ENQUEUE) else str(figure.enqueue_ratio),
        str(figure.error_count),
    )


def _drifts(figures: Figures) -> Iterator[str]:
    parts = [
        f"{floor.connections}: {floor.at_end_requests_per_second:,.0f}/s ({floor.drift:+.0%})"
        for floor in figures.drifts
    ]
    yield "floor again at the end, by connections: " + ", ".join(parts)


def _remarks(figures: Figures) -> Iterator[str]:
    if figures.others_share > OTHERS_SHARE:
        yield f"others used {figures.others_share:.0%} of the machine: what is measured here decides little"
    for figure in figures.figures:
        place = f"{figure.case}, {figure.connections} connections, {figure.queues} queue(s)"
        if figure.error_count:
            yield f"{place}: not 2xx: {figure.errors}; {figure.error_sample}"
        if figure.ran_dry:
            yield f"{place}: ran out of jobs after {figure.measured_s:.2f} s; the rate is of that time"
        if figure.client_cpu_share > CLIENT_BOUND_SHARE:
            yield f"{place}: the client used {figure.client_cpu_share:.0%} of a core, perhaps the limit"
