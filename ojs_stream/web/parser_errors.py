"""Below the routes: bytes that are no HTTP request get the error envelope too, and connections have a limit.

aiohttp answers them as plain text in its ``RequestHandler``, before any application code runs. The class it
makes for each connection is named in one place, ``aiohttp.web_server``; ``install`` puts ours there.
"""

from __future__ import annotations

import asyncio
import logging
from typing import ClassVar

from aiohttp import web, web_protocol, web_server

from ojs_stream.errors import UnavailableError
from ojs_stream.web.answer import MEDIA_TYPE, OJS_VERSION
from ojs_stream.web.problems import parser_problem, problem_of
from ojs_stream.web.requests import new_request_id, request_id_of
from ojs_stream.web.responses import respond_problem

log = logging.getLogger(__name__)


class EnvelopeRequestHandler(web_protocol.RequestHandler):
    """aiohttp's connection handler, with our error envelope for what its parser refuses."""

    __slots__ = ()
    open_now: ClassVar[int] = 0
    open_max: ClassVar[int] = 20_000

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """One more client; beyond the limit it is told so and let go."""
        super().connection_made(transport)
        EnvelopeRequestHandler.open_now += 1
        if EnvelopeRequestHandler.open_now > self.open_max and isinstance(transport, asyncio.WriteTransport):
            transport.write(_too_many(self.open_max))
            transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """A client went away."""
        EnvelopeRequestHandler.open_now -= 1
        super().connection_lost(exc)

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


def _too_many(bound: int) -> bytes:
    error = UnavailableError(f"This worker has {bound} connections open, which is its limit.")
    problem = problem_of(error, new_request_id())
    head = (
        f"HTTP/1.1 {problem.status} Service Unavailable\r\nContent-Type: {MEDIA_TYPE}\r\n"
        f"OJS-Version: {OJS_VERSION}\r\nRetry-After: {error.retry_after_s}\r\n"
        f"Content-Length: {len(problem.body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + problem.body


def install(*, connections_max: int) -> None:
    """Let every aiohttp server of this process use our handler. Call it before the server starts."""
    EnvelopeRequestHandler.open_max = connections_max
    setattr(web_server, "RequestHandler", EnvelopeRequestHandler)  # noqa: B010 - mypy: a class name is no variable
