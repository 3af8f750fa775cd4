"""Everything that can go wrong, as sentences. No HTTP status is known here (see ``web/problems.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class OjsError(Exception):
    """Something went wrong in ojs_stream."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class RefusedError(OjsError):
    """A request is refused: by the view (never in the log) or by the fold (no state changed).

    ``code`` is an OJS error code and an anchor in ``docs/errors.md``; ``kind`` is the optional
    ``error.type`` of the envelope (OJS.md 2.2).
    """

    def __init__(
        self, code: str, message: str, *, details: Mapping[str, Any] | None = None, kind: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = dict(details or {})
        self.kind = kind


class UnavailableError(OjsError):
    """Kafka, Redis or the home is not there now; the request may be repeated after ``retry_after_s``.

    ``unknown`` says that a command may already be in the log: the outcome is unknown, not negative.
    """

    def __init__(self, message: str, *, retry_after_s: int = 1, unknown: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.unknown = unknown


class StalledError(UnavailableError):
    """Kafka does not say that it is away, and a read gets nothing of what is there."""


class FencedError(OjsError):
    """Another owner has committed for this home: drop what is in memory and read ``applied`` again."""


class LogRefusedError(OjsError):
    """The log and the store do not belong together; the message names partition, offsets and the way out."""


class SnapshotDamagedError(OjsError):
    """A snapshot is not whole: chunks are missing or changed. An older one may serve."""


class NewerVersionError(LogRefusedError):
    """What only a newer release can read: valid, so it is not put aside; nothing after it may be folded here."""


class SettingsError(OjsError):
    """A setting has a value that cannot work; the message names field, value, bound and cure."""
