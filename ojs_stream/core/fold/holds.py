"""What the jobs of an enqueue need before they may be stored: their ids, their locks, room in their queues.

Each is held at its own home. What is held by a stage that does not store the job is set free again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec import structs

from ojs_stream.core.commands import Enqueue, NewJob, Reserve, Reserved, Settle
from ojs_stream.core.fold import locks, rooms
from ojs_stream.core.fold.jobs import forget
from ojs_stream.core.fold.twins import Twins, first_state
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import ConfigRecord, Hold, IdRecord, Verdict
from ojs_stream.core.world import World, system_command

Needed = dict[int, tuple[Hold, ...]]
"""By home what the jobs of an enqueue need."""


class _Kind(NamedTuple):
    """How one kind of hold is taken, set free when its stage does not store the job, and kept when it does."""

    take: Callable[[World, Hold, str], Verdict | None]
    free: Callable[[World, Hold, str], None]
    keep: Callable[[World, Hold, str], None]


def _nothing(_world: World, _hold: Hold, _stage: str) -> None:
    """What is stored needs nothing more."""


# -- ids ------------------------------------------------------------------------------------------------------


def take_id(world: World, hold: Hold, stage: str) -> Verdict | None:
    """A client-supplied id, unless a job has it."""
    world.require([("id", hold.id), ("job", hold.id)])
    if world.id_record(hold.id) is None and world.job(hold.id) is None:
        world.put(("id", hold.id), IdRecord(home=hold.home, stage=stage))
        return None
    return Verdict(
        job=hold.job,
        code="duplicate",
        message=f"Job '{hold.id}' exists already.",
        details={"existing_job_id": hold.id, "home": world.home},
    )


def free_id(world: World, hold: Hold, stage: str) -> None:
    """The id is free again, if this stage holds it."""
    held = world.id_record(hold.id)
    if held is not None and held.stage == stage:
        forget(world, hold.id)


_KINDS = {
    "id": _Kind(take_id, free_id, _nothing),
    "lock": _Kind(locks.take, locks.free, locks.keep),
    "room": _Kind(rooms.take, rooms.free, _nothing),
}

# -- what an enqueue needs ------------------------------------------------------------------------------------


def needs_nothing(command: Enqueue, configs: Mapping[str, ConfigRecord]) -> bool:
    """Whether all jobs of the command may be stored at once, and nothing else is to be told."""
    if command.partial:
        return False
    for new in command.jobs:
        if new.client_id or new.unique is not None:
            return False
    return not _bounded_queues(command, configs)


def _bounded_queues(command: Enqueue, configs: Mapping[str, ConfigRecord]) -> set[str]:
    """The queues that may refuse a job of the command.

    What the log has accepted goes on: a workflow's step or a cron entry's job finds room in any queue.
    """
    if command.source:
        return set()
    return {queue for queue, config in configs.items() if rooms.is_bounded(config)}


def holds_of(world: World, command: Enqueue, twins: Twins) -> Needed:
    """By home what the jobs of the command need. Most need nothing."""
    needed: dict[int, list[Hold]] = {}
    bounded = _bounded_queues(command, rooms.configs_of(world, {new.queue for new in command.jobs}))
    skipped = twins.skipped
    for place, new in enumerate(twins.jobs):
        if place in skipped:
            continue
        if new.client_id:
            needed.setdefault(world.home_of(new.id), []).append(_hold(world, "id", new.id, place, new))
        if new.unique is not None:
            lock = _hold(world, "lock", new.unique.key, place, new)
            needed.setdefault(new.unique.home, []).append(structs.replace(lock, rule=new.unique))
        if new.queue in bounded:
            room = structs.replace(_hold(world, "room", new.queue, place, new), type=new.type)
            needed.setdefault(world.home_of(new.queue), []).append(room)
    return {home: tuple(held) for home, held in needed.items()}


def _hold(world: World, kind: str, name: str, place: int, new: NewJob) -> Hold:
    return Hold(
        kind=kind,  # type: ignore[arg-type]
        name=name,
        job=place,
        id=new.id,
        home=world.home_of(new.queue),
        state=first_state(new, world.origin),
    )


# -- taking and settling --------------------------------------------------------------------------------------


def refuses(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The first no."""
    return next((verdict for verdict in verdicts if verdict.code), None)


def take_all(world: World, holds: Sequence[Hold], stage: str, *, partial: bool) -> list[Verdict]:
    """Take everything. The first no ends it (the caller undoes what was taken), or only its job (``partial``)."""
    verdicts: list[Verdict] = []
    taken: list[Hold] = []
    refused: set[int] = set()
    for hold in holds:
        if hold.job in refused:
            continue
        verdict = _KINDS[hold.kind].take(world, hold, stage)
        if verdict is not None:
            verdicts.append(verdict)
        if verdict is None or not verdict.code:
            taken.append(hold)
        elif not partial:
            break
        else:
            refused.add(hold.job)
            settle_here(world, [each for each in taken if each.job == hold.job], stage, stored=False)
    return verdicts


def settle_here(world: World, holds: Iterable[Hold], stage: str, *, stored: bool) -> None:
    """The stage has stored the jobs of these holds, or does not."""
    for hold in holds:
        kind = _KINDS[hold.kind]
        (kind.keep if stored else kind.free)(world, hold, stage)


def settle(world: World, needed: Mapping[int, Sequence[Hold]], stage: str, *, stored: bool) -> None:
    """As ``settle_here``, at every home that holds something."""
    for home, holds in sorted(needed.items()):
        if home == world.home:
            settle_here(world, holds, stage, stored=stored)
        elif holds:
            world.message(home, system_command(Settle, stage=stage, holds=tuple(holds), stored=stored))


# -- messages -------------------------------------------------------------------------------------------------


def reserve(world: World, command: Reserve) -> Outcome | None:
    """Message from a stage: hold what it needs here, all or nothing (``partial``: job by job)."""
    before = world.savepoint()
    verdicts = take_all(world, command.holds, command.stage, partial=command.partial)
    if not command.partial and refuses(verdicts):
        world.rollback(before)
    answer = system_command(
        Reserved,
        stage=command.stage,
        home=world.home,
        verdicts=tuple(verdicts),
        pressure=rooms.pressure(world, command.holds),
    )
    world.message(command.home, answer)
    return None


def settled(world: World, command: Settle) -> Outcome | None:
    """Message from a stage: it is decided."""
    settle_here(world, command.holds, command.stage, stored=command.stored)
    return None
