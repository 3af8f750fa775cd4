"""What a view may use: the gateway for commands, checked reads, and a few switches. Built in ``main.py``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from ojs_stream.core.commands import Command
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import Retention
from ojs_stream.store.queries import Queries
from ojs_stream.telemetry.facts import WorkerFacts
from ojs_stream.telemetry.meters import WebMeter
from ojs_stream.web.hub import Hub


class Gateway(Protocol):
    """Hands a command to its home and waits until it is applied."""

    async def submit(
        self, home: int, command: Command, *, late: Callable[[Outcome], None] | None = None
    ) -> Outcome:
        """The outcome; ``UnavailableError`` after the request deadline or when Kafka is known to be down.

        ``late`` hears of an outcome that becomes known after that deadline. The gateway fills in ``submit``. When
        the outcome has ``awaits``, it has waited for those homes (<= 1 s).
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what a client may send, each with its unit last (DESIGN.md section 13)."""

    body_bytes_max: int = 4 * 1024 * 1024
    batch_jobs_max: int = 1_000
    json_depth_max: int = 64
    envelope_bytes_max: int = 1024 * 1024 + 64 * 1024
    meta_bytes_max: int = 65_536
    result_bytes_max: int = 1024 * 1024
    fetch_jobs_max: int = 100
    wait_ms_max: int = 20_000


@dataclass(slots=True, kw_only=True)
class Context:
    """One per worker process; views get it from ``request.app[CONTEXT]``."""

    gateway: Gateway
    queries: Queries
    hub: Hub
    homes: int
    namespace: str
    retention: Retention
    limits: Limits = field(default_factory=Limits)
    test_mode: bool = False
    started_ms: int = 0
    ready: Callable[[], dict[str, Any]]
    """``{"ready": bool, "partitions": [...], "reason": str | None}``: this worker's partitions."""
    backend_ms: Callable[[], Any]
    """Awaitable: milliseconds of a round trip to Redis; ``UnavailableError`` when Redis or Kafka is down."""
    hint: Callable[[str], bool]
    """Whether this worker's own homes know of claimable work in a queue; if not, the store must be looked at."""
    meter: WebMeter = field(default_factory=WebMeter)
    facts: Callable[[], Awaitable[WorkerFacts]]
    """What the metrics page shows."""
    wait_for_work: Callable[[tuple[str, ...], float], Any]
    """Awaitable(queues, seconds): returns early when one of the queues may have got work."""


CONTEXT = web.AppKey("ojs_stream.context", Context)
