"""Who is told when a job changes its state: its lock, its limit, its workflow, its cron entry.

The one mechanism where two homes meet (DESIGN.md section 4): a watcher of this home is told before the command
ends, one of another home by a message that it folds once.
"""

from __future__ import annotations

from msgspec import UNSET

from ojs_stream.core.commands import JobNote, NewJob, Watched
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import JobRecord, Watcher, score_of
from ojs_stream.core.states import TERMINAL, State
from ojs_stream.core.world import World


def is_watched(record: JobRecord) -> bool:
    """Whether anybody wants to hear of the job."""
    ctl = record.ctl
    return bool(ctl.watchers) or ctl.unique is not None or ctl.limit is not None


def watching_homes(record: JobRecord) -> set[int]:
    """The homes of all who are told of the job."""
    ctl = record.ctl
    rules = (ctl.unique, ctl.limit)
    return {watcher.home for watcher in ctl.watchers} | {rule.home for rule in rules if rule is not None}


def tell(world: World, record: JobRecord, before: State | None) -> None:
    """The job is in the state of ``record`` now; ``before`` is the state that it left, ``None`` for a new job."""
    ctl, state = record.ctl, record.job.state
    note = _note(world, record)
    if ctl.unique is not None and before is not None and before != state:
        world.observe(Watcher("lock", ctl.unique.home, ctl.unique.key), note)
    if ctl.limit is not None and (before != state or state == "available"):
        world.observe(Watcher("limit", ctl.limit.home, ctl.limit.key), note)
    if state in TERMINAL and before not in TERMINAL:
        for watcher in ctl.watchers:
            world.observe(watcher, note)


def tell_removed(world: World, record: JobRecord) -> None:
    """The job's record is gone. A final state was told when it was entered."""
    ctl = record.ctl
    note = _note(world, record, removed=True)
    if ctl.unique is not None:
        world.observe(Watcher("lock", ctl.unique.home, ctl.unique.key), note)
    if ctl.limit is not None and record.job.state not in TERMINAL:
        world.observe(Watcher("limit", ctl.limit.home, ctl.limit.key), note)
    if record.job.state not in TERMINAL:
        for watcher in ctl.watchers:
            world.observe(watcher, note)


def tell_unstored(world: World, record: JobRecord) -> None:
    """A job was to be stored, and another one with its id is there: its lock must not wait for it."""
    unique = record.ctl.unique
    if unique is not None:
        world.observe(Watcher("lock", unique.home, unique.key), _note(world, record, removed=True))


def tell_refused(world: World, new: NewJob, reason: str) -> None:
    """A job that a workflow or a cron entry wanted is not stored."""
    for watcher in new.watchers:
        note = JobNote(
            id=new.id, home=world.home, queue=new.queue, state="refused", at=world.origin, reason=reason
        )
        world.observe(watcher, note)


def _note(world: World, record: JobRecord, *, removed: bool = False) -> JobNote:
    job, ctl = record.job, record.ctl
    return JobNote(
        id=job.id,
        home=world.home,
        queue=job.queue,
        state="removed" if removed else job.state,
        at=world.now,
        created=ctl.created,
        score=score_of(record) if job.state == "available" else 0,
        ask=ctl.ask,
        held=ctl.held,
        unique=ctl.unique,
        limit=ctl.limit,
        result=job.result if ctl.watchers else UNSET,
        error=job.error if ctl.watchers else None,
    )


def watched(world: World, command: Watched) -> Outcome | None:
    """Message: a job of another home has changed its state."""
    world.observe(command.watcher, command.note)
    return None
