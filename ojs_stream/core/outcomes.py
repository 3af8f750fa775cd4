"""What the asker is answered, and what a fold asks the outside to do."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Raw, Struct, UnsetType

Awaited = tuple[int, int, int]
"""(source home, destination home, number) of a message."""


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A result, or a refusal with an OJS error code.

    ``jobs`` are whole jobs as JSON. ``data`` is the command's own answer (see its handler). ``awaits`` lists
    the messages this command caused: the view waits until their homes have folded them. ``forwarded`` is no
    answer yet: the job has moved, and the home that it names will answer.
    """

    code: str = ""
    message: str = ""
    details: dict[str, Any] = {}
    jobs: tuple[Raw, ...] = ()
    data: dict[str, Any] = {}
    awaits: tuple[Awaited, ...] = ()
    forwarded: int | None = None

    @property
    def refused(self) -> bool:
        """Whether the fold said no (and changed nothing)."""
        return bool(self.code)


class EventData(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an event says (OJS.md 6.1); each event type uses the fields it needs."""

    job_id: str | None = None
    job_type: str | None = None
    queue: str | None = None
    state: str | None = None
    priority: int | None = None
    attempt: int | None = None
    max_attempts: int | None = None
    total_attempts: int | None = None
    worker_id: str | None = None
    duration_ms: int | None = None
    result: Raw | UnsetType = UNSET
    error: Any | UnsetType = UNSET
    last_error: Any | UnsetType = UNSET
    scheduled_at: str | None = None
    next_retry_at: str | None = None
    created_at: str | None = None
    expired_at: str | None = None
    ttl_ms: int | None = None
    visible_until: str | None = None
    cancelled_by: str | None = None
    reason: str | None = None
    paused_by: str | None = None
    resumed_by: str | None = None
    changed_at: str | None = None
    workflow_id: str | None = None
    workflow_name: str | None = None
    workflow_type: str | None = None
    total_steps: int | None = None
    step_id: str | None = None
    step_type: str | None = None
    steps_remaining: int | None = None
    failed_step_id: str | None = None
    cron_name: str | None = None
    cron_expr: str | None = None
    timezone: str | None = None
    run_count: int | None = None
    existing_job_id: str | None = None
    previous_priority: int | None = None
    new_priority: int | None = None
    depth: int | None = None
    bound: int | None = None
    jobs_affected: int | None = None
    key: str | None = None
    strategy: str | None = None
    limit: int | None = None
    current: int | None = None
    progress_percent: int | None = None
    progress_message: str | None = None
    until: str | None = None


class Event(Struct, frozen=True, kw_only=True):
    """The OJS event envelope."""

    specversion: str
    id: str
    type: str
    source: str
    time: str
    subject: str
    datacontenttype: str
    data: EventData


class Effect(Struct, frozen=True, kw_only=True):
    """Something for another topic, kept in the outbox until that topic has it."""

    topic: Literal["retry", "dead", "commands.dead"]
    key: str
    value: Raw
    headers: dict[str, str] = {}
