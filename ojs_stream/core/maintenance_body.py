"""The body that begins or ends maintenance. A pure parser."""

from __future__ import annotations

from msgspec import Struct

from ojs_stream.core.config_body import length_of
from ojs_stream.core.envelope import Values, bad_field, load_object

REASON_CHARS_MAX = 1_000


class MaintenanceBody(Struct, frozen=True, kw_only=True):
    """What is asked; ``length_ms`` is an estimate, 0: none."""

    enabled: bool
    reason: str
    length_ms: int


def parse_maintenance(body: bytes) -> MaintenanceBody:
    """``{enabled, reason?, estimated_duration? or duration?}``."""
    values, _ = load_object(body)
    if type(values.get("enabled")) is not bool:
        raise bad_field("enabled", "must be true or false")
    reason = values.get("reason")
    if reason is not None and type(reason) is not str:
        raise bad_field("reason", "must be a string")
    return MaintenanceBody(
        enabled=values["enabled"], reason=(reason or "")[:REASON_CHARS_MAX], length_ms=_length(values)
    )


def _length(values: Values) -> int:
    for name in ("estimated_duration", "duration"):
        if values.get(name) is not None:
            return length_of(values[name], name)
    return 0
