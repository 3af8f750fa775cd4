"""``ojs-stream config``: every setting with its value, where that comes from, its default and its meaning."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ojs_stream.errors import SettingsError
from ojs_stream.settings import Setting, Settings, Shown, shown, table

WRONG = 2
"""Exit code: a value is wrong, and a worker would not start."""
NARROWEST = 160
"""Columns of the table where there is no terminal to fit it into."""

_DOCS_HEAD = """\
# Settings

Read from the environment once, at start. A wrong value stops the start with a sentence: field, value, bound and
cure. An empty variable counts as unset. `ojs-stream config` shows what they are and where they come from (`--json`
for scripts; secrets are masked). This page is made by `ojs-stream config --docs > docs/settings.md` from the one
table in `ojs_stream/settings.py`; a test compares them.

| variable | default | a value is | meaning |
| --- | --- | --- | --- |
"""


def config(
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: one object a setting.")] = False,
    docs: Annotated[bool, typer.Option("--docs", help="Print docs/settings.md instead.")] = False,
) -> None:
    """Show every setting as a worker would find it in this environment; secrets are masked.

    Exit code 0: a worker would start with them. 2: one of them is wrong; the sentence says which.
    """
    if docs:
        typer.echo(docs_page(), nl=False)
        return
    rows = shown()
    if as_json:
        typer.echo(json.dumps([_as_object(row) for row in rows], indent=2))
    else:
        _print(rows)
    for sentence in checked(os.environ).warnings():
        typer.echo(f"Warning: {sentence}", err=True)


def docs_page() -> str:
    """The text of ``docs/settings.md``."""
    return _DOCS_HEAD + "".join(_docs_row(row) for row in table())


def _docs_row(row: Setting) -> str:
    default = f"`{row.default}`" if row.default else ""
    unit = f" ({row.unit})" if row.unit not in {"", "ISO 8601"} else ""
    # A name of another setting is a name, not a word.
    meaning = re.sub(r"\b[A-Z]+(?:_[A-Z]+)+(?:=\w+)?", r"`\g<0>`", row.meaning)
    return f"| `{row.variable}` | {default} | {row.bound}{unit} | {meaning} |\n"


def _as_object(row: Shown) -> dict[str, Any]:
    setting = row.setting
    return {
        "variable": setting.variable,
        "value": row.value or None,
        "source": _source(row),
        "default": setting.default or None,
        "unit": setting.unit or None,
        "bound": setting.bound or None,
        "meaning": setting.meaning,
    }


def _source(row: Shown) -> str:
    if row.given:
        return "environment"
    return "default" if row.setting.default else "unset"


def _print(rows: list[Shown]) -> None:
    console = Console()
    wide = console if console.is_terminal else Console(width=NARROWEST)
    view = Table(box=None, pad_edge=False)
    for head in ("variable", "value", "source", "default", "meaning"):
        view.add_column(head, no_wrap=head == "variable")
    for row in rows:
        texts = (row.setting.variable, row.value, _source(row), row.setting.default, row.setting.meaning)
        view.add_row(*map(_plain, texts), style="bold" if row.given else "")
    wide.print(view, highlight=False)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def checked(environ: Mapping[str, str]) -> Settings:
    """The settings of this environment. What is wrong with them is one sentence and the end."""
    try:
        settings = Settings.from_env(environ)
        settings.kafka.security.ssl_context()
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(WRONG) from error
    return settings


def attach(cli: typer.Typer) -> None:
    """Make it a command of ``ojs-stream``."""
    cli.command()(config)
