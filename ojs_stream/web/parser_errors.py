"""Errors below the routes: bytes that are no HTTP request get the error envelope too.

aiohttp answers them as plain text in its ``RequestHandler``, before any application code runs. The class it
makes for each connection is named in one place, ``aiohttp.web_server``; ``install`` puts ours there.
"""

from __future__ import annotations

import logging

from aiohttp import web, web_protocol, web_server

from ojs_stream.web.problems import parser_problem
from ojs_stream.web.requests import request_id_of
from ojs_stream.web.responses import respond_problem

log = logging.getLogger(__name__)


class EnvelopeRequestHandler(web_protocol.RequestHandler):
    """aiohttp's connection handler, with our error envelope for what its parser refuses."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to bytes that are not HTTP; the connection is closed, its state is unknown."""
        if request.writer.output_size > 0:
            raise ConnectionError("The answer has already begun, an error cannot be sent any more")
        request_id = request_id_of(request)
        if status >= 500:
            log.error("request %s failed below the routes", request_id, exc_info=exc)
        text = "the server failed while it handled this request" if status >= 500 else _said(exc, message)
        problem = parser_problem(status, text, request_id)
        response = respond_problem(problem, request_id, sdk="OJS-Version" in request.headers)
        response.force_close()
        return response


def _said(exc: BaseException | None, message: str | None) -> str:
    text = getattr(exc, "message", "") or message or "the bytes are not an HTTP request"
    return " ".join(str(text).split())[:300]


def install() -> None:
    """Let every aiohttp server of this process use our handler. Call it before the server starts."""
    setattr(web_server, "RequestHandler", EnvelopeRequestHandler)  # noqa: B010 - mypy: a class name is no variable
