"""Views of maintenance: while it lasts nothing starts, and what clients send is accepted (OJS.md 2.7)."""

from __future__ import annotations

from typing import Any

from ojs_stream.core.commands import Maintain
from ojs_stream.core.maintenance_body import parse_maintenance
from ojs_stream.core.names import MAINTENANCE
from ojs_stream.core.times import iso
from ojs_stream.web.answer import Answer
from ojs_stream.web.middleware import Call


async def get(call: Call) -> Answer:
    """GET /admin/system/maintenance, /admin/maintenance -> ``{enabled, reason, started_at, ends_at}``."""
    known = await call.ctx.queries.maintenance()
    if known is None:
        return call.json(_shown(0, "", 0))
    return call.json(_shown(known.since, known.reason, known.ends))


async def change(call: Call) -> Answer:
    """POST /admin/system/maintenance ``{enabled, reason?, duration? or estimated_duration?}`` -> as ``get``."""
    asked = parse_maintenance(await call.body())
    command = Maintain(enabled=asked.enabled, reason=asked.reason, length_ms=asked.length_ms, **call.base)
    told = (await call.submit(call.site.home_of(MAINTENANCE), command)).data
    return call.json(_shown(int(told["since"]), asked.reason, int(told["ends"])))


def _shown(since: int, reason: str, ends: int) -> dict[str, Any]:
    """The names of the specification, of the CLI and of the admin UI."""
    began, end = iso(since) if since else None, iso(ends) if since and ends else None
    return {
        "enabled": bool(since),
        "maintenance": bool(since),
        "reason": reason or None if since else None,
        "started_at": began,
        "enabled_at": began,
        "ends_at": end,
        "estimated_end": end,
    }
