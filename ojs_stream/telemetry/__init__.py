"""Logs: JSON lines when nobody looks, colours on a terminal."""

from __future__ import annotations

import logging
import sys

import structlog

QUIET = ("aiokafka", "kafka", "mode", "faust", "aiohttp.access")
"""Loggers of libraries that only speak when something is wrong."""


def configure_logs(*, level: int = logging.INFO) -> None:
    """Send our logs to stderr; libraries keep to warnings."""
    pretty = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
            if pretty
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
