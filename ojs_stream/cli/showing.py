"""How answers are shown: tables on a terminal, JSON for everybody else."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

CELL_MAX = 60
"""Characters of a cell: the rest is left to ``--json``."""


def wants_json(asked: bool) -> bool:
    """Whether JSON is to be written: asked for, or no terminal reads it."""
    return asked or not sys.stdout.isatty()


def print_json(value: Any) -> None:
    """One JSON document, indented."""
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """A table with one line a row."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*(cell(row.get(column)) for column in columns))
    Console().print(table)


def print_fields(row: Mapping[str, Any]) -> None:
    """A table with one line a field."""
    table = Table("field", "value")
    for name, value in row.items():
        table.add_row(escape(name), cell(value))
    Console().print(table)


def cell(value: Any) -> str:
    """A value in a table: strings as they are, nothing as nothing, all else as JSON, cut at ``CELL_MAX``.

    Control characters are left out: what a client stores must not steer the terminal of an operator.
    """
    if value is None:
        return ""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    text = "".join(char for char in text if char.isprintable())
    return escape(text if len(text) <= CELL_MAX else f"{text[: CELL_MAX - 1]}…")
