"""Jobs under limits, and what must be true of a limit whatever happens: judged from stored JSON and events."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec

from ojs_stream.core.limits import limit_home
from ojs_stream.core.records import LimitRule, Window
from ojs_stream.core.times import parse_timestamp
from ojs_stream.core.world import Message
from tests.support.builders import Fold
from tests.support.recount import jobs

KEY = "api"


def rule(key: str = KEY, *, homes: int = 1, **fields: Any) -> LimitRule:
    """A limit as the view resolves it; ``rate`` and ``throttle`` are pairs (limit, period in ms)."""
    windows = {name: Window(*fields.pop(name)) for name in ("rate", "throttle") if name in fields}
    return LimitRule(key=key, home=limit_home(key, homes), **windows, **fields)


def limit_of(fold: Fold, key: str = KEY) -> dict[str, Any] | None:
    """The stored limit, with its counters as numbers."""
    data = fold.dump(limit_home(key, fold.homes)).get(f"limit:{key}")
    return None if data is None else {"waiting": 0, "granted": 0, "active": 0, **json.loads(data)}


def used(fold: Fold, key: str = KEY) -> tuple[int, int, int]:
    """(waiting, granted, active) of a limit; zeros when nobody knows it."""
    limit = limit_of(fold, key) or {"waiting": 0, "granted": 0, "active": 0}
    return limit["waiting"], limit["granted"], limit["active"]


def slot_of(fold: Fold, job_id: str) -> dict[str, Any] | None:
    """The job's slot, at whichever home."""
    found = [dump[f"slot:{job_id}"] for dump in fold.dumps() if f"slot:{job_id}" in dump]
    assert len(found) < 2, f"{job_id} has slots at two homes"
    return json.loads(found[0]) if found else None


def disagreements(fold: Fold) -> list[str]:
    """When no message is under way: every slot is what its job is, and every job that needs one has it."""
    wanted = {}
    for dump in fold.dumps():
        for job_id, record in jobs(dump).items():
            state, ctl = record["job"]["state"], record["ctl"]
            if ctl.get("limit") and state in ("available", "active"):
                held = bool(ctl.get("held"))
                wanted[job_id] = state if state == "active" else "waiting" if held else "granted"
    have = {
        name[5:]: json.loads(data)["state"]
        for dump in fold.dumps()
        for name, data in dump.items()
        if name.startswith("slot:")
    }
    return [
        f"{job_id} is {wanted.get(job_id)}, its slot says {have.get(job_id)}"
        for job_id in sorted(wanted.keys() | have.keys())
        if wanted.get(job_id) != have.get(job_id)
    ]


class Post:
    """Messages between homes that arrive late, in any order but that of their sender, and more than once."""

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        self.sent: list[Message] = []

    def deliver(self, pick: int, *, again: bool = False) -> None:
        """One that is next from its sender; then, ``again``, something that has arrived before."""
        heads: dict[tuple[str, int], Message] = {}
        for message in self.fold.held:
            heads.setdefault((_source(message), message.destination), message)
        if heads:
            chosen = list(heads.values())[pick % len(heads)]
            self.fold.held.remove(chosen)
            self.sent.append(chosen)
            self.fold.append(chosen.destination, [chosen.data])
        if again and self.sent:
            old = self.sent[pick % len(self.sent)]
            self.fold.append(old.destination, [old.data])

    def deliver_all(self) -> None:
        """Until nothing is under way."""
        while self.fold.held:
            self.deliver(0)


def _source(message: Message) -> str:
    return str(msgspec.json.decode(message.data)["source"])


class Watch:
    """Looks at a limit after every step and says what no moment may show."""

    def __init__(self, fold: Fold, wanted: LimitRule) -> None:
        self.fold, self.rule = fold, wanted
        self.windows: set[int] = set()

    def check(self) -> None:
        """Never more active than allowed; no window with more starts; throttled starts apart from each other."""
        mine = [
            record
            for dump in self.fold.dumps()
            for record in jobs(dump).values()
            if (record["ctl"].get("limit") or {}).get("key") == self.rule.key
        ]
        if self.rule.concurrency is not None:
            active = sum(record["job"]["state"] == "active" for record in mine)
            assert active <= self.rule.concurrency, f"{active} jobs are active"
        limit = limit_of(self.fold, self.rule.key)
        if limit is not None and limit.get("window"):
            self.windows.add(limit["window"])
        self._check_starts(self._starts({record["job"]["id"] for record in mine}))

    def _starts(self, mine: set[str]) -> list[int]:

        return sorted(
            parse_timestamp(event.time)
            for event in self.fold.events
            if event.type == "job.started" and event.subject in mine
        )

    def _check_starts(self, starts: list[int]) -> None:
        rate, throttle = self.rule.rate, self.rule.throttle
        for window in self.windows if rate is not None else ():
            assert rate is not None
            inside = [at for at in starts if window <= at < window + rate.period_ms]
            assert len(inside) <= rate.limit, f"{len(inside)} starts in the window of {window}"
        if throttle is not None:
            apart = -(-throttle.period_ms // throttle.limit)
            assert all(b - a >= apart for a, b in pairwise(starts)), f"{starts}: too close"
