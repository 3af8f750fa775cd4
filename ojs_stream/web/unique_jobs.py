"""Which unique jobs hold which fingerprints (the admin UI's page ``/unique-jobs``)."""

from __future__ import annotations

from typing import Any

from ojs_stream.core.times import iso
from ojs_stream.store.lock_reads import HeldLock
from ojs_stream.web.answer import Answer
from ojs_stream.web.middleware import Call
from ojs_stream.web.paging import pagination_of
from ojs_stream.web.requests import page_of


async def list_locks(call: Call) -> Answer:
    """GET /unique-jobs?limit&cursor -> ``{items: [{key, job_id, type, queue, state, locked_until}], total}``."""
    page = page_of(call.request)
    found = await call.ctx.queries.locks.page(page)
    items = [_item(each) for each in found.held]
    pagination = pagination_of(found.total, page, found.next_cursor)
    return call.json({"items": items, "total": found.total, "pagination": pagination})


def _item(held: HeldLock) -> dict[str, Any]:
    holder, job = held.holder, held.job.job
    return {
        "key": held.key,
        "job_id": holder.job,
        "type": job.type,
        "queue": job.queue,
        "state": job.state,
        "locked_until": iso(holder.created + holder.period_ms) if holder.period_ms else None,
    }
