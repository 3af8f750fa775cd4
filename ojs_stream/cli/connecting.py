"""What the tools of the command line share: where log and state are, sentences for what goes wrong, bars."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import uvloop
from redis.exceptions import RedisError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ojs_stream.cli.place import Place
from ojs_stream.errors import OjsError
from ojs_stream.settings import without_password
from ojs_stream.telemetry import configure_logs

FAILED = 2
"""Exit code: it could not be done."""
KAFKA_WAIT_S = 10.0


def finished(place: Place, work: Callable[[Place, Console], Awaitable[int]]) -> int:
    """The exit code of ``work``; what went wrong is one red sentence."""
    configure_logs(level=logging.WARNING)
    console = Console(stderr=True)
    try:
        return uvloop.run(_checked(place, console, work))
    except (OjsError, RedisError, OSError, TimeoutError) as error:
        console.print(_sentence(place, error), style="red", markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print("Stopped.")
    return FAILED


async def _checked(place: Place, console: Console, work: Callable[[Place, Console], Awaitable[int]]) -> int:
    return await work(place.checked(), console)


def _sentence(place: Place, error: Exception) -> str:
    if isinstance(error, RedisError | TimeoutError):
        return (
            f"Redis at {without_password(place.redis_url)} does not answer: {str(error) or type(error).__name__}."
        )
    return str(error)


def progress_on(console: Console) -> Progress:
    """A bar for a long command."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)
