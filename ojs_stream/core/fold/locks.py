"""Locks of unique jobs (OJS.md 5.3). The lock follows its job through every way out of its states, and back.

A lock is taken by the enqueue that stores its job (``take``) and changed by what its job tells (``observe``).
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, structs

from ojs_stream.core.commands import JobNote
from ojs_stream.core.records import Hold, LockRecord, UniqueRule, Verdict, Watcher, stored_json
from ojs_stream.core.world import World

_decoder = msgspec.json.Decoder(LockRecord)


def take(world: World, hold: Hold, stage: str) -> Verdict | None:
    """The lock for a new job, or what its rule wants done about the job that has it."""
    rule = hold.rule
    assert rule is not None
    lock = _lock(world, rule.key)
    if lock is None or not _stands_against(lock, rule, world.now):
        _give(world, hold, rule, stage, lock)
        return None
    if rule.on_conflict == "reject" or lock.stage:
        # A job whose enqueue is not decided yet can be neither answered nor replaced.
        return _duplicate(hold, lock)
    if rule.on_conflict == "replace":
        _give(world, hold, rule, stage, lock)
    return Verdict(job=hold.job, existing=lock.job, home=lock.home, action=rule.on_conflict)


def _lock(world: World, key: str) -> LockRecord | None:
    return world.find(("lock", key), LockRecord)


def _stands_against(lock: LockRecord, rule: UniqueRule, now: int) -> bool:
    """Whether the job that has the lock makes another one a duplicate under ``rule``."""
    periods = [period for period in (lock.period_ms, rule.period_ms) if period]
    over = any(now - lock.created >= period for period in periods)
    return not over and lock.state in rule.states


def _give(world: World, hold: Hold, rule: UniqueRule, stage: str, lock: LockRecord | None) -> None:
    if hold.state not in rule.states:
        return
    before = Raw(stored_json(lock)) if stage and lock is not None else UNSET
    taken = LockRecord(
        key=rule.key,
        job=hold.id,
        home=hold.home,
        state=hold.state,
        created=world.now,
        states=rule.states,
        period_ms=rule.period_ms,
        stage=stage,
        before=before,
    )
    world.put(("lock", rule.key), taken)


def _duplicate(hold: Hold, lock: LockRecord) -> Verdict:
    return Verdict(
        job=hold.job,
        code="duplicate",
        message=f"Job '{lock.job}' is {lock.state} and has the same unique key.",
        details={"existing_job_id": lock.job, "existing_job_state": lock.state, "unique_key": lock.key},
    )


def free(world: World, hold: Hold, stage: str) -> None:
    """The stage does not store this job: the lock is as it was before it."""
    lock = _lock(world, hold.name)
    if lock is not None and lock.stage == stage and lock.job == hold.id:
        world.put(("lock", lock.key), _decoder.decode(lock.before) if lock.before is not UNSET else None)


def keep(world: World, hold: Hold, stage: str) -> None:
    """The stage has stored this job: its lock can be answered and replaced from now on."""
    lock = _lock(world, hold.name)
    if lock is not None and lock.stage == stage and lock.job == hold.id:
        world.put(("lock", lock.key), structs.replace(lock, stage="", before=UNSET))


def observe(world: World, watcher: Watcher, note: JobNote) -> None:
    """The job of the lock, or one that once had it, has changed its state."""
    lock, rule = _lock(world, watcher.name), note.unique
    assert rule is not None
    if lock is not None and lock.job != note.id:
        _observe_before(world, lock, rule, note)
        return
    inside = note.state in rule.states and not (rule.period_ms and note.at - note.created >= rule.period_ms)
    if not inside:
        world.put(("lock", watcher.name), None)
        return
    kept = LockRecord(
        key=rule.key,
        job=note.id,
        home=note.home,
        state=note.state,  # type: ignore[arg-type]
        created=note.created,
        states=rule.states,
        period_ms=rule.period_ms,
    )
    world.put(("lock", rule.key), kept)


def _observe_before(world: World, lock: LockRecord, rule: UniqueRule, note: JobNote) -> None:
    """A job whose lock a stage has taken: an abort must not give it back to a job that is over."""
    if lock.before is UNSET:
        return
    before = _decoder.decode(lock.before)
    if before.job == note.id:
        now = (
            UNSET if note.state not in rule.states else Raw(stored_json(structs.replace(before, state=note.state)))
        )
        world.put(("lock", lock.key), structs.replace(lock, before=now))


def expire(world: World, lock: LockRecord) -> None:
    """The lock's period is over."""
    world.put(("lock", lock.key), None)
