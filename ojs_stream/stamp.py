"""Wall clock and dice: the one place where time, ids and randomness enter.

Everything else gets them inside a command (DESIGN.md section 5); a linter rule bans the clock elsewhere.
"""

from __future__ import annotations

import os
import random
import time
from functools import lru_cache

import uuid_utils

HOME_BITS = 10
"""So many low bits of a server-made job id name its home (N <= 1024)."""


def now_ms() -> int:
    """Wall clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def dice() -> float:
    """A number in [0, 1) for jitter; it travels in the command, so a replay throws the same."""
    return random.random()  # noqa: S311 - jitter, not a secret


def new_uuid() -> str:
    """A UUIDv7 (RFC 9562) in lower case."""
    return str(uuid_utils.uuid7())


def new_job_id(home: int) -> str:
    """A UUIDv7 whose ten lowest bits are ``home``, so that a reader finds the record without a lookup."""
    text = str(uuid_utils.uuid7())
    return text[:-3] + _tails(home)[text[-3]]


@lru_cache(maxsize=1 << HOME_BITS)
def _tails(home: int) -> dict[str, str]:
    """The last three digits of ids of a home, by the third last digit before: its two high bits stay."""
    return {digit: f"{(int(digit, 16) & 0xC) << 8 | home:03x}" for digit in "0123456789abcdef"}


def new_token(size: int = 6) -> str:
    """A random lower-case hex word of ``2 * size`` characters: instance names, log ids."""
    return os.urandom(size).hex()
