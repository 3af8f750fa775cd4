"""Configurations of queues in force: a queue's own over the template, and what they fill into new jobs.

Precedence, field by field: the job, its queue, ``_default``, the server (OJS.md 5.6).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from msgspec import UNSET, Struct, structs

from ojs_stream.core.commands import NewJob
from ojs_stream.core.envelope import encode_object, raw_object
from ojs_stream.core.policy import echo_of
from ojs_stream.core.records import ConfigRecord, Retention, RetryDefaults
from ojs_stream.core.retry import RetryPolicy

WARNING_THRESHOLD = 0.8
"""From this part of its bound on a queue is nearly full, unless its configuration says another."""
_OF_ONE_QUEUE = frozenset(("name", "version", "updated_at", "draining"))
S = TypeVar("S", bound=Struct)


def layered(own: ConfigRecord | None, default: ConfigRecord | None) -> ConfigRecord | None:
    """A queue's configuration over the template's."""
    if own is None or default is None:
        return own or default
    return _layered(own, default)


@lru_cache(maxsize=1024)
def _layered(own: ConfigRecord, default: ConfigRecord) -> ConfigRecord:
    laid = _over(own, default, leave=_OF_ONE_QUEUE)
    if own.retry is not None and default.retry is not None:
        laid = structs.replace(laid, retry=_over(own.retry, default.retry))
    return laid


def _over(upper: S, lower: S, *, leave: frozenset[str] = frozenset()) -> S:
    """``upper``, with what it does not say from ``lower``."""
    changes = {
        name: getattr(lower, name)
        for name in upper.__struct_fields__
        if name not in leave and getattr(upper, name) in (None, 0) and not _says_zero(upper, name)
    }
    return structs.replace(upper, **changes)


def _says_zero(upper: Struct, name: str) -> bool:
    """0 says something (``max_size``: any number), but for ``concurrency``."""
    return name != "concurrency" and getattr(upper, name) is not None


def is_allowed(config: ConfigRecord, job_type: str) -> bool:
    """Whether the queue takes jobs of this type."""
    allowed = config.allowed_job_types
    return allowed is None or any(_matches(pattern, job_type) for pattern in allowed)


def _matches(pattern: str, job_type: str) -> bool:
    return job_type.startswith(pattern[:-1]) if pattern.endswith("*") else job_type == pattern


def threshold_of(config: ConfigRecord) -> float:
    """From which part of its bound on the queue is nearly full."""
    return WARNING_THRESHOLD if config.warning_threshold is None else config.warning_threshold


# -- new jobs -------------------------------------------------------------------------------------------------


def filled(new: NewJob, config: ConfigRecord) -> NewJob:
    """The job with its queue's defaults wherever its client has set nothing itself."""
    changes: dict[str, Any] = {}
    if config.visibility_timeout_ms and "visibility_timeout_ms" not in new.given:
        changes["visibility_timeout_ms"] = config.visibility_timeout_ms
    if config.default_timeout_ms and "timeout_ms" not in new.given:
        changes["timeout_ms"] = min(config.default_timeout_ms, new.total_timeout_ms or config.default_timeout_ms)
    retention = _retention(new, config)
    if retention != new.retention:
        changes["retention"] = retention
    if config.retry is not None:
        changes.update(_retry(new, config.retry))
    return structs.replace(new, **changes) if changes else new


def _retention(new: NewJob, config: ConfigRecord) -> Retention:
    def keep_ms(given: int | None, before: int) -> int:
        return before if given is None else given

    before = new.retention
    own = "retention.completed_ms" in new.given
    return Retention(
        completed_ms=before.completed_ms if own else keep_ms(config.completed_ms, before.completed_ms),
        cancelled_ms=keep_ms(config.cancelled_ms, before.cancelled_ms),
        discarded_ms=keep_ms(config.discarded_ms, before.discarded_ms),
        dead_ms=keep_ms(config.dead_ms, before.dead_ms),
    )


def _retry(new: NewJob, defaults: RetryDefaults) -> dict[str, Any]:
    policy = merged_policy(new.retry, defaults, lambda name: f"retry.{name}" in new.given)
    changes: dict[str, Any] = {"retry": policy}
    if new.extra is not UNSET and policy != new.retry:
        extra = raw_object(new.extra)
        if "retry" in extra:
            # What the client reads of its policy is what is in force.
            extra["retry"] = echo_of(policy, extra["retry"])
            changes["extra"] = encode_object(extra)
    return changes


def merged_policy(policy: RetryPolicy, defaults: RetryDefaults, is_given: Callable[[str], bool]) -> RetryPolicy:
    """The policy with a queue's defaults for the fields that are not given."""
    changes = {
        name: getattr(defaults, name)
        for name in defaults.__struct_fields__
        if getattr(defaults, name) is not None and not is_given(name)
    }
    if "coefficient" in changes and "strategy" not in changes and not is_given("strategy"):
        changes["strategy"] = "constant" if changes["coefficient"] == 1.0 else "exponential"
    merged = structs.replace(policy, **changes)
    if merged.initial_ms <= merged.max_ms:
        return merged
    if is_given("max_ms"):
        return structs.replace(merged, initial_ms=merged.max_ms)
    return structs.replace(merged, max_ms=merged.initial_ms)
