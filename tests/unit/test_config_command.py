"""``ojs-stream config`` and the page that is made by it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ojs_stream.cli import cli
from ojs_stream.cli.config import WRONG, docs_page
from ojs_stream.settings import table

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in table():
        monkeypatch.delenv(row.variable, raising=False)


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text() == docs_page(), "run: ojs-stream config --docs > docs/settings.md"
    assert CliRunner().invoke(cli, ["config", "--docs"]).output == docs_page()


def test_json_has_every_setting_with_value_source_default_and_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OJS_PORT", "9000")
    monkeypatch.setenv("OJS_API_KEY", "s3cret")
    answer = CliRunner().invoke(cli, ["config", "--json"])
    assert answer.exit_code == 0
    rows = {row["variable"]: row for row in json.loads(answer.stdout)}
    assert list(rows) == [row.variable for row in table()]
    assert (rows["OJS_PORT"]["value"], rows["OJS_PORT"]["source"]) == ("9000", "environment")
    assert (rows["OJS_HOST"]["value"], rows["OJS_HOST"]["source"]) == ("127.0.0.1", "default")
    assert (rows["OJS_PARTITIONS"]["value"], rows["OJS_PARTITIONS"]["source"]) == (None, "unset")
    assert all(row["meaning"].endswith(".") for row in rows.values())
    assert rows["OJS_API_KEY"]["value"] == "***"
    assert "s3cret" not in answer.output
    assert "Warning: OJS_API_KEY" in answer.stderr


def test_the_table_for_people_names_every_setting() -> None:
    answer = CliRunner().invoke(cli, ["config"])
    assert answer.exit_code == 0
    assert [row.variable for row in table() if row.variable not in answer.stdout] == []


def test_a_wrong_value_is_said_and_is_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OJS_PORT", "0")
    answer = CliRunner().invoke(cli, ["config"])
    assert answer.exit_code == WRONG
    assert answer.stderr.strip() == (
        "OJS_PORT is '0', it must be a whole number from 1 to 65535; unset it for the default 8080."
    )
    assert os.environ["OJS_PORT"] in answer.stdout


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"OJS_PARTITIONS": "0"}, "OJS_PARTITIONS is '0', it must be a whole number from 1 to 1024; or unset it."),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA_FILE": __file__},
            "must be PEM files that belong together",
        ),
    ],
)
def test_a_worker_does_not_start_with_a_wrong_value(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], sentence: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    answer = CliRunner().invoke(cli, ["worker"])
    assert answer.exit_code == WRONG
    assert sentence in answer.stderr
    assert "Traceback" not in answer.output
