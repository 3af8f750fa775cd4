"""GET /metrics: this worker for Prometheus. Each worker is a target of its own; sums over them are true."""

from __future__ import annotations

import asyncio

from ojs_stream.telemetry.exposition import CONTENT_TYPE, render
from ojs_stream.web.answer import Answer
from ojs_stream.web.middleware import Call


async def show(call: Call) -> Answer:
    """GET /metrics -> 200 in Prometheus' text format, also while Kafka or Redis is down."""
    facts = await call.ctx.facts()
    # It takes milliseconds, which the event loop has not.
    page = await asyncio.to_thread(render, facts)
    return Answer(page, {"X-Request-Id": call.request_id}, sdk=False, status=200, media_type=CONTENT_TYPE)
