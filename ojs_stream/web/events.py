"""GET /events: what happened, oldest first, in pages (OJS.md 6.1)."""

from __future__ import annotations

from aiohttp import web

from ojs_stream.core.times import iso
from ojs_stream.store.event_reads import EventFilter
from ojs_stream.web import streams
from ojs_stream.web.middleware import Call
from ojs_stream.web.requests import instant_of, whole_of, words_of
from ojs_stream.web.responses import page_body

LIMIT = 100
LIMIT_MAX = 1_000


async def list_events(call: Call) -> web.StreamResponse:
    """GET /events?after&types&queues&job_types&since&limit -> ``{events, cursor, has_more}``.

    Who accepts ``text/event-stream`` gets the stream.
    """
    if "text/event-stream" in call.request.headers.get("Accept", ""):
        return await streams.events(call)
    query = call.request.query
    since_ms = instant_of(call.request, "since")
    wanted = EventFilter(
        types=words_of(call.request, "types", "type"),
        queues=words_of(call.request, "queues", "queue"),
        job_types=words_of(call.request, "job_types", "job_type"),
        subject=query.get("subject") or query.get("job_id") or "",
        since="" if since_ms is None else iso(since_ms),
        after=query.get("after") or query.get("cursor") or "",
        limit=whole_of(call.request, "limit", LIMIT, low=1, high=LIMIT_MAX),
    )
    page = await call.ctx.queries.events.page(wanted)
    raws = [bytes(raw) for raw in page.events]
    return call.answer(page_body("events", raws, {"cursor": page.cursor, "has_more": page.has_more}))
