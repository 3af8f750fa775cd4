"""All records of a namespace at one moment: ``ojs-stream export``.

The moment must be a quiet one. Between two homes there is more than their records: messages that one has sent and
the other has not folded, enqueues that wait for other homes. So nothing may be under way, no command may be left
in the log, and no home may fold anything while it is read. A server that was stopped is quiet for sure.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ojs_stream.core.records import HomeState, Key, key_of_name
from ojs_stream.core.rehoming import is_own
from ojs_stream.errors import OjsError
from ojs_stream.log.reader import LogReader
from ojs_stream.store.redis import RedisStore
from ojs_stream.transfer.archive import FORMAT, KINDS, VERSION, ArchiveWriter, Header

PART_SUFFIX = ".part"
READ_KEYS = 200
"""Records that are read at once."""


class NotQuietError(OjsError):
    """The namespace is at work: what would be exported is of no single moment."""


class Source(NamedTuple):
    """What is exported."""

    store: RedisStore
    reader: LogReader
    topic: str
    homes: int


class Quiet(NamedTuple):
    """How all homes stand, with nothing under way."""

    applied: list[int]
    states: list[HomeState]


async def export(source: Source, path: Path, *, tell: Callable[[int, int], None]) -> tuple[int, Header]:
    """Write the file; gives how many records it has. ``tell`` hears of (records written, records in all)."""
    quiet = await _quiet(source)
    names = [await _names_of(source.store, home) for home in range(source.homes)]
    total = sum(len(each) for one in names for each in one.values())
    header = Header(
        format=FORMAT,
        version=VERSION,
        namespace=source.store.namespace,
        homes=source.homes,
        applied=quiet.applied,
        log_ids=[state.log_id for state in quiet.states],
        sequence=max(state.sequence for state in quiet.states),
    )
    part = path.with_name(path.name + PART_SUFFIX)
    try:
        with ArchiveWriter(part, header) as writer:
            await _write(source, writer, names, quiet, lambda done: tell(done, total))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return writer.records, header


async def _write(
    source: Source,
    writer: ArchiveWriter,
    names: Sequence[Mapping[str, Sequence[str]]],
    quiet: Quiet,
    tell: Callable[[int], None],
) -> None:
    for kind in KINDS:
        for home in range(source.homes):
            async for key, record in _records(source, home, names[home].get(kind, ()), quiet):
                writer.add(key, record)
            tell(writer.records)
    if await _quiet(source) != quiet:
        raise _moved()
    writer.end()


async def _quiet(source: Source) -> Quiet:
    """Where every home stands; ``NotQuietError`` when anything is under way."""
    applied: list[int] = []
    states: list[HomeState] = []
    for home in range(source.homes):
        _, end = await source.reader.bounds(source.topic, home)
        position, state = await source.store.position(home)
        if position is None or state is None or position < end - 1:
            have = "nothing" if position is None else f"offset {position}"
            raise NotQuietError(
                f"Partition {home} of {source.topic} ends at offset {end - 1}, and Redis has applied {have}. "
                "Let the workers fold all of the log, then stop them and export again."
            )
        applied.append(position)
        states.append(state)
    _check_messages(states)
    _check_not_importing(states)
    return Quiet(applied, states)


def _check_messages(states: Sequence[HomeState]) -> None:
    for state in states:
        for destination, number in state.sent.items():
            mark = states[int(destination)].marks.get(str(state.home), 0)
            if mark < number:
                raise NotQuietError(
                    f"Home {state.home} has sent home {destination} {number} messages, which has folded {mark}. "
                    "Let the workers finish (seconds), then stop them and export again."
                )


def _check_not_importing(states: Sequence[HomeState]) -> None:
    for state in states:
        if state.importing is True:
            raise NotQuietError(f"Home {state.home} is being filled by an import: end that one first.")


async def _names_of(store: RedisStore, home: int) -> dict[str, list[str]]:
    """By kind the names of the home's records, in their order."""
    found: dict[str, set[str]] = {}
    async for names in store.names(home):
        for name in names:
            found.setdefault(name.partition(":")[0], set()).add(name)
    if "stage" in found:
        raise NotQuietError(
            f"Home {home} is deciding on {len(found['stage'])} enqueues with other homes. Let the workers finish "
            "(8 seconds at most), then stop them and export again."
        )
    return {kind: sorted(names) for kind, names in found.items() if kind in KINDS}


async def _records(
    source: Source, home: int, names: Sequence[str], quiet: Quiet
) -> AsyncIterator[tuple[Key, bytes]]:
    for start in range(0, len(names), READ_KEYS):
        wanted = names[start : start + READ_KEYS]
        applied, found = await source.store.read_at_once(home, wanted)
        if applied != quiet.applied[home] or len(found) != len(wanted):
            raise _moved()
        for name in wanted:
            key = key_of_name(name)
            if is_own(key, home, source.homes):
                yield key, found[name]


def _moved() -> NotQuietError:
    return NotQuietError(
        "The namespace went on while it was read (timers and heartbeats are commands, too). Stop its workers, "
        "export, and start them again."
    )
