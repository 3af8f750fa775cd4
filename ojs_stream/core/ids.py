"""Ids that are derived, not drawn: the same input gives the same UUIDv7, so that a repeat is recognised."""

from __future__ import annotations

import hashlib
from functools import lru_cache

VERSION_7 = 0x7000
VARIANT = 1 << 63


def _uuid7(ms: int, twelve_bits: int, low: int) -> str:
    tail = f"{VARIANT | low & (1 << 62) - 1:016x}"
    return f"{_head(ms, twelve_bits)}{tail[:4]}-{tail[4:]}"


@lru_cache(maxsize=256)
def _head(ms: int, twelve_bits: int) -> str:
    """The first half, which the ids of one record of the log share."""
    text = f"{ms & 0xFFFFFFFFFFFF:012x}{VERSION_7 | twelve_bits & 0xFFF:04x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-"


def event_id(log_id: str, home: int, number: int, now_ms: int) -> str:
    """``evt_`` and a UUIDv7 of the time, the home, the log and the event's number."""
    tag = int(log_id[:6] or "0", 16)
    return "evt_" + _uuid7(now_ms, home, (tag & 0x3FFFFF) << 40 | number & 0xFFFFFFFFFF)


def derived_job_id(partition: int, offset: int, timestamp_ms: int, home: int) -> str:
    """The job id of a bulk record; its ten lowest bits are the job's home, as in every server-made id."""
    return _uuid7(timestamp_ms, partition, (offset & 0xFFFFFFFFFFFF) << 10 | home)


def named_job_id(name: str, ms: int, home: int) -> str:
    """The job id that follows from a name and an instant, such as the tick of a cron entry."""
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return _uuid7(ms, digest >> 52, digest << 10 | home)
