"""One wrapper around every handler: request id, version check, and every error as an envelope.

A wrapper instead of aiohttp middlewares: it is built once per route and costs no chain of partials.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from time import perf_counter
from typing import Any

import msgspec
from aiohttp import web

from ojs_stream import stamp
from ojs_stream.core.commands import COMMAND_VERSION, Command
from ojs_stream.core.homes import home_of
from ojs_stream.core.names import is_job_id
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.validation import Rules
from ojs_stream.errors import OjsError
from ojs_stream.telemetry.meters import RouteMeter
from ojs_stream.web import requests
from ojs_stream.web.answer import Answer
from ojs_stream.web.context import Context
from ojs_stream.web.problems import problem_of, raise_if_refused
from ojs_stream.web.responses import respond, respond_problem

log = logging.getLogger(__name__)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Site:
    """What all views of a process share: rules for jobs, background work, knowledge of workers."""

    def __init__(self, context: Context) -> None:
        limits = context.limits
        self.ctx = context
        self.rules = Rules(
            retention=context.retention,
            homes=context.homes,
            json_depth_max=limits.json_depth_max,
            envelope_bytes_max=limits.envelope_bytes_max,
            meta_bytes_max=limits.meta_bytes_max,
            batch_jobs_max=limits.batch_jobs_max,
        )
        self.resting: dict[str, tuple[bool, float]] = {}
        """worker id -> (whether it must get no jobs, monotonic second of that knowledge)"""
        self._background: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something that outlives its request; the loop alone would not keep it alive."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        error = None if task.cancelled() else task.exception()
        if error and not isinstance(error, OjsError):
            log.error("background work of a view failed", exc_info=error)

    def home_of(self, name: str) -> int:
        """The home of a queue, worker or client-supplied id."""
        return home_of(name, self.ctx.homes)

    def new_job_id(self, queue: str) -> str:
        """A job id that carries the queue's home."""
        return stamp.new_job_id(home_of(queue, self.ctx.homes))


class Call:
    """One request on its way through a view."""

    __slots__ = ("ctx", "request", "request_id", "sdk", "site")

    def __init__(self, site: Site, request: web.Request, request_id: str, *, sdk: bool) -> None:
        self.site = site
        self.ctx = site.ctx
        self.request = request
        self.request_id = request_id
        self.sdk = sdk

    @property
    def actor(self) -> str:
        """Who asks. One place: without keys everybody is ``anonymous``."""
        return "anonymous"

    @property
    def base(self) -> dict[str, Any]:
        """What every command carries."""
        return {"v": COMMAND_VERSION, "actor": self.actor, "request": self.request_id}

    def path(self, name: str) -> str:
        """A part of the path."""
        return self.request.match_info[name]

    async def body(self) -> bytes:
        """The checked body, ``b""`` if there is none."""
        return await requests.read_body(self.request, self.ctx.limits.body_bytes_max)

    async def submit(self, home: int, command: Command) -> Outcome:
        """The outcome of a command; ``RefusedError`` if the fold said no."""
        return raise_if_refused(await self.ctx.gateway.submit(home, command))

    def gone(self) -> bool:
        """Whether the client has closed its connection."""
        transport = self.request.transport
        return transport is None or transport.is_closing()

    def answer(self, body: bytes, status: int = 200, **headers: str) -> Answer:
        """A JSON answer from its bytes; ``retry_after="1"`` becomes ``Retry-After: 1``."""
        more = {name if "-" in name else name.replace("_", "-").title(): value for name, value in headers.items()}
        return respond(body, self.request_id, sdk=self.sdk, status=status, headers=more)

    def json(self, value: Any, status: int = 200, **headers: str) -> Answer:
        """A JSON answer from a value; ``msgspec.Raw`` inside stays as it is."""
        return self.answer(msgspec.json.encode(value), status, **headers)


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


def log_fields(request: web.Request, request_id: str) -> dict[str, str]:
    """What a log line says of a request besides its words: for who looks for a job or a trace."""
    fields = {"request_id": request_id}
    trace = _TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))
    if trace:
        fields["trace_id"] = trace[1]
    job_id = request.match_info.get("id", "")
    if is_job_id(job_id):
        fields["job_id"] = job_id
    return fields


def guarded(
    site: Site, handler: Handler, meter: RouteMeter
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The aiohttp handler of a view."""

    async def handle(request: web.Request) -> web.StreamResponse:
        begun = perf_counter()
        answer = await answered(request)
        # A stream lasts as long as its client likes: that is no latency.
        if isinstance(answer, Answer):
            meter.answered(answer.status, perf_counter() - begun)
        return answer

    async def answered(request: web.Request) -> web.StreamResponse:
        request_id = requests.request_id_of(request)
        version = request.headers.get("OJS-Version")
        sdk = version is not None
        try:
            if version is not None:
                requests.check_version(version)
            return await handler(Call(site, request, request_id, sdk=sdk))
        except (OjsError, web.HTTPException) as error:
            return respond_problem(problem_of(error, request_id), request_id, sdk=sdk)
        except Exception as error:
            # The one place where everything is caught: the client gets an envelope, the log the traceback.
            log.exception(
                "%s %r failed, request %s",
                request.method,
                request.path,
                request_id,
                extra=log_fields(request, request_id),
            )
            return respond_problem(problem_of(error, request_id), request_id, sdk=sdk)

    return handle
