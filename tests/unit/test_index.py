"""A window on a sorted index, against a model that has the whole index."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ojs_stream.core.index import Index

members = st.sampled_from([f"m{n}" for n in range(8)])
scores = st.integers(0, 12)
stored = st.dictionaries(members, scores)
acts = st.one_of(
    st.tuples(st.just("set"), members, st.none() | scores),
    st.tuples(st.just("undo"), st.integers(1, 3), st.none()),
    st.tuples(st.just("keep"), st.none(), st.none()),
    st.tuples(st.just("extend"), st.integers(0, 8), st.none()),
    st.tuples(st.just("head"), st.integers(0, 9), st.none()),
)


def _window(content: dict[str, int], size: int) -> tuple[list[tuple[int, str]], bool]:
    ordered = sorted((score, member) for member, score in content.items())
    return ordered[:size], len(ordered) <= size


@settings(max_examples=400)
@given(stored, st.integers(0, 8), st.lists(acts, max_size=25))
def test_a_window_never_says_anything_wrong(
    content: dict[str, int], size: int, history: list[tuple[str, Any, Any]]
) -> None:
    first, complete = _window(content, size)
    index, now = Index(first, complete=complete), dict(content)
    journal: list[tuple[str, object, dict[str, int]]] = []
    for act, what, score in history:
        if act == "set":
            before = dict(now)
            if score is None:
                now.pop(what, None)
            else:
                now[what] = score
            journal.append((what, index.set(what, score), before))
        elif act == "undo":
            for _ in range(min(what, len(journal))):
                member, undo, now = journal.pop()
                index.undo(member, undo)
        elif act == "keep":
            journal.clear()
        elif act == "extend" and not journal and not index.complete:
            size += what
            larger, complete = _window(content, size)
            index.extend(larger, complete=complete)
        _agrees(index, content, now, what if act == "head" else 3)


def _agrees(index: Index, content: dict[str, int], now: dict[str, int], count: int) -> None:
    ordered = sorted((score, member) for member, score in now.items())
    head = index.head(count)
    assert head is None or head == ordered[:count]
    if index.complete:
        assert head is not None
    merged = dict(content)
    for member, score in index.changes.items():
        if score is None:
            merged.pop(member, None)
        else:
            merged[member] = score
    assert merged == now


def test_an_empty_window_of_a_longer_index_knows_nothing() -> None:
    index = Index([], complete=False)
    assert index.head(1) is None
    assert index.head(0) == []
    assert Index([], complete=True).head(5) == []


def test_a_window_that_the_round_has_emptied_still_knows_how_much_it_had() -> None:
    index = Index([(1, "a"), (2, "b")], complete=False)
    index.set("a", None)
    index.set("b", None)
    assert (len(index), index.loaded, index.head(1)) == (0, 2, None)
