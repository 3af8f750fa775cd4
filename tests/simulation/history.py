"""What simulated clients write down: all that the auditor knows of them. Nothing of the product is used here."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

EPOCH_MS = 1_900_000_000_000
"""When a run begins, by clocks that nobody has set."""
ARGS = b'[18446744073709551616,"\xc3\xa9"]'


@dataclass
class Asked:
    """One line of a client's history. ``answer``: ok, refused, unknown, or not_written."""

    kind: str
    tag: str
    at: float
    fields: dict[str, Any] = field(default_factory=dict)
    answer: str = "unknown"
    code: str = ""
    jobs: list[Any] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One job of a workflow: what it needs, or after whose end it is called, and when."""

    job: str
    needs: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    callback: str = ""


@dataclass(frozen=True)
class Drawn:
    """A workflow as its client knows it; ``parts`` in the order of the steps that are jobs."""

    flow: Any
    steps: tuple[Any, ...]
    parts: tuple[Part, ...]


class Bound(NamedTuple):
    """The limit of a key, the same for a whole run; 0: not limited in that way."""

    concurrency: int
    starts: int
    period_ms: int


class History:
    """What all clients together know."""

    def __init__(self) -> None:
        self.lines: list[Asked] = []
        self.home: dict[str, int] = {}
        """job id -> the home where its queue was at first"""
        self.workflows: dict[str, Drawn] = {}
        """What was asked for, by id; its home is in the id."""
        self.limits: dict[str, Bound] = {}
        self.crons: dict[str, str] = {}
        """cron entry -> its policy for overlaps"""
        self.bulk: dict[str, bool] = {}
        """What each job that was produced to the bulk topic is marked with -> whether it can be a job at all"""
        self.bulk_ids: dict[str, str] = {}
        """mark -> the job id that the record asks for"""
        self.touches_are_stored = False
        """The newer release counts touches in its records."""
        self.tags = itertools.count(1)
        self.ids = itertools.count(1)

    def tag(self) -> str:
        """A word that marks one request."""
        return f"t{next(self.tags)}"
