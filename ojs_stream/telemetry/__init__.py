"""Logs: JSON lines for machines, colours on a terminal (``OJS_LOG_FORMAT``). Metrics: see ``meters.py``."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["json", "text"]
QUIET = ("aiokafka", "kafka", "mode", "faust", "aiohttp.access")
"""Loggers of libraries that only speak when something is wrong."""


def chosen_format(wanted: str | None) -> LogFormat:
    """``wanted``, or by where the logs go: text for a terminal."""
    return cast("LogFormat", wanted) if wanted else "text" if sys.stderr.isatty() else "json"


def configure_logs(*, wanted: str | None = None, level: int = logging.INFO) -> None:
    """Send our logs to stderr; libraries keep to warnings."""
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *_common(), *_ending(chosen_format(wanted))],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _common() -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]


def _ending(chosen: LogFormat) -> list[Processor]:
    """The names of OJS's logs (spec ojs-observability 9.1), or a line for people."""
    if chosen == "text":
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [_as_ojs_says, structlog.processors.JSONRenderer()]


_NAMES = {"event": "message", "job_id": "ojs.job.id", "queue": "ojs.job.queue", "job_type": "ojs.job.type"}


def _as_ojs_says(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {_NAMES.get(name, name): value for name, value in event.items()}


def faust_logging(wanted: str | None) -> dict[str, Any] | None:
    """What Faust is told, which takes over the logs of the standard library: the same lines as ours.

    ``None`` unless JSON is asked for by name: Faust's own lines are for people. Only the formatters are replaced,
    the level stays that of ``-l``.
    """
    if wanted != "json":
        return None
    formatter = {"()": json_formatter}
    return {"version": 1, "merge": True, "formatters": {"default": formatter, "colored": formatter}}


def json_formatter() -> logging.Formatter:
    """For records of the standard library's loggers; what is in ``extra`` is in the line."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_common(), structlog.stdlib.ExtraAdder()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_ending("json")],
    )
