"""Configurations of queues as clients read them: what is set, in the words of the specification (OJS.md 5.6)."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from ojs_stream.core.config import threshold_of
from ojs_stream.core.records import ConfigRecord, Retention, RetryDefaults
from ojs_stream.core.retry import RetryPolicy
from ojs_stream.core.times import format_duration

DAY_MS = 86_400_000
RETAINED = {
    "completed": "completed_ms",
    "cancelled": "cancelled_ms",
    "discarded": "discarded_ms",
    "dead_letter": "dead_ms",
}
"""What clients write under ``retention`` -> the field of a configuration."""


def shown(config: ConfigRecord | None) -> dict[str, Any]:
    """What a configuration says, in the words of the specification; nothing of what it leaves open."""
    if config is None:
        return {}
    fields: dict[str, Any] = {**_capacity(config), **_processing(config)}
    retention = {name: config_ms for name, field in RETAINED.items() if (config_ms := getattr(config, field))}
    if retention:
        fields["retention"] = {name: period(ms) for name, ms in retention.items()}
    if config.allowed_job_types is not None:
        fields["allowed_job_types"] = list(config.allowed_job_types)
    return fields


def _capacity(config: ConfigRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if config.max_size is not None:
        fields.update(max_size=config.max_size, overflow_policy="reject")
    if config.max_size is not None or config.warning_threshold is not None:
        threshold = threshold_of(config)
        bounds = {"max_depth": config.max_size or 0, "strategy": "reject", "warning_threshold": threshold}
        fields["backpressure"] = bounds
    return fields


def _processing(config: ConfigRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if config.concurrency:
        fields["concurrency"] = config.concurrency
    if config.rate_limit is not None:
        fields["rate_limit"] = {"limit": config.rate_limit.limit, "period": period(config.rate_limit.period_ms)}
    if config.visibility_timeout_ms is not None:
        fields.update(_timeout("visibility_timeout", config.visibility_timeout_ms))
    if config.default_timeout_ms is not None:
        fields.update(_timeout("default_timeout", config.default_timeout_ms))
    if config.retry is not None:
        fields["default_retry"] = _retry_shown(config.retry)
    return fields


def _timeout(name: str, ms: int) -> dict[str, Any]:
    """In whole seconds, as the specification has it, and exactly."""
    return {name: -(-ms // 1_000), f"{name}_ms": ms}


def _retry_shown(retry: RetryDefaults) -> dict[str, Any]:
    """Only what is set."""
    whole = {
        "max_attempts": retry.max_attempts,
        "initial_interval": retry.initial_ms and format_duration(retry.initial_ms),
        "backoff_coefficient": retry.coefficient,
        "max_interval": retry.max_ms and format_duration(retry.max_ms),
        "jitter": retry.jitter,
        "backoff_strategy": retry.strategy,
        "on_exhaustion": retry.on_exhaustion,
        "non_retryable_errors": retry.non_retryable,
    }
    return {name: value for name, value in whole.items() if value is not None}


def system_config(
    retention: Retention, policy: RetryPolicy, *, timeout_ms: int, visibility_ms: int
) -> ConfigRecord:
    """What is in force for a queue of which no configuration says anything."""
    system = ConfigRecord(
        name="",
        max_size=0,
        visibility_timeout_ms=visibility_ms,
        default_timeout_ms=timeout_ms,
        retry=RetryDefaults(**structs.asdict(policy)),
    )
    kept = {field: getattr(retention, field) for field in RETAINED.values()}
    return structs.replace(system, **{field: ms for field, ms in kept.items() if ms >= 0})


def period(ms: int) -> str:
    """A duration as short as ISO 8601 allows: whole days, hours or minutes, else seconds."""
    for unit_ms, before, after in ((DAY_MS, "P", "D"), (3_600_000, "PT", "H"), (60_000, "PT", "M")):
        if ms % unit_ms == 0:
            return f"{before}{ms // unit_ms}{after}"
    return format_duration(ms)
