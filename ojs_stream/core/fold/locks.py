"""Locks of unique jobs (OJS.md 5.3). A lock knows every job with its fingerprint that may stand against another.

A job is a holder from the enqueue that stores it (``take``) until it is in a final state that its rule does not
name, or its period is over; what it tells of itself keeps its state current (``observe``). Whether it makes a new
job a duplicate is then a question of the new job's rule alone. Two holders may be in their states at once: a job
that comes back (a retry, a dead letter) is never asked whether it may.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from ojs_stream.core.commands import JobNote
from ojs_stream.core.records import Hold, Holder, LockRecord, UniqueRule, Verdict, Watcher
from ojs_stream.core.states import TERMINAL
from ojs_stream.core.world import World

HOLDERS_MAX = 1_000
"""So many jobs one lock knows; of more, the first one is forgotten."""


def take(world: World, hold: Hold, stage: str) -> Verdict | None:
    """The lock for a new job, or what its rule wants done about the job that stands against it."""
    rule = hold.rule
    assert rule is not None
    holders = _holders(world, rule.key)
    found = [one for one in holders if one.job == hold.id or _stands_against(one, rule, world.now)]
    if not found:
        _write(world, rule.key, (*holders, _holder(world, hold, rule, stage)))
        return None
    existing = found[-1]
    if rule.on_conflict == "reject" or existing.job == hold.id:
        return _duplicate(hold, existing)
    if any(one.stage for one in found):
        return _undecided(hold, existing)
    if rule.on_conflict == "ignore" or (rule.on_conflict == "replace_except_schedule" and _is_scheduled(found)):
        return Verdict(
            job=hold.job,
            existing=existing.job,
            home=existing.home,
            action=rule.on_conflict,
            coming=world.last_message(existing.home),
        )
    replaced = tuple(structs.replace(one, replaced_by=hold.id) if one in found else one for one in holders)
    _write(world, rule.key, (*replaced, _holder(world, hold, rule, stage)))
    others = tuple((one.home, one.job) for one in found[:-1])
    return Verdict(job=hold.job, existing=existing.job, home=existing.home, others=others, action="replace")


def _holders(world: World, key: str) -> tuple[Holder, ...]:
    lock = world.find(("lock", key), LockRecord)
    return lock.holders if lock is not None else ()


def _write(world: World, key: str, holders: Iterable[Holder]) -> None:
    kept = tuple(holders)[-HOLDERS_MAX:]
    world.put(("lock", key), LockRecord(key=key, holders=kept) if kept else None)


def _stands_against(holder: Holder, rule: UniqueRule, now: int) -> bool:
    """Whether the holder makes a new job under ``rule`` a duplicate."""
    if holder.replaced_by or holder.state not in rule.states:
        return False
    return not (_is_over(holder.created, holder.period_ms, now) or _is_over(holder.created, rule.period_ms, now))


def _is_over(created: int, period_ms: int, now: int) -> bool:
    return bool(period_ms) and now - created >= period_ms


def _is_scheduled(found: list[Holder]) -> bool:
    """Only a scheduled job has a schedule to keep; in any other state it is replaced."""
    return len(found) == 1 and found[0].state == "scheduled"


def _holder(world: World, hold: Hold, rule: UniqueRule, stage: str) -> Holder:
    return Holder(
        job=hold.id,
        home=hold.home,
        state=hold.state,
        created=world.origin,
        period_ms=rule.period_ms,
        stage=stage,
    )


def _duplicate(hold: Hold, holder: Holder) -> Verdict:
    return Verdict(
        job=hold.job,
        code="duplicate",
        message=f"Job '{holder.job}' is {holder.state} and has the same unique key.",
        details={
            "existing_job_id": holder.job,
            "existing_job_state": holder.state,
            "unique_key": hold.name,
            "uniqueness_key": hold.name,
        },
    )


def _undecided(hold: Hold, holder: Holder) -> Verdict:
    """A job that may never be stored can be neither answered nor replaced."""
    message = f"Job '{holder.job}' with the same unique key is just being enqueued; nothing was stored, repeat."
    return Verdict(job=hold.job, code="backend_error", message=message, details={"unique_key": hold.name})


def free(world: World, hold: Hold, stage: str) -> None:
    """The stage does not store this job: the lock is as it was before it."""
    holders = _holders(world, hold.name)
    if not any(one.job == hold.id and one.stage == stage for one in holders):
        return
    freed = (structs.replace(one, replaced_by="") if one.replaced_by == hold.id else one for one in holders)
    _write(world, hold.name, (one for one in freed if one.job != hold.id))


def keep(world: World, hold: Hold, stage: str) -> None:
    """The stage has stored this job: it can be answered and replaced from now on."""
    holders = _holders(world, hold.name)
    if any(one.job == hold.id and one.stage == stage for one in holders):
        kept = (structs.replace(one, stage="") if one.job == hold.id else one for one in holders)
        _write(world, hold.name, kept)


def observe(world: World, watcher: Watcher, note: JobNote) -> None:
    """A job with this fingerprint has changed its state, or is gone."""
    rule = note.unique
    assert rule is not None
    holders = _holders(world, watcher.name)
    known = next((one for one in holders if one.job == note.id), None)
    if not _stays(note, rule):
        if known is not None:
            _write(world, watcher.name, (one for one in holders if one.job != note.id))
        return
    now = _noted(known, note, rule)
    if known is None:
        _write(world, watcher.name, (*holders, now))
    else:
        _write(world, watcher.name, (now if one is known else one for one in holders))


def _stays(note: JobNote, rule: UniqueRule) -> bool:
    if note.state == "removed" or _is_over(note.created, rule.period_ms, note.at):
        return False
    return note.state not in TERMINAL or note.state in rule.states


def _noted(known: Holder | None, note: JobNote, rule: UniqueRule) -> Holder:
    # A job that comes back from a final state has outlived its replacement.
    returned = known is None or (known.state in TERMINAL and note.state not in TERMINAL)
    return Holder(
        job=note.id,
        home=note.home,
        state=note.state,  # type: ignore[arg-type]
        created=note.created,
        period_ms=rule.period_ms,
        replaced_by="" if returned or known is None else known.replaced_by,
    )


def expire(world: World, lock: LockRecord) -> None:
    """The period of some holders is over."""
    _write(world, lock.key, (one for one in lock.holders if not _is_over(one.created, one.period_ms, world.now)))
