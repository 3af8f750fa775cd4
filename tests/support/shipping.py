"""What the manifests of deploy/ must agree with: settings, routes, the command line, the time a stop takes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer.main
import yaml

from ojs_stream.cli import cli
from ojs_stream.runtime import DRAIN_S
from ojs_stream.settings import table
from ojs_stream.web.routes import _system_routes

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
#: In ``Runtime.drain``: requests in flight, then what is in the outboxes. In ``Runtime.close``: three producers.
STOP_S = 2 * DRAIN_S + 2 + 5 + 5


def documents(path: Path) -> list[dict[str, Any]]:
    """Every document of a YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def check_settings(names: Iterable[str]) -> None:
    """Each name is a variable that the server reads."""
    unknown = sorted(set(names) - {row.variable for row in table()})
    assert not unknown, f"{unknown} are no settings of ojs-stream: see ojs_stream/settings.py"


def check_probe(path: str) -> None:
    """The server answers GET for this path."""
    known = {route.path for route in _system_routes() if route.method == "GET"}
    assert path in known, f"{path} is no route of the server's own: {sorted(known)}"


def check_command(line: str | list[str]) -> None:
    """The words are a command of ``ojs-stream`` with options that it has."""
    program, name, *words = shlex.split(line) if isinstance(line, str) else line
    assert Path(program).name == "ojs-stream"
    command = typer.main.get_group(cli).commands[name]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


def seconds(text: str) -> int:
    """``45s`` as a number."""
    return int(text.removesuffix("s"))
