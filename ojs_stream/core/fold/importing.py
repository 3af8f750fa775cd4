"""An import: records of another log become those of an empty home (docs/adr/0016).

They come as they are to be (``core/rehoming.py``), and nothing follows from them but their indexes and counters:
no event, no message. Until every home has all of its records nothing else is folded but messages: a job that was
due would tell a watcher that is not there yet.
"""

from __future__ import annotations

from msgspec import structs

from ojs_stream.core.commands import LATER_KINDS, Command, Genesis, ImportEnd, ImportPart
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import RECORD_KINDS, ImportRecord, Key, decode_record
from ojs_stream.core.world import NeedMore, Needs, World
from ojs_stream.errors import RefusedError

PROGRESS: Key = ("import", "log")
_ALLOWED = (Genesis, ImportPart, ImportEnd)


def check_allowed(command: Command) -> None:
    """Refuse what must wait until the import has ended."""
    if not isinstance(command, _ALLOWED):
        raise RefusedError(
            "backend_error", "This namespace is being imported: end it with `ojs-stream import`, or repeat later."
        )


def import_part(world: World, command: ImportPart) -> Outcome:
    """Store the records. A part that is here already was repeated by the tool."""
    progress = world.find(PROGRESS, ImportRecord) or _begun(world, command)
    _check_same(progress, command.id)
    if command.part < progress.parts:
        return Outcome(data={"repeated": True})
    if command.part > progress.parts or progress.ended:
        raise RefusedError("conflict", f"Part {progress.parts} of the import is next, not {command.part}.")
    for entry in command.entries:
        world.absent(entry.key)
        world.put(entry.key, decode_record(entry.key, bytes(entry.record)))
    world.put(PROGRESS, structs.replace(progress, parts=command.part + 1))
    world.sequence = max(world.sequence, command.sequence)
    world.importing = True
    # Among them may be what an older release cannot read; it could not read this command either.
    world.needs_release(LATER_KINDS[ImportPart])
    return Outcome()


def import_end(world: World, command: ImportEnd) -> Outcome:
    """Every home has its records."""
    progress = world.find(PROGRESS, ImportRecord) or _begun(world, command)
    _check_same(progress, command.id)
    if command.parts != progress.parts:
        raise RefusedError("conflict", f"{progress.parts} parts of the import are here, not {command.parts}.")
    world.put(PROGRESS, structs.replace(progress, ended=True))
    world.importing = False
    return Outcome()


def _begun(world: World, command: ImportPart | ImportEnd) -> ImportRecord:
    if not _is_empty(world):
        raise RefusedError(
            "conflict", f"Home {world.home} has records already; an import needs an empty namespace."
        )
    return ImportRecord(id=command.id)


def _check_same(progress: ImportRecord, wanted: str) -> None:
    if progress.id != wanted:
        raise RefusedError("conflict", f"This namespace was filled by import {progress.id}, not by {wanted}.")


def _is_empty(world: World) -> bool:
    """Whether there is no record, in the store as it was before the round or of what has changed since."""
    stored: frozenset[str] = frozenset()
    if not world.blank:
        if world.all_keys is None:
            needs = Needs()
            needs.everything = True
            raise NeedMore(needs)
        prefix = next((name.partition("}:")[0] + "}:" for name in world.all_keys), "")
        stored = frozenset(name.removeprefix(prefix) for name in world.all_keys)
    changed = {":".join(key): record for key, record in world.changed.items()}
    kept = {name for name in stored - changed.keys() if name.partition(":")[0] in RECORD_KINDS}
    return not kept and not any(record is not None for record in changed.values())
