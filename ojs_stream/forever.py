"""Tasks that only a cancellation ends: what a step raises is logged, and the next one follows.

A task that ends by an exception nobody awaits is silent: the worker would go on without its watchdog, its
sweeper, or the sender of a home.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

log = structlog.get_logger(__name__)

PAUSE_S = 0.5
"""After a failed step: a bug that repeats itself must not take the whole processor."""


async def survive(name: str, step: Callable[[], Awaitable[Any]]) -> None:
    """Do ``step`` once. Expected errors are its own business; any other is logged as a bug of task ``name``."""
    try:
        await step()
    except Exception:
        log.exception("a task failed and goes on", task=name)
        await asyncio.sleep(PAUSE_S)


async def forever(name: str, step: Callable[[], Awaitable[Any]]) -> None:
    """Do ``step`` again and again; a step that has nothing to do waits."""
    while True:
        await survive(name, step)
