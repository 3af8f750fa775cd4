"""Timestamps and durations as OJS writes them (OJS.md 1.2, 3.1). Milliseconds inside, text outside."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(
    r"P(?!$)(?:(?P<y>\d+)Y)?(?:(?P<mo>\d+)M)?(?:(?P<w>\d+)W)?(?:(?P<d>\d+)D)?"
    r"(?:T(?=\d)(?:(?P<h>\d+)H)?(?:(?P<mi>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?"
)
_UNITS_MS = {
    "y": 365 * 86_400_000,
    "mo": 30 * 86_400_000,
    "w": 7 * 86_400_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "mi": 60_000,
    "s": 1_000,
}
_SIMPLE = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIMPLE_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
DURATION_MS_MAX = 100 * 365 * 86_400_000
"""A hundred years: beyond it a duration is a mistake."""


@lru_cache(maxsize=4096)
def iso(ms: int) -> str:
    """Milliseconds since the epoch as ``YYYY-MM-DDTHH:MM:SS.mmmZ``."""
    whole, part = divmod(ms, 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{part:03d}Z"


def parse_timestamp(text: str) -> int:
    """RFC 3339 with a zone to milliseconds since the epoch; ``ValueError`` names the shape."""
    if not _RFC3339.fullmatch(text):
        raise ValueError("must be an RFC 3339 timestamp with a zone, such as 2030-01-31T12:00:00Z")
    normal = re.sub(r"(\.\d{6})\d+", r"\1", text.upper().replace(" ", "T"))
    # In whole numbers: as a float, 8.027 s are 8026 ms.
    return (datetime.fromisoformat(normal) - _EPOCH) // timedelta(milliseconds=1)


def parse_duration(text: str) -> int:
    """ISO 8601 (``PT1.5S``, ``P1D``) or a plain form (``30s``, ``5m``, ``250ms``) to milliseconds.

    Years are 365 days and months 30 (OJS.md 3.1). ``ValueError`` names the shape.
    """
    simple = _SIMPLE.fullmatch(text)
    if simple:
        ms = float(simple[1]) * _SIMPLE_MS[simple[2]]
    else:
        match = _DURATION.fullmatch(text)
        if not match:
            raise ValueError("must be an ISO 8601 duration such as PT30S")
        ms = sum(float(value) * _UNITS_MS[unit] for unit, value in match.groupdict().items() if value)
    if ms > DURATION_MS_MAX:
        raise ValueError("must be at most 100 years")
    return round(ms)


def format_duration(ms: int) -> str:
    """Milliseconds as an ISO 8601 duration in seconds: ``PT1S``, ``PT0.25S``."""
    whole, part = divmod(ms, 1000)
    return f"PT{whole}S" if not part else f"PT{whole}.{part:03d}".rstrip("0") + "S"
