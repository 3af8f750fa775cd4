"""A server as the command line asks it: over HTTP, with one sentence and an exit code for what goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson
import uvloop
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout
from rich.console import Console
from yarl import URL

from ojs_stream.web.responses import API

FAILED = 1
"""Exit code: the server refuses what is asked, or does not have it."""
UNREACHABLE = 3
"""Exit code: the server does not answer, or cannot answer now (5xx)."""
REQUEST_S = 30.0
"""A request may take so long: purging a long queue is one."""


class AskedInVainError(Exception):
    """The server did not do what it was asked; ``code`` is the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: parts of the path are escaped, queries without a value are left out."""

    method: str
    path: tuple[str, ...]
    query: Mapping[str, str | int | None] | None = None
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is, and the key it is asked with."""

    url: str
    key: str | None = None

    def answer(self, ask: Ask) -> dict[str, Any]:
        """The body of the answer; ``AskedInVainError`` when there is none."""
        try:
            return uvloop.run(self._answer(ask))
        except (ClientError, OSError, TimeoutError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise AskedInVainError(
                f"The server at {self.url} does not answer ({reason}): start it, or set --url or OJS_URL.",
                UNREACHABLE,
            ) from error

    async def _answer(self, ask: Ask) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        query = {name: value for name, value in (ask.query or {}).items() if value is not None}
        path = "/".join(quote(part, safe="") for part in ask.path)
        url = URL(f"{self.url.rstrip('/')}{API}/{path}", encoded=True).with_query(query)
        async with (
            ClientSession(timeout=ClientTimeout(total=REQUEST_S), headers=headers) as session,
            session.request(ask.method, url, json=ask.body) as response,
        ):
            return _checked(response, await response.read())


def _checked(response: ClientResponse, raw: bytes) -> dict[str, Any]:
    body = _decoded(raw)
    if response.ok and body is not None:
        return body
    said = (body or {}).get("error")
    message = said.get("message") if isinstance(said, dict) else None
    code = UNREACHABLE if response.status >= 500 else FAILED
    raise AskedInVainError(f"{message or 'This is no answer of an OJS server.'} (HTTP {response.status})", code)


def _decoded(raw: bytes) -> dict[str, Any] | None:
    try:
        body = orjson.loads(raw or b"{}")
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


def complain(error: AskedInVainError) -> int:
    """Say in red what went wrong; the exit code."""
    Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
    return error.code
