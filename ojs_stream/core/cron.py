"""Cron entries as clients write them (OJS.md 5.2): bytes in, a checked entry or a ``RefusedError`` out.

Both forms of the request are read: ``expression`` with a ``job_template``, and ``cron`` (or ``schedule``) with the
job's fields beside it. When an entry fires is not computed here: time zones are data of the machine.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import Any

from cronsim import CronSim, CronSimError
from msgspec import Raw, Struct

from ojs_stream.core.commands import NewJob
from ojs_stream.core.envelope import (
    Raws,
    Values,
    bad_field,
    encode_object,
    load_object,
    raw_object,
)
from ojs_stream.core.records import CronRecord, OverlapPolicy
from ojs_stream.core.times import DURATION_MS_MAX
from ojs_stream.core.validation import Rules, parse_job

NAME_CHARS_MAX = 255
EXPRESSION_CHARS_MAX = 255
DESCRIPTION_CHARS_MAX = 2_000
ZONE_CHARS_MAX = 64
EVERY_MS_MIN = 1_000
"""Entries are looked at once a second at most (ojs-cron 7.3)."""

_NAME = re.compile(r"[a-z0-9][a-z0-9.\-]*")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+\-]*(?:/[A-Za-z0-9_+\-]+)*")
_ABBREVIATION = re.compile(r"[A-Z0-9+\-]+")
_PLAIN_ZONES = ("UTC", "GMT")
_NO_ZONES = ("localtime", "Factory", "posixrules")
_EVERY = re.compile(r"@every\s+((?:\d{1,12}(?:\.\d{1,6})?(?:h|ms|m|s))+)")
_EVERY_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_EVERY_MS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_POLICIES: dict[str, OverlapPolicy] = {
    "skip": "skip",
    "allow": "allow",
    "cancel_previous": "cancel_previous",
    "cancel": "cancel_previous",
    "enqueue": "enqueue",
}
_EXPRESSIONS = ("expression", "cron", "schedule")
_OWN = frozenset(
    (
        *_EXPRESSIONS,
        "name",
        "id",
        "job_template",
        "timezone",
        "overlap_policy",
        "enabled",
        "description",
        # What the server says of an entry is ignored when it comes back (ojs-cron 2.2).
        "status",
        "last_run_at",
        "next_run_at",
        "run_count",
        "created_at",
        "updated_at",
    )
)
_ANY_MOMENT = datetime(2024, 1, 1)  # noqa: DTZ001 - an expression is checked, no instant is computed


class CronRequest(Struct, frozen=True, kw_only=True):
    """A checked registration. ``enabled`` is ``None`` when the client does not say it."""

    name: str
    expression: str
    timezone: str
    overlap: OverlapPolicy
    enabled: bool | None
    description: str | None
    job: NewJob
    template: Raw
    """The job as the client wrote it."""


class Fields(Struct, frozen=True, kw_only=True):
    """A cron expression, normalised: six fields. ``hourly``: it names every hour of the day."""

    text: str
    hourly: bool


# -- requests -------------------------------------------------------------------------------------------------


def parse_cron(body: bytes, rules: Rules) -> CronRequest:
    """A registration, in either form."""
    values, raws = load_object(body, rules.json_depth_max)
    return _request(values, _template(values, raws, {}), rules, None)


def parse_change(body: bytes, entry: CronRecord, rules: Rules) -> CronRequest:
    """The entry with the given fields changed; fields of the job replace those of its template one by one."""
    values, raws = load_object(body, rules.json_depth_max)
    return _request(values, _template(values, raws, raw_object(entry.template)), rules, entry)


def is_switch(body: bytes) -> bool | None:
    """What ``enabled`` is set to, when the body changes nothing else."""
    values, _ = load_object(body)
    return check_enabled(values["enabled"]) if values.keys() == {"enabled"} else None


def _request(values: Values, template: Raws, rules: Rules, entry: CronRecord | None) -> CronRequest:
    name = check_name(values.get("name")) if entry is None else entry.name
    expression = _given(values, _EXPRESSIONS)
    zone, policy = values.get("timezone"), values.get("overlap_policy")
    raw = encode_object(template)
    return CronRequest(
        name=name,
        expression=check_expression(expression) if expression is not None or entry is None else entry.expression,
        timezone=check_zone(zone) if zone is not None else (entry.timezone if entry else "UTC"),
        overlap=_policy(policy) if policy is not None else (entry.overlap if entry else "skip"),
        enabled=None if values.get("enabled") is None else check_enabled(values["enabled"]),
        description=_description(values, entry),
        job=_job(raw, rules),
        template=raw,
    )


def _given(values: Values, names: tuple[str, ...]) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)


def _template(values: Values, raws: Raws, before: Raws) -> Raws:
    """The job's own fields: those of ``job_template``, or those beside the entry's."""
    if values.get("job_template") is None:
        given = {name: raw for name, raw in raws.items() if name not in _OWN}
    elif type(values["job_template"]) is not dict:
        raise bad_field("job_template", "must be an object with type, args and options")
    else:
        given = raw_object(raws["job_template"])
    template = {**before, **given}
    template.setdefault("args", Raw(b"[]"))
    return template


def _job(template: Raw, rules: Rules) -> NewJob:
    job = parse_job(bytes(template), rules, lambda _queue: "")
    if job.client_id:
        raise bad_field("id", "cannot be chosen for the job of a cron entry: each run has an id of its own")
    return job


def _description(values: Values, entry: CronRecord | None) -> str | None:
    if "description" not in values:
        return entry.description if entry else None
    text = values["description"]
    if text is not None and (type(text) is not str or len(text) > DESCRIPTION_CHARS_MAX):
        raise bad_field("description", f"must be a string of at most {DESCRIPTION_CHARS_MAX} characters")
    return text


def check_name(value: Any) -> str:
    """The name of an entry, as a client chooses it."""
    if value is None:
        raise bad_field("name", "is required")
    if type(value) is not str or len(value) > NAME_CHARS_MAX or not _NAME.fullmatch(value):
        raise bad_field(
            "name",
            f"must start with a-z or 0-9 and go on with a-z, 0-9, '.' or '-', at most {NAME_CHARS_MAX} characters",
        )
    return value


def check_enabled(value: Any) -> bool:
    """A flag that is true or false, not something like it."""
    if type(value) is not bool:
        raise bad_field("enabled", "must be true or false")
    return value


def check_zone(value: Any) -> str:
    """The form of a time zone's name. Whether there is such a zone, the machine's database knows."""
    if type(value) is not str or len(value) > ZONE_CHARS_MAX or not _ZONE.fullmatch(value):
        raise bad_field("timezone", "must be an IANA name such as Europe/Berlin, or UTC; offsets have no rules")
    if value in _NO_ZONES or (_ABBREVIATION.fullmatch(value) and value not in _PLAIN_ZONES):
        raise bad_field("timezone", f"{value} is no place: use an IANA name such as America/New_York, or UTC")
    return value


def _policy(value: Any) -> OverlapPolicy:
    chosen = _POLICIES.get(value) if type(value) is str else None
    if chosen is None:
        raise bad_field("overlap_policy", "must be one of skip, allow, cancel_previous, enqueue")
    return chosen


# -- expressions ----------------------------------------------------------------------------------------------


def check_expression(value: Any) -> str:
    """A cron expression, a macro or ``@every <duration>``; given back as the client wrote it."""
    if value is None:
        raise bad_field("expression", "is required")
    if type(value) is not str or not value.strip():
        raise bad_field("expression", "must be a cron expression such as '*/5 * * * *'")
    if len(value) > EXPRESSION_CHARS_MAX:
        raise bad_field("expression", f"must be at most {EXPRESSION_CHARS_MAX} characters")
    if every_ms(value) is None:
        fields_of(value)
    return value


def every_ms(expression: str) -> int | None:
    """The length of ``@every 1h30m`` in ms, ``None`` for every other expression."""
    if not expression.strip().lower().startswith("@every"):
        return None
    match = _EVERY.fullmatch(expression.strip())
    if match is None:
        raise bad_field("expression", "must give a duration such as @every 1h30m, in h, m, s or ms")
    ms = round(sum(float(number) * _EVERY_MS[unit] for number, unit in _EVERY_PART.findall(match[1])))
    if not EVERY_MS_MIN <= ms <= DURATION_MS_MAX:
        raise bad_field("expression", f"{match[1]} is out of range: from {EVERY_MS_MIN} ms to 100 years")
    return ms


@lru_cache(maxsize=1024)
def fields_of(expression: str) -> Fields:
    """The six fields of an expression or macro: seconds first, ``?`` as ``*``."""
    plain = _MACROS.get(expression.strip().lower(), expression)
    parts = plain.split()
    if plain.lstrip().startswith("@"):
        raise bad_field("expression", f"{plain.strip()!r} is none of {', '.join(_MACROS)} and @every")
    if len(parts) not in (5, 6):
        raise bad_field("expression", f"has {len(parts)} fields: 5 are expected, or 6 with seconds first")
    if len(parts) == 5:
        parts.insert(0, "0")
    for place in (3, 5):
        parts[place] = "*" if parts[place] == "?" else parts[place]
    text = " ".join(parts)
    try:
        hours = CronSim(text, _ANY_MOMENT).hours
    except CronSimError as error:
        reason = str(error).lower().replace("bad ", "its field is wrong: ")
        raise bad_field("expression", f"{expression!r} is no cron expression: {reason}") from None
    return Fields(text=text, hourly=len(hours) == 24)
