"""The document and the router say the same, and the page of the documentation is made from it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from aiohttp import web
from openapi_spec_validator import validate

from ojs_stream.telemetry.meters import WebMeter
from ojs_stream.web.document import OPENAPI
from ojs_stream.web.routes import setup
from tools.httpdocs import METHODS, TARGET, page

Operation = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return cast("dict[str, Any]", yaml.load(OPENAPI, yaml.CSafeLoader))


def described(document: dict[str, Any]) -> dict[tuple[str, str], Operation]:
    return {
        (method.upper(), path): item[method]
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }


def served() -> set[tuple[str, str]]:
    """Everything of the router but HEAD, which every GET is as well, and the fallback."""
    limits = SimpleNamespace(json_depth_max=1, envelope_bytes_max=1, meta_bytes_max=1, batch_jobs_max=1)
    context = SimpleNamespace(test_mode=True, limits=limits, retention=None, homes=1, meter=WebMeter())
    app = web.Application()
    setup(app, cast("Any", context))
    return {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method not in ("HEAD", "*")
    }


def test_the_document_has_every_route_and_none_too_many(document: dict[str, Any]) -> None:
    assert set(described(document)) == served()


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_every_body_has_an_example_and_every_operation_an_error(document: dict[str, Any]) -> None:
    for place, operation in described(document).items():
        assert "default" in operation["responses"], place
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert "example" in content, place


def test_the_page_is_up_to_date() -> None:
    assert TARGET.read_text("utf-8") == page(), "run `make http-docs`"
