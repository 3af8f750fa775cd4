"""Jobs of one command with one fingerprint: they are settled among themselves before any lock is asked.

A job that would make a later one of its command a duplicate either stays (the later one is refused, or answered
with the earlier) or gives way to it. So no lock is asked for a job that another one of its command stands against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import structs

from ojs_stream.core.commands import NewJob
from ojs_stream.core.records import Verdict
from ojs_stream.core.states import State


class Twins(NamedTuple):
    """``jobs`` as they may be stored; ``stands_for``: place -> place of the job that is answered in its stead."""

    jobs: tuple[NewJob, ...]
    stands_for: dict[int, int]
    refused: tuple[Verdict, ...]

    @property
    def skipped(self) -> set[int]:
        """The places of jobs that are not stored, whatever the locks say."""
        return {*self.stands_for, *(verdict.job for verdict in self.refused)}

    def answer_for(self, place: int) -> int:
        """The place of the job that is answered at ``place``."""
        while place in self.stands_for:
            place = self.stands_for[place]
        return place


def settle_twins(jobs: Sequence[NewJob], moment: int) -> Twins:
    """What becomes of jobs of one command that are enqueued at ``moment`` and have one fingerprint."""
    if all(new.unique is None for new in jobs):
        return Twins(tuple(jobs), {}, ())
    kept: dict[str, list[int]] = {}
    made = list(jobs)
    stands_for: dict[int, int] = {}
    refused: list[Verdict] = []
    for place, new in enumerate(jobs):
        rule = new.unique
        if rule is None:
            continue
        same = kept.setdefault(rule.key, [])
        earlier = [one for one in same if first_state(made[one], moment) in rule.states]
        if not earlier:
            same.append(place)
        elif rule.on_conflict == "reject":
            refused.append(_refusal(place, earlier[-1], rule.key))
        elif rule.on_conflict == "ignore":
            stands_for[place] = earlier[-1]
        else:
            stands_for.update(dict.fromkeys(earlier, place))
            same[:] = [one for one in same if one not in earlier] + [place]
            if rule.on_conflict == "replace_except_schedule":
                made[place] = _scheduled_as(new, made[earlier[-1]], moment)
    return Twins(tuple(made), stands_for, tuple(refused))


def first_state(new: NewJob, moment: int) -> State:
    """The state in which a new job begins at ``moment``."""
    if new.pending:
        return "pending"
    due = moment + new.delay_ms if new.delay_ms else new.scheduled
    return "scheduled" if due > moment else "available"


def _scheduled_as(new: NewJob, other: NewJob, moment: int) -> NewJob:
    if first_state(other, moment) != "scheduled":
        return new
    return structs.replace(
        new, delay_ms=other.delay_ms, scheduled=other.scheduled, scheduled_at=other.scheduled_at
    )


def _refusal(place: int, other: int, key: str) -> Verdict:
    return Verdict(
        job=place,
        code="duplicate",
        message=f"jobs[{place}] has the same unique key as jobs[{other}].",
        details={"same_as": other, "unique_key": key, "uniqueness_key": key},
    )
