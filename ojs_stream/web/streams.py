"""Views that stream server-sent events: events by job, queue or all, the progress of a job, statistics."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import msgspec
import structlog
from aiohttp import web

from ojs_stream import stamp
from ojs_stream.core.envelope import bad_field
from ojs_stream.core.names import check_queue, is_job_id
from ojs_stream.core.records import JobRecord
from ojs_stream.core.states import TERMINAL
from ojs_stream.core.times import iso
from ojs_stream.errors import OjsError
from ojs_stream.store.event_reads import EventFilter, EventPage
from ojs_stream.web import progress, statistics
from ojs_stream.web.addressing import find_job
from ojs_stream.web.answer import COMMON_HEADERS
from ojs_stream.web.hub import ALL, Frame, Subscription, frame_of, notice, sse
from ojs_stream.web.middleware import Call
from ojs_stream.web.problems import not_found
from ojs_stream.web.requests import words_of

HEARTBEAT_S = 10.0
"""A silent stream says so often that it lives."""
STATS_S = 5.0
RECONNECT = b"retry: 3000\n\n"
HEARTBEAT = b":heartbeat\n\n"
GRACE_MS = 10_000
"""What the last event of a stopping worker says: so long it still answers requests."""
REPLAY_LIMIT = 1_000
"""Events of one read of a replay."""
REPLAY_PAGES_MAX = 100
HEADERS = {
    **COMMON_HEADERS,
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}

Chunks = AsyncGenerator[bytes]
log = structlog.get_logger(__name__)


# -- events ---------------------------------------------------------------------------------------------------


async def events(call: Call) -> web.StreamResponse:
    """GET /events/stream?channel=job:<id>|queue:<name>|all&types&queue: events as they happen."""
    channel = call.request.query.get("channel") or ALL
    kind, _, name = channel.partition(":")
    if channel != ALL and (kind not in ("job", "queue") or not name):
        raise bad_field("channel", "must be job:<id>, queue:<name> or all")
    if kind == "job":
        return await _job_events(call, name)
    if kind == "queue":
        check_queue(name)
    return await _stream(call, channel)


async def of_job(call: Call) -> web.StreamResponse:
    """GET /jobs/{id}/events: those of one job, until it has ended."""
    return await _job_events(call, call.path("id"))


async def of_queue(call: Call) -> web.StreamResponse:
    """GET /queues/{name}/events: those of one queue; 404 for a queue that was never seen."""
    name = check_queue(call.path("name"))
    if await call.ctx.queries.queues.record(name) is None:
        raise not_found("queue", name)
    return await _stream(call, f"queue:{name}")


async def _job_events(call: Call, job_id: str) -> web.StreamResponse:
    await _find(call, job_id)
    return await _stream(call, f"job:{job_id}")


async def _find(call: Call, job_id: str) -> JobRecord:
    if not is_job_id(job_id):
        raise not_found("job", job_id)
    _, record = await find_job(call, job_id)
    return record


async def _stream(call: Call, channel: str) -> web.StreamResponse:
    types = words_of(call.request, "types", "type", "event_types")
    queues = words_of(call.request, "queues", "queue")
    subscription = Subscription(channel, types=types, queues=queues)
    if channel.startswith("queue:"):
        queues |= {channel.removeprefix("queue:")}
    subject = channel.removeprefix("job:") if channel.startswith("job:") else ""
    wanted = EventFilter(types=types, queues=queues, subject=subject, limit=REPLAY_LIMIT)
    return await _respond(call, subscription, _events(call, subscription, wanted))


async def _events(call: Call, subscription: Subscription, wanted: EventFilter) -> Chunks:
    passed: tuple[int, ...] = ()
    last_id = call.request.headers.get("Last-Event-ID", "")
    if last_id:
        async for page in _replay(call, last_id, wanted):
            passed = page.passed
            yield _replayed(page, last_id)
    if wanted.subject:
        record = await _find(call, wanted.subject)
        if record.job.state in TERMINAL:
            yield _ended(record)
            return
    async for chunk in _live(subscription, passed, one_job=bool(wanted.subject)):
        yield chunk


async def _live(subscription: Subscription, passed: tuple[int, ...], *, one_job: bool) -> Chunks:
    """What happens from now on; ``passed``: per home, what a replay has told already."""
    while not subscription.closing:
        await subscription.wait(HEARTBEAT_S)
        frames, dropped, gap = subscription.take()
        yield _told(frames, dropped, gap=gap, passed=passed)
        if one_job and any(frame.type in _ENDS for frame in frames):
            return


GAP = "Events between the last one you had and the next one may be missing: read what you need anew."
DROPPED = "This connection was too slow: the oldest events that waited for it were dropped."
_ENDS = frozenset(("job.completed", "job.cancelled", "job.discarded", "job.expired"))


def _replayed(page: EventPage, last_id: str) -> bytes:
    notices = [notice("system.gap", last_event_id=last_id[:64], message=GAP)] if page.gap else []
    return b"".join([*notices, *(frame_of(0, 0, bytes(data)).data for data in page.events)])


def _told(frames: list[Frame], dropped: int, *, gap: bool, passed: tuple[int, ...]) -> bytes:
    """What goes out in one piece: notices, then the events that a replay has not told already."""
    parts = [notice("system.gap", message=GAP)] if gap else []
    if dropped:
        parts.append(notice("system.events_dropped", dropped=dropped, message=DROPPED))
    parts += [frame.data for frame in frames if not passed or frame.number > passed[frame.home]]
    return b"".join(parts) or HEARTBEAT


def _ended(record: JobRecord) -> bytes:
    job = record.job
    return notice(
        "job.state_changed",
        job_id=job.id,
        queue=job.queue,
        type=job.type,
        to=job.state,
        timestamp=iso(stamp.now_ms()),
    )


async def _replay(call: Call, last_id: str, wanted: EventFilter) -> AsyncGenerator[EventPage]:
    """What the rings keep after an event, in pages, up to now."""
    after = last_id if last_id.startswith("evt_") else f"evt_?{last_id}"
    for _ in range(REPLAY_PAGES_MAX):
        async with call.ctx.hub.replaying:
            page = await call.ctx.queries.events.page(replace(wanted, after=after))
        yield page
        if not page.has_more:
            return
        after = page.cursor


# -- progress and statistics ----------------------------------------------------------------------------------


async def of_progress(call: Call) -> web.StreamResponse:
    """GET /jobs/{id}/progress/stream: what GET /jobs/{id}/progress says, at each change, until the job ends."""
    job_id = call.path("id")
    await _find(call, job_id)
    subscription = Subscription(f"job:{job_id}")
    return await _respond(call, subscription, _progress(call, subscription, job_id))


async def _progress(call: Call, subscription: Subscription, job_id: str) -> Chunks:
    said = b""
    while not subscription.closing:
        record = await _find(call, job_id)
        told = msgspec.json.encode(progress.progress_of(record))
        yield HEARTBEAT if told == said else sse("", told)
        if record.job.state in TERMINAL:
            return
        said = told
        await subscription.wait(HEARTBEAT_S)
        subscription.take()


async def of_stats(call: Call) -> web.StreamResponse:
    """GET /admin/stats/stream: what GET /admin/stats says, every 5 s."""
    subscription = Subscription("")
    return await _respond(call, subscription, _stats(call, subscription))


async def _stats(call: Call, subscription: Subscription) -> Chunks:
    while not subscription.closing:
        yield sse("", msgspec.json.encode(await statistics.stats_of(call)))
        await subscription.wait(STATS_S)
        subscription.take()


# -- the way out ----------------------------------------------------------------------------------------------


async def _respond(call: Call, subscription: Subscription, chunks: Chunks) -> web.StreamResponse:
    response = web.StreamResponse(headers={**HEADERS, "X-Request-Id": call.request_id})
    if call.request.method == "HEAD":
        await response.prepare(call.request)
        return response
    await call.ctx.hub.join(subscription)
    try:
        await _write(call, response, subscription, chunks)
    except ConnectionError:
        # The client has gone: there is nobody to tell.
        return response
    finally:
        await call.ctx.hub.leave(subscription)
    return response


async def _write(call: Call, response: web.StreamResponse, subscription: Subscription, chunks: Chunks) -> None:
    await response.prepare(call.request)
    await response.write(RECONNECT)
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                await response.write(chunk)
    except OjsError as error:
        # The head is out: all that is left is to end. The client comes again and is told then what is the matter.
        log.info("a stream ends early", request=call.request_id, reason=str(error))
    if subscription.closing:
        reason = "This worker is shutting down: connect again."
        await response.write(notice("server.shutdown", reason=reason, grace_period_ms=GRACE_MS))
    await response.write_eof()
