"""Is what Redis holds the fold of its log? ``ojs-stream verify``.

The workers go on meanwhile. A read of all keys of a home is of no single moment then; so it is made in parts:
some keys are read in one transaction together with ``applied``. The fold in memory goes up to that very offset and
must have the same values there. At the end the keys that only the fold has are looked for in the same way.
So every key was compared at some moment, and none was missed: nothing has to be stopped, nothing is tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ojs_stream.core.records import HomeState, decode_record
from ojs_stream.errors import LogRefusedError, UnavailableError
from ojs_stream.log.reader import LogReader
from ojs_stream.log.topics import Topics
from ojs_stream.replay.basing import base_if_trimmed
from ojs_stream.replay.folding import HomeFold, Nothing, Tell, fold_log, tell_nobody
from ojs_stream.store.base import Dump
from ojs_stream.store.memory import MemoryStore
from ojs_stream.store.redis import RedisStore

ATTEMPTS_MAX = 5
"""So often two stores are read until both stood at the same offset meanwhile."""
VALUE_CHARS_MAX = 300
STATISTICS = ("minute:", "day:")
"""What was counted for charts. Each release may count more than the one before (ADR 12): it is not compared."""
_state_decoder = msgspec.json.Decoder(HomeState)
_MISSING = object()


class Difference(Struct, frozen=True, kw_only=True):
    """Where two stores part."""

    home: int
    key: str
    """Without the home's prefix."""
    field: str
    """The path into a record, a member of an index; empty: the key itself."""
    one: str
    other: str
    """Both values as text."""


async def verify_home(
    reader: LogReader, store: RedisStore, topics: Topics, home: int, *, homes: int, tell: Tell = tell_nobody
) -> Difference | None:
    """The first difference between a home and the fold of its log, both at the same offsets."""
    topic = topics.commands
    (applied,) = await store.applied([home])
    if applied is None:
        return await _nothing_there(reader, topic, home)
    memory = MemoryStore(store.namespace)
    await base_if_trimmed(reader, memory, topics, home, homes=homes, applied=applied)
    fold = await HomeFold.begin(memory, home, homes=homes, outgoing=Nothing())
    await _fold_to(fold, reader, topic, applied, tell)
    seen: set[str] = set()
    async for names in store.names(home):
        seen.update(names)
        found = await _compare(store, fold, names, reader, topic, tell)
        if found is not None:
            return found
    left = sorted(set(await memory.dump(home)) - seen)
    return await _compare(store, fold, left, reader, topic, tell) if left else None


async def _nothing_there(reader: LogReader, topic: str, home: int) -> Difference | None:
    _, end = await reader.bounds(topic, home)
    if end == 0:
        return None
    return Difference(home=home, key="applied", field="", one="nothing", other=f"a log up to offset {end - 1}")


async def _compare(
    store: RedisStore, fold: HomeFold, names: Sequence[str], reader: LogReader, topic: str, tell: Tell
) -> Difference | None:
    applied, found = await store.read_at_once(fold.home, names)
    await _fold_to(fold, reader, topic, applied, tell)
    assert isinstance(fold.store, MemoryStore)
    return first_difference(
        fold.home, without_statistics(found), without_statistics(fold.store.contents(fold.home, names))
    )


async def _fold_to(fold: HomeFold, reader: LogReader, topic: str, applied: int | None, tell: Tell) -> None:
    if applied is None or applied < fold.next - 1:
        have = "nothing" if applied is None else f"offset {applied}"
        raise UnavailableError(
            f"Home {fold.home} had applied offset {fold.next - 1} and has applied {have} now: Redis was wiped, "
            "restored or rebuilt meanwhile. Verify it again when it is live."
        )
    if applied >= fold.next:
        await fold_log(fold, reader, topic, applied + 1, tell=tell)
    if fold.applied != applied:
        raise LogRefusedError(
            f"Redis says that home {fold.home} has applied offset {applied}, and {topic} has no record there: "
            "this is another log."
        )


async def compare_stores(one: RedisStore, other: RedisStore, home: int) -> Difference | None:
    """The first difference between two stores of a home, read while both stood at the same offset."""
    after: list[int | None] = []
    for _ in range(ATTEMPTS_MAX):
        before = await one.applied([home]) + await other.applied([home])
        dumps = await one.dump(home), await other.dump(home)
        after = await one.applied([home]) + await other.applied([home])
        if before == after and before[0] == before[1]:
            return first_difference(home, *map(without_statistics, dumps))
    raise UnavailableError(
        f"Home {home} has applied offset {after[0]} in one Redis and {after[1]} in the other, and they were read "
        f"{ATTEMPTS_MAX} times: two stores can be compared at the same offset only. Stop their workers, or verify "
        "each of them against the log."
    )


def without_statistics(dump: Dump) -> Dump:
    """What every release that can read the log makes of it."""
    return {name: content for name, content in dump.items() if not name.startswith(STATISTICS)}


# -- values ---------------------------------------------------------------------------------------------------


def first_difference(home: int, one: Dump, other: Dump) -> Difference | None:
    """Where two dumps part, in the order of their keys."""
    for name in sorted(one.keys() | other.keys()):
        mine, theirs = one.get(name), other.get(name)
        if mine == theirs or _means_the_same(name, mine, theirs):
            continue
        path, have, want = _first_part(_readable(mine), _readable(theirs))
        return Difference(home=home, key=name, field=path, one=have, other=want)
    return None


def _means_the_same(name: str, mine: Any, theirs: Any) -> bool:
    """Another version of the code may have written the same record in another form."""
    if not isinstance(mine, bytes) or not isinstance(theirs, bytes) or name == "applied":
        return False
    try:
        return msgspec.json.encode(_decoded(name, mine)) == msgspec.json.encode(_decoded(name, theirs))
    except msgspec.DecodeError:  # a torn record is a difference
        return False


def _decoded(name: str, data: bytes) -> Any:
    return _state_decoder.decode(data) if name == "home" else decode_record(tuple(name.split(":", 1)), data)


def _readable(value: Any) -> Any:
    if not isinstance(value, bytes):
        return _MISSING if value is None else value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value


def _first_part(mine: Any, theirs: Any) -> tuple[str, str, str]:
    """The path to the first value that differs, and both values as text."""
    path: list[str] = []
    while isinstance(mine, dict) and isinstance(theirs, dict):
        name = min(
            name for name in mine.keys() | theirs.keys() if mine.get(name, _MISSING) != theirs.get(name, _MISSING)
        )
        path.append(name)
        mine, theirs = mine.get(name, _MISSING), theirs.get(name, _MISSING)
    return ".".join(path), _text(mine), _text(theirs)


def _text(value: Any) -> str:
    if value is _MISSING:
        return "nothing"
    text = (
        value.decode(errors="backslashreplace")
        if isinstance(value, bytes)
        else msgspec.json.encode(value).decode()
    )
    return text if len(text) <= VALUE_CHARS_MAX else text[:VALUE_CHARS_MAX] + "…"
