"""docs/http.md from openapi.yaml: ``python -m tools.httpdocs`` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "ojs_stream" / "web" / "openapi.yaml"
TARGET = ROOT / "docs" / "http.md"
METHODS = ("get", "post", "put", "patch", "delete")
HEAD = """# HTTP reference

Made from [openapi.yaml](../ojs_stream/web/openapi.yaml) by `make http-docs`;
a running server has it at `/ojs/openapi.yaml`.
{description}
Errors are in [errors.md](errors.md). The examples ask a server that `make run` has started.
"""
JSON_TYPE = "application/json"


def page() -> str:
    """The whole page, grouped by subject."""
    document = yaml.safe_load(SOURCE.read_text("utf-8"))
    parts = [HEAD.format(description=document["info"]["description"])]
    for tag in document["tags"]:
        parts.append(f"## {tag['name']}\n")
        parts += [
            _operation(document, method, path, item)
            for path, item in document["paths"].items()
            for method in METHODS
            if tag["name"] in item.get(method, {}).get("tags", ())
        ]
    return "\n".join(parts)


def _operation(document: dict[str, Any], method: str, path: str, item: dict[str, Any]) -> str:
    operation = item[method]
    parameters = [
        _resolved(document, one) for one in (*item.get("parameters", ()), *operation.get("parameters", ()))
    ]
    rows = [f"- `{one['name']}` ({one['in']}){_said(one)}" for one in parameters if one["in"] != "header"]
    statuses = ", ".join(status for status in operation["responses"] if status != "default")
    return "\n".join(
        (
            f"### {method.upper()} {path}\n",
            f"{operation['summary']}\n",
            *([*rows, ""] if rows else ()),
            f"Answers: {statuses}.\n",
            f"```sh\n{_curl(method, path, parameters, operation)}\n```\n",
        )
    )


def _resolved(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    found: Any = value
    if "$ref" in value:
        found = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
    return dict(found)


def _said(parameter: dict[str, Any]) -> str:
    return f": {parameter['description']}" if "description" in parameter else ""


def _curl(method: str, path: str, parameters: list[dict[str, Any]], operation: dict[str, Any]) -> str:
    for one in parameters:
        if one["in"] == "path":
            path = path.replace(f"{{{one['name']}}}", str(one["example"]))
    words = ["curl", *([] if method == "get" else ["-X", method.upper()]), f"http://127.0.0.1:8080{path}"]
    if "requestBody" in operation:
        example = json.dumps(operation["requestBody"]["content"][JSON_TYPE]["example"])
        words += ["-H", f"'Content-Type: {JSON_TYPE}'", "-d", f"'{example}'"]
    return " ".join(words)
