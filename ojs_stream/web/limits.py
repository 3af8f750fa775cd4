"""Views of limits: what is used of each, overrides, and the limits on whole queues."""

from __future__ import annotations

from typing import Any

from ojs_stream import stamp
from ojs_stream.core.bodies import parse_object_or_nothing
from ojs_stream.core.commands import Configure, LimitOverride
from ojs_stream.core.limits import (
    Bounds,
    check_key,
    in_force,
    limit_home,
    parse_override,
    parse_queue_limit,
    starts_now,
    window_end,
)
from ojs_stream.core.records import ConfigRecord, LimitRecord, LimitRule, Override, QueueLimit, Window
from ojs_stream.core.times import format_duration, iso
from ojs_stream.web import queues
from ojs_stream.web.answer import Answer
from ojs_stream.web.middleware import Call
from ojs_stream.web.paging import part_of
from ojs_stream.web.problems import not_found
from ojs_stream.web.requests import page_of


async def list_limits(call: Call) -> Answer:
    """GET /rate-limits -> ``{items, rate_limits, pagination}``: the specification's shape, and the CLI's."""
    keys, pagination = part_of(await call.ctx.queries.limits.keys(), page_of(call.request))
    now = stamp.now_ms()
    records = await call.ctx.queries.limits.records(keys)
    items = [shape(record, now) for record in records]
    short = [_short(record, now) for record in records]
    return call.json({"items": items, "rate_limits": short, "pagination": pagination})


async def get(call: Call) -> Answer:
    """GET /rate-limits/{key} -> ``{key, concurrency?, rate?, throttle?, waiting_count, ...}``."""
    return await _shown(call, check_key(call.path("key")))


async def override(call: Call) -> Answer:
    """PUT /rate-limits/{key} ``{concurrency?, rate?, throttle?, expires_at?}``: instead of what the jobs say."""
    return await _change(call, parse_override(await call.body()))


async def end_override(call: Call) -> Answer:
    """DELETE /rate-limits/{key}: the rule of the jobs counts again, at once."""
    parse_object_or_nothing(await call.body())
    return await _change(call, None)


async def _change(call: Call, wanted: Override | None) -> Answer:
    key = check_key(call.path("key"))
    command = LimitOverride(key=key, override=wanted, **call.base)
    await call.submit(limit_home(key, call.ctx.homes), command)
    return await _shown(call, key)


async def _shown(call: Call, key: str) -> Answer:
    record = await call.ctx.queries.limits.record(key)
    if record is None:
        raise not_found("rate_limit", key)
    return call.json(shape(record, stamp.now_ms()))


def shape(limit: LimitRecord, now: int) -> dict[str, Any]:
    """A limit as the specification has it, with the flat fields that the admin UI reads."""
    bounds = in_force(limit, now)
    shown: dict[str, Any] = {"key": limit.key}
    free = _free(limit, bounds)
    if bounds.concurrency is not None:
        shown["concurrency"] = {"limit": bounds.concurrency, "active": limit.active, "available": free}
    if bounds.rate is not None:
        shown["rate"] = _rate(limit, bounds.rate, now)
    if bounds.throttle is not None:
        shown["throttle"] = {**_window(bounds.throttle), "next_allowed_at": iso(max(limit.next_at, now))}
    if limit.paused_until > now:
        shown["paused_until"] = iso(limit.paused_until)
    first = bounds.rate or bounds.throttle
    return {
        **shown,
        "waiting_count": limit.waiting,
        "limit": first.limit if first else bounds.concurrency,
        "period": format_duration(first.period_ms) if first else None,
        "active": limit.active,
        "available": free,
        "granted": limit.granted,
        "waiting": limit.waiting,
        "override": _override(limit.override) if bounds != _rule(limit) else None,
    }


def _free(limit: LimitRecord, bounds: Bounds) -> int | None:
    """How many more jobs may run at once; ``None``: any number."""
    return None if bounds.concurrency is None else max(0, bounds.concurrency - limit.active - limit.granted)


def _rule(limit: LimitRecord) -> Bounds:
    """What the limit allows when no override counts."""
    return Bounds(limit.concurrency, limit.rate, limit.throttle)


def _rate(limit: LimitRecord, rate: Window, now: int) -> dict[str, Any]:
    end = window_end(limit.window, rate)
    return {
        **_window(rate),
        "current_count": starts_now(limit, rate, now),
        "window_resets_at": iso(end) if end > now else None,
    }


def _window(window: Window) -> dict[str, Any]:
    return {"limit": window.limit, "period": format_duration(window.period_ms)}


def _override(given: Override | None) -> dict[str, Any] | None:
    if given is None:
        return None
    return {
        "concurrency": given.concurrency,
        "rate": _window(given.rate) if given.rate else None,
        "throttle": _window(given.throttle) if given.throttle else None,
        "expires_at": iso(given.until) if given.until else None,
    }


def _short(limit: LimitRecord, now: int) -> dict[str, Any]:
    bounds = in_force(limit, now)
    return {
        "key": limit.key,
        "concurrency": bounds.concurrency,
        "active": limit.active,
        "available": _free(limit, bounds),
        "waiting": limit.waiting,
    }


def limit_header(rule: LimitRule | None) -> dict[str, str]:
    """``X-RateLimit-Limit`` of an enqueue: the first number of the rule that its job is under."""
    if rule is None:
        return {}
    window = rule.rate or rule.throttle
    bound = window.limit if window is not None else rule.concurrency
    return {} if bound is None else {"x_ratelimit_limit": str(bound)}


# ------------------------------------------------------------------ whole queues


async def limit_queue(call: Call) -> Answer:
    """PUT /admin/queues/{name}/rate-limit ``{limit, period}`` or ``{concurrency?, rate?}``: for all its jobs."""
    return await _limit(call, parse_queue_limit(await call.body()))


async def unlimit_queue(call: Call) -> Answer:
    """DELETE /admin/queues/{name}/rate-limit."""
    parse_object_or_nothing(await call.body())
    return await _limit(call, QueueLimit())


async def _limit(call: Call, limit: QueueLimit) -> Answer:
    """It is a part of the queue's configuration."""
    name = queues.name_of(call)
    config = ConfigRecord(name=name, concurrency=limit.concurrency or 0, rate_limit=limit.rate)
    command = Configure(queue=name, config=config, names=("concurrency", "rate_limit"), **call.base)
    await call.submit(call.site.home_of(name), command)
    rate = _window(limit.rate) if limit.rate is not None else None
    return call.json(
        {"queue": name, "name": name, "concurrency": limit.concurrency, "rate": rate, "rate_limit": rate}
    )
