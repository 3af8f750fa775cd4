"""Limits (OJS.md 5.5): what clients and operators may say of them, and how much of one is left. Pure.

A window is fixed: it opens with its first start and is over ``period_ms`` later. A slot that was granted and not
used yet counts as used, so that no window can ever hold more starts than it allows.
"""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

from ojs_stream.core.envelope import bad_field, load_object
from ojs_stream.core.homes import home_of
from ojs_stream.core.records import LimitRecord, LimitRule, Override, QueueLimit, QueueRecord, Window
from ojs_stream.core.times import DURATION_MS_MAX, parse_duration, parse_timestamp

KEY_BYTES_MAX = 255
SLOTS_MAX = 1_000_000
"""The highest bound that a limit may have."""
QUEUE_KEY = "queue:"
"""The key ``queue:<name>`` lives where the queue lives."""
_KEY = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:-]*")
_PERIODS_MS = {"second": 1_000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
_ON_LIMIT = ("wait", "reschedule", "drop")

Values = dict[str, Any]


class Bounds(NamedTuple):
    """What a limit allows; ``None``: not limited in that way."""

    concurrency: int | None = None
    rate: Window | None = None
    throttle: Window | None = None


def limit_home(key: str, homes: int) -> int:
    """The home of a limit: that of its queue, if the key names one."""
    if key.startswith(QUEUE_KEY):
        return home_of(key[len(QUEUE_KEY) :], homes)
    return home_of(f"limit:{key}", homes)


# -- what is said of a limit ----------------------------------------------------------------------------------


def parse_rule(given: Values, *, queue: str, homes: int) -> LimitRule:
    """``rate_limit`` of a job, in any of its forms. Without a key ``max_per_second`` is for the job's queue."""
    bounds = _bounds(given, "rate_limit.")
    key = given.get("key")
    if key is None and given.get("max_per_second") is not None:
        key = QUEUE_KEY + queue
    if key is None:
        raise bad_field("rate_limit.key", "is required, except with max_per_second")
    on_limit: Literal["wait", "reschedule", "drop"] = given.get("on_limit") or "wait"
    if on_limit not in _ON_LIMIT:
        raise bad_field("rate_limit.on_limit", f"must be one of {', '.join(_ON_LIMIT)}")
    key = check_key(key, "rate_limit.key")
    return LimitRule(key=key, home=limit_home(key, homes), on_limit=on_limit, **bounds._asdict())


def parse_override(body: bytes) -> Override:
    """``{concurrency?, rate?, throttle?, expires_at?}``: at least one bound; the others stay as they are."""
    given, _ = load_object(body)
    bounds = _bounds(given, "")
    if bounds == Bounds():
        raise bad_field("concurrency", "is required, or rate, or throttle: an override changes at least one bound")
    return Override(until=_instant(given.get("expires_at"), "expires_at"), **bounds._asdict())


def parse_queue_limit(body: bytes) -> QueueLimit:
    """``{concurrency?, rate: {limit, period}}`` or ``{limit, period}``: the limit on all jobs of a queue."""
    bounds = _bounds(load_object(body)[0], "")
    if bounds.throttle is not None:
        raise bad_field("throttle", "is not for whole queues: give the jobs a key, or use rate")
    if bounds.concurrency == 0 or (bounds.rate is not None and bounds.rate.limit == 0):
        raise bad_field("limit", "must be at least 1: pause the queue, if nothing shall start")
    return QueueLimit(concurrency=bounds.concurrency, rate=bounds.rate)


def check_key(value: Any, name: str = "key") -> str:
    """The name of a limit."""
    if type(value) is not str or not _KEY.fullmatch(value):
        raise bad_field(
            name, "must start with a letter or digit and go on with letters, digits, '.', '_', ':' or '-'"
        )
    if len(value) > KEY_BYTES_MAX:
        raise bad_field(name, f"must be at most {KEY_BYTES_MAX} bytes")
    return value


def parse_until(value: Any, name: str) -> int:
    """The instant of ``rate_limit_until``; 0 if there is none."""
    return _instant(value, name)


def _bounds(given: Values, prefix: str) -> Bounds:
    concurrency = given.get("concurrency")
    if concurrency is not None:
        concurrency = _whole(concurrency, f"{prefix}concurrency", low=0)
    throttle = given.get("throttle")
    return Bounds(
        concurrency,
        _rate(given, prefix),
        None if throttle is None else _window(throttle, f"{prefix}throttle", low=1),
    )


def _rate(given: Values, prefix: str) -> Window | None:
    """``rate: {limit, period}``, ``rate: 1, period: "second"``, ``limit: 1, period``, ``max_per_second: 1``."""
    per_second, rate = given.get("max_per_second"), given.get("rate")
    if per_second is not None:
        return Window(_whole(per_second, f"{prefix}max_per_second", low=1), _PERIODS_MS["second"])
    if type(rate) is dict:
        return _window(rate, f"{prefix}rate", low=0)
    for name in ("rate", "limit"):
        if given.get(name) is not None:
            return Window(
                _whole(given[name], prefix + name, low=0), _period(given.get("period"), f"{prefix}period")
            )
    return None


def _window(given: Any, name: str, *, low: int) -> Window:
    if type(given) is not dict:
        raise bad_field(name, "must be an object with limit and period")
    return Window(
        _whole(given.get("limit"), f"{name}.limit", low=low), _period(given.get("period"), f"{name}.period")
    )


def _whole(value: Any, name: str, *, low: int) -> int:
    if type(value) is not int or not low <= value <= SLOTS_MAX:
        raise bad_field(name, f"must be an integer from {low} to {SLOTS_MAX}")
    return value


def _period(value: Any, name: str) -> int:
    if type(value) is not str:
        raise bad_field(name, "must be an ISO 8601 duration such as PT1M, or second, minute, hour or day")
    if value in _PERIODS_MS:
        return _PERIODS_MS[value]
    try:
        period_ms = parse_duration(value)
    except ValueError as error:
        raise bad_field(name, str(error)) from None
    if not 0 < period_ms <= DURATION_MS_MAX:
        raise bad_field(name, "must be longer than nothing")
    return period_ms


def _instant(value: Any, name: str) -> int:
    if value is None:
        return 0
    if type(value) is not str:
        raise bad_field(name, "must be a string with an RFC 3339 timestamp")
    try:
        return max(1, parse_timestamp(value))
    except (ValueError, OverflowError) as error:
        raise bad_field(name, str(error)) from None


# -- how much of it is left -----------------------------------------------------------------------------------


def in_force(limit: LimitRecord, now: int) -> Bounds:
    """The rule, or what an operator has put in its place."""
    override = limit.override
    if override is None or (override.until and override.until <= now):
        return Bounds(limit.concurrency, limit.rate, limit.throttle)
    return Bounds(
        limit.concurrency if override.concurrency is None else override.concurrency,
        override.rate or limit.rate,
        override.throttle or limit.throttle,
    )


def window_end(window: int, rate: Window) -> int:
    """When a window that began at ``window`` is over; 0: none is open."""
    return window + rate.period_ms if window else 0


def starts_now(limit: LimitRecord | QueueRecord, rate: Window, now: int) -> int:
    """How many jobs have been started in the window that is open."""
    return limit.starts if now < window_end(limit.window, rate) else 0


def started(limit: LimitRecord | QueueRecord, rate: Window, at: int, now: int, count: int = 1) -> dict[str, int]:
    """The fields ``window`` and ``starts`` after ``count`` starts at ``at``, of which is heard ``now``.

    A start that is heard of when its window is over counts in the next one, which begins where that one ended.
    """
    end = window_end(limit.window, rate)
    if now < end:
        return {"starts": limit.starts + count}
    return {"window": max(at, end), "starts": count}


def spacing_ms(throttle: Window) -> int:
    """The time between two starts, rounded up."""
    return -(-throttle.period_ms // throttle.limit)


def room(limit: LimitRecord, now: int) -> int:
    """So many slots may be granted now."""
    if now < limit.paused_until:
        return 0
    bounds = in_force(limit, now)
    free = SLOTS_MAX
    if bounds.concurrency is not None:
        free = bounds.concurrency - limit.granted - limit.active
    if bounds.rate is not None:
        free = min(free, bounds.rate.limit - starts_now(limit, bounds.rate, now) - limit.granted)
    if bounds.throttle is not None:
        free = min(free, int(not limit.granted and now >= limit.next_at))
    return max(0, free)


def opens_at(limit: LimitRecord, now: int) -> int:
    """When time alone may allow a start; 0: it does not."""
    bounds = in_force(limit, now)
    blocks = [limit.paused_until]
    if bounds.rate is not None and starts_now(limit, bounds.rate, now) + limit.granted >= bounds.rate.limit:
        blocks.append(window_end(limit.window, bounds.rate))
    if bounds.throttle is not None and not limit.granted:
        blocks.append(limit.next_at)
    opens = max(blocks)
    ends = [at for at in (opens, override_end(limit)) if at > now]
    return min(ends, default=0)


def override_end(limit: LimitRecord) -> int:
    """When the override ends; 0: there is none, or it stays."""
    return limit.override.until if limit.override is not None else 0


class Block(NamedTuple):
    """What holds a job back."""

    strategy: str
    limit: int
    current: int


def block_of(limit: LimitRecord, now: int) -> Block:
    """Which of the bounds leaves no room."""
    bounds = in_force(limit, now)
    used = limit.granted + limit.active
    if now < limit.paused_until:
        return Block("paused", 0, used)
    if bounds.concurrency is not None and used >= bounds.concurrency:
        return Block("concurrency", bounds.concurrency, used)
    if bounds.rate is not None and bounds.throttle is None:
        return Block("rate", bounds.rate.limit, starts_now(limit, bounds.rate, now) + limit.granted)
    return Block("throttle", bounds.throttle.limit if bounds.throttle else 0, limit.granted)


def queue_room(queue: QueueRecord, active: int, now: int) -> int:
    """So many jobs of the queue may be started now, as its own limit says."""
    limit = queue.limit
    if limit is None:
        return SLOTS_MAX
    free = SLOTS_MAX if limit.concurrency is None else limit.concurrency - active
    if limit.rate is not None:
        free = min(free, limit.rate.limit - starts_now(queue, limit.rate, now))
    return max(0, free)
