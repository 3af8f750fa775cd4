"""GET /ojs/openapi.yaml: what every route takes and answers, for people and for tools."""

from __future__ import annotations

from importlib import resources

from aiohttp import web

from ojs_stream.web.answer import OJS_VERSION
from ojs_stream.web.middleware import Call

OPENAPI = resources.files("ojs_stream.web").joinpath("openapi.yaml").read_bytes()
"""Read once, at the import: it is a part of the package."""
MEDIA_TYPE = "application/yaml"


async def openapi(call: Call) -> web.Response:
    """GET /ojs/openapi.yaml -> the OpenAPI 3.1 document of this server."""
    headers = {"Content-Type": MEDIA_TYPE, "X-Request-Id": call.request_id, "OJS-Version": OJS_VERSION}
    return web.Response(body=OPENAPI, headers=headers)
