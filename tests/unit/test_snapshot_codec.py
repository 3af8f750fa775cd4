"""A home's content as chunks and back: equal, bounded, and never half trusted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ojs_stream.errors import FencedError, SnapshotDamagedError
from ojs_stream.store import keys
from ojs_stream.store.commit import Commit
from ojs_stream.store.memory import MemoryStore
from ojs_stream.store.snapshot import (
    LOAD_BYTES_MAX,
    LOAD_VALUES_MAX,
    PART_MEMBERS_MAX,
    Part,
    Scores,
    Text,
    Unpacking,
    chunks_of,
    claim_of,
    load_parts,
    parts_of,
)
from tests.support.builders import Fold, enqueue, job, nack, queue_at, run

CLAIM = claim_of(7)
names = st.text("abc:\u00e9", min_size=1, max_size=6)
contents = st.dictionaries(
    names,
    st.binary(max_size=60)
    | st.dictionaries(names, st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8)
    | st.dictionaries(names, st.binary(max_size=20), min_size=1, max_size=8),
    max_size=12,
)


async def _each(parts: Iterable[Part]) -> AsyncIterator[Part]:
    for part in parts:
        yield part


def _unpacked(chunks: Iterable[bytes]) -> list[Part]:
    unpacking = Unpacking()
    parts = [part for chunk in chunks for part in unpacking.feed(chunk)]
    unpacking.finish()
    return parts


def _merged(parts: Iterable[Part]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        if isinstance(part, Text):
            found[part.name] = part.value
        else:
            found.setdefault(part.name, {}).update(part.values)
    return found


def _home() -> Fold:
    """A home with something of everything: jobs in many states, effects and messages on their way."""
    fold = Fold(2, deliver=False)
    queue = queue_at(0, 2)
    for number in range(30):
        fold.put(queue, priority=number % 5)
    fold.do(enqueue(*[job(queue_at(home, 2), homes=2) for home in (0, 1)]))
    for job_id in fold.take(queue, count=9)[:4]:
        fold.do(nack(job_id), home=0)
    return fold


@given(contents, st.integers(1, 40))
def test_what_goes_in_comes_out_whatever_the_size_of_chunks(content: dict[str, Any], size: int) -> None:
    chunks = list(chunks_of(parts_of(content), chunk_bytes=size))
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert _merged(_unpacked(chunks)) == content


def test_a_large_index_is_many_parts_and_a_large_job_many_chunks() -> None:
    index = {f"job-{number}": number for number in range(10 * PART_MEMBERS_MAX + 1)}
    assert len(list(parts_of({"state:q:available": index}))) == 11
    job = bytes(range(256)) * 4_000
    chunks = list(chunks_of([Text("job:1", job)], chunk_bytes=1_000))
    assert len(chunks) > 4
    assert max(map(len, chunks)) <= 1_000
    assert _unpacked(chunks) == [Text("job:1", job)]


def test_what_packs_very_well_is_unpacked_in_steps() -> None:
    large = Text("job:1", b"a" * 20_000_000)
    assert _unpacked(chunks_of([large])) == [large]


def test_a_chunk_that_is_missing_or_changed_is_seen_at_the_latest_at_the_end() -> None:
    content = {f"job:{number}": bytes([number % 251]) * 300 for number in range(400)}
    chunks = list(chunks_of(parts_of(content), chunk_bytes=256))
    assert len(chunks) > 4
    for damaged in (chunks[:-1], chunks[1:], [*chunks[:2], *chunks[3:]], [chunks[0], chunks[0], *chunks[1:]]):
        with pytest.raises(SnapshotDamagedError):
            _unpacked(damaged)


def test_a_part_of_another_shape_is_damage() -> None:
    with pytest.raises(SnapshotDamagedError, match="cannot be read"):
        _unpacked(chunks_of([Scores("state:q:available", {"a": "not a number"})]))  # type: ignore[dict-item]


# ---------------------------------------------------------------- into a store


def _parts(fold: Fold) -> list[Part]:
    return _unpacked(chunks_of(parts_of(run(_whole(fold.store, 0))), chunk_bytes=500))


async def _whole(store: MemoryStore, home: int) -> dict[str, Any]:
    return {**await store.dump(home), "outbox": await store.outbox(home)}


def _load(store: MemoryStore, parts: Sequence[Part], expected: int | None) -> None:
    run(load_parts(store, 0, _each(parts), namespace=store.namespace, expected=expected, claim=CLAIM))


def test_a_loaded_home_is_the_home_that_was_dumped() -> None:
    fold = _home()
    store = MemoryStore("other")
    _load(store, _parts(fold), None)
    assert run(store.dump(0)) == fold.dump(0)
    assert run(store.outbox(0)) == run(fold.store.outbox(0)) != {}
    assert run(store.position(0)) == run(fold.store.position(0))


def test_a_load_replaces_all_that_was_there() -> None:
    fold, other = _home(), Fold(2)
    for home in (0, 1):
        other.put(queue_at(home, 2, "other"))
    neighbour = other.dump(1)
    applied = run(other.store.applied([0]))[0]
    parts = _parts(fold)
    _load(other.store, parts, applied)
    assert other.dump(0) == fold.dump(0)
    assert other.dump(1) == neighbour


class CrashError(Exception):
    """The process ends here."""


class Crashing(MemoryStore):
    """Ends after some commits, and remembers how large they were."""

    def __init__(self, commits: int) -> None:
        super().__init__()
        self.left = commits
        self.sizes: list[tuple[int, int]] = []

    async def commit(self, commits: Sequence[Commit]) -> list[Exception | None]:
        self.left -= 1
        if self.left < 0:
            raise CrashError
        (commit,) = commits
        values = [v for v in commit.strings.values() if v] + [
            f for h in commit.hashes.values() for f in h.values()
        ]
        count = len(values) + sum(map(len, commit.zsets.values()))
        self.sizes.append((count, sum(map(len, values))))
        return await super().commit(commits)


def test_a_load_that_breaks_off_is_known_by_its_position_and_can_be_made_anew() -> None:
    content = {f"job:{number}": b"x" * 900 for number in range(3_000)}
    content["state:q:available"] = {f"{number}": number for number in range(5_000)}  # type: ignore[assignment]
    parts = list(parts_of({"applied": b"41", "home": b'{"home":0,"log_id":"l"}', **content}))
    whole = Crashing(100)
    _load(whole, parts, None)
    count = len(whole.sizes)
    assert count > 4
    assert max(values for values, _ in whole.sizes) <= LOAD_VALUES_MAX + PART_MEMBERS_MAX
    assert max(size for _, size in whole.sizes) <= LOAD_BYTES_MAX + 900 + len("applied and home") * 10
    for commits in range(1, count):
        store = Crashing(commits)
        with pytest.raises(CrashError):
            _load(store, parts, None)
        applied, state = run(store.position(0))
        assert applied == CLAIM < 0
        assert state is None
        store.left = 100
        _load(store, parts, applied)
        assert run(store.dump(0)) == run(whole.dump(0))


def test_two_loads_at_once_do_not_mix() -> None:
    fold = _home()
    store = MemoryStore("other")

    async def taken_over() -> AsyncIterator[Part]:
        for number, part in enumerate(_parts(fold)):
            if number == 3:
                (applied,) = await store.applied([0])
                await load_parts(
                    store, 0, _each(_parts(fold)), namespace="other", expected=applied, claim=claim_of(8)
                )
            yield part

    with pytest.raises(FencedError):
        run(load_parts(store, 0, taken_over(), namespace="other", expected=None, claim=CLAIM))
    assert run(store.dump(0)) == fold.dump(0)


def test_a_load_over_a_position_that_has_moved_is_fenced() -> None:
    fold = _home()
    before = fold.dump(0)
    with pytest.raises(FencedError):
        _load(fold.store, _parts(fold), 0)
    assert fold.dump(0) == before


def test_content_without_a_position_makes_no_home() -> None:
    store = MemoryStore("other")
    with pytest.raises(SnapshotDamagedError, match="no position"):
        _load(store, [Text("job:1", b"{}"), Text("home", b"{}")], None)
    assert store.data[keys.applied("other", 0)] == b"%d" % CLAIM


@settings(max_examples=20)
@given(st.integers(0, 2**48 - 1))
def test_a_claim_is_below_every_offset(dice: int) -> None:
    assert claim_of(dice) < -1
