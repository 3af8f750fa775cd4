"""The answer of a view: its head is formatted and written in one piece with its body."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import ClientConnectionResetError, HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time

from ojs_stream import __version__

MEDIA_TYPE = "application/openjobspec+json"
MEDIA_TYPE_SDK = 'application/openjobspec+json; profile="application/json"'
"""For clients that send ``OJS-Version``: the SDKs look for ``application/json`` in it (CLIENTS.md trap 1)."""
OJS_VERSION = "1.0"

COMMON_HEADERS = {
    "OJS-Version": OJS_VERSION,
    "X-OJS-Version": __version__,
    "X-Content-Type-Options": "nosniff",
    "Server": f"ojs-stream/{__version__}",
}
_PLAIN = {"Content-Type": MEDIA_TYPE, **COMMON_HEADERS}
_SDK = {"Content-Type": MEDIA_TYPE_SDK, **COMMON_HEADERS}


def _lines(headers: Mapping[str, str]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_PLAIN_LINES = _lines(_PLAIN)
_SDK_LINES = _lines(_SDK)


class Answer(web.StreamResponse):
    """A whole answer whose head is formatted and written in one piece.

    aiohttp's own response takes 10 us more for each request (docs/adr/0007). It still serves what is rare:
    HEAD, HTTP/1.0 and connections that are to be closed.
    """

    def __init__(
        self, body: bytes, headers: dict[str, str], *, sdk: bool, status: int, media_type: str = ""
    ) -> None:
        # The base class would make what only its own way of answering needs.
        self._status = status
        self._content = body
        self._fields = headers
        self._sdk = sdk
        self._media_type = media_type
        self._usual: web.Response | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write everything, or let aiohttp begin."""
        if self._keep_alive is False or request.method == "HEAD" or request.version != HttpVersion11:
            return await self._begin_usual(request)
        if not request.keep_alive:
            return await self._begin_usual(request)
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("the client has closed its connection")
        transport.write(self._head() + self._content)
        self._keep_alive = True
        self._eof_sent = True
        return None

    def _head(self) -> bytes:
        lines = _SDK_LINES if self._sdk else _PLAIN_LINES
        if self._media_type:
            lines = _lines({**_PLAIN, "Content-Type": self._media_type})
        more = "".join([f"{name}: {value}\r\n" for name, value in self._fields.items()])
        return (
            f"{_STATUS_LINES[self._status]}{lines}{more}"
            f"Content-Length: {len(self._content)}\r\nDate: {rfc822_formatted_time()}\r\n\r\n"
        ).encode("latin-1")

    async def _begin_usual(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        headers = {**(_SDK if self._sdk else _PLAIN), **self._fields}
        if self._media_type:
            headers["Content-Type"] = self._media_type
        self._usual = web.Response(body=self._content, status=self._status, headers=headers)
        if self._keep_alive is False:
            self._usual.force_close()
        writer = await self._usual.prepare(request)
        self._keep_alive = self._usual.keep_alive
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Let aiohttp end what it has begun."""
        if self._usual is not None:
            await self._usual.write_eof(data)
