"""Arguments, answers, exit codes of the groups that ask a server; theirs notes what it is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from ojs_stream.cli import cli
from ojs_stream.cli.showing import cell


class Noting(HTTPServer):
    """Notes what it is asked, and always answers the same."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, str | None, bytes]] = []
        self.status = 200
        self.body: Any = {"jobs": [], "total": 0}


class Handler(BaseHTTPRequestHandler):
    server: Noting

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline()
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.command, self.path, self.headers.get("authorization"), body))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(json.dumps(self.server.body).encode())
        self.close_connection = True

    def log_message(self, *_args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Noting]:
    with Noting() as noting:
        thread = Thread(target=noting.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield noting
        noting.shutdown()
        thread.join()


def run(server: Noting, *words: str, **more: Any) -> Any:
    env = {"OJS_URL": f"http://127.0.0.1:{server.server_port}", "OJS_API_KEY": "sesame"}
    return CliRunner().invoke(cli, words, env=env, **more)


@pytest.mark.parametrize(
    ("words", "method", "path"),
    [
        ("jobs list --queue a&b --type t --limit 3", "GET", "/jobs?queue=a%26b&type=t&limit=3"),
        ("jobs show a/b", "GET", "/jobs/a%2Fb"),
        ("jobs cancel x --reason no", "DELETE", "/jobs/x?reason=no"),
        ("jobs retry x", "POST", "/jobs/x/retry"),
        ("queues pause q", "POST", "/queues/q/pause"),
        ("queues purge q --yes", "POST", "/queues/q/purge"),
        ("dlq delete x -y", "DELETE", "/dead-letter/x"),
        ("cron trigger c", "POST", "/cron/c/trigger"),
        ("workflows cancel w", "DELETE", "/workflows/w"),
    ],
)
def test_a_command_is_one_request_with_the_key(server: Noting, words: str, method: str, path: str) -> None:
    ended = run(server, *words.split())
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout) == server.body
    assert [(one[0], one[1], one[2]) for one in server.asked] == [(method, f"/ojs/v1{path}", "Bearer sesame")]


@pytest.mark.parametrize(("status", "code"), [(404, 1), (400, 1), (503, 3)])
def test_a_refusal_is_its_sentence_and_an_exit_code(server: Noting, status: int, code: int) -> None:
    server.status, server.body = status, {"error": {"message": "There is no such job."}}
    ended = run(server, "jobs", "show", "x")
    assert ended.exit_code == code
    assert "There is no such job." in ended.stderr
    assert ended.stdout == ""


def test_nobody_listens_and_wrong_usage_have_their_own_codes() -> None:
    assert CliRunner().invoke(cli, ["jobs", "list", "--url", "http://127.0.0.1:1"]).exit_code == 3
    assert CliRunner().invoke(cli, ["jobs", "list", "--limit", "0"]).exit_code == 2


def test_what_deletes_asks_first(server: Noting) -> None:
    assert run(server, "queues", "purge", "q", input="n\n").exit_code == 1
    assert server.asked == []


def test_a_cell_cannot_steer_the_terminal() -> None:
    assert cell("\x1b[31mred\n") == "[31mred"
    assert len(cell("x" * 100)) == 60
    assert cell(None) == ""


def test_the_page_has_every_command_of_the_groups() -> None:
    told = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    groups = ("jobs", "queues", "dlq", "cron", "workflows")
    tree = typer.main.get_command(cli)
    for group in groups:
        for name in tree.commands[group].commands:  # type: ignore[attr-defined]
            assert f"| `{group} {name}` |" in told
