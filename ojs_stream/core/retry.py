"""Retry policies and the delay before the next attempt (OJS.md 3.1-3.3)."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Strategy = Literal["exponential", "linear", "constant", "polynomial"]
Exhaustion = Literal["discard", "dead_letter"]


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """A policy with every default resolved; intervals in milliseconds."""

    max_attempts: int
    initial_ms: int
    coefficient: float
    max_ms: int
    jitter: bool
    strategy: Strategy
    on_exhaustion: Exhaustion
    non_retryable: tuple[str, ...] = ()


DEFAULT_POLICY = RetryPolicy(
    max_attempts=3,
    initial_ms=1_000,
    coefficient=2.0,
    max_ms=300_000,
    jitter=True,
    strategy="exponential",
    on_exhaustion="discard",
)
"""OJS.md 3.1. The log leaves it out (``commands.NewJob``)."""


def delay_ms(policy: RetryPolicy, attempt: int, dice: float) -> int:
    """Milliseconds to wait after the failure of ``attempt`` (1-based).

    ``dice`` in [0, 1) gives the jitter factor [0.5, 1.5); the cap holds before and after it.
    """
    raw = min(_raw_delay(policy, max(attempt, 1)), policy.max_ms)
    if policy.jitter:
        raw = min(raw * (0.5 + dice), policy.max_ms)
    return int(raw)


def _raw_delay(policy: RetryPolicy, attempt: int) -> float:
    try:
        match policy.strategy:
            case "exponential":
                return float(policy.initial_ms * policy.coefficient ** (attempt - 1))
            case "linear":
                return float(policy.initial_ms * attempt)
            case "constant":
                return float(policy.initial_ms)
            case "polynomial":
                return float(policy.initial_ms * float(attempt) ** policy.coefficient)
    except OverflowError:
        return float(policy.max_ms)


def matches_non_retryable(policy: RetryPolicy, *names: str | None) -> bool:
    """Whether one of the error's names is listed: exact, or ``X.*`` as the prefix ``X.``."""
    for pattern in policy.non_retryable:
        for name in names:
            if name is None:
                continue
            if name == pattern or (pattern.endswith(".*") and name.startswith(pattern[:-1])):
                return True
    return False
