"""The fold of a log without a worker: rounds of any size, outboxes, and where two dumps part."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ojs_stream.errors import FencedError
from ojs_stream.log.reader import LogRecord
from ojs_stream.replay.folding import HomeFold, Nothing
from ojs_stream.replay.rebuilding import Arrivals
from ojs_stream.replay.verifying import first_difference
from ojs_stream.store import keys
from ojs_stream.store.commit import Acked, Commit
from ojs_stream.store.memory import MemoryStore
from tests.support.builders import Fold, enqueue, job, nack, policy, queue_at, run
from tests.support.commands import Step, histories, play

HOMES = 2


def records(fold: Fold, home: int = 0) -> list[LogRecord]:
    return [LogRecord(offset, now, None, value, ()) for offset, (now, value) in enumerate(fold.logs[home])]


@settings(max_examples=20, deadline=None)
@given(histories(HOMES), st.integers(1, 40), st.integers(0, 60))
def test_a_log_is_folded_from_wherever_a_store_stands(history: list[Step], round_max: int, cut: int) -> None:
    fold = Fold(HOMES)
    for step in history:
        play(fold, step)
    for home in range(HOMES):
        store, log = MemoryStore("mem"), records(fold, home)
        for part in (log[:cut], log[cut:]):
            again = run(HomeFold.begin(store, home, homes=HOMES, outgoing=Nothing()))
            run(again.take(part, round_max=round_max))
            assert (again.next, again.records) == (log.index(part[-1]) + 1 if part else again.next, len(part))
        assert run(store.dump(home)) == fold.dump(home)
        assert run(store.outbox(home)) == {}


def test_who_writes_into_a_store_that_is_being_filled_is_noticed() -> None:
    fold, store = Fold(), MemoryStore("mem")
    fold.put()
    mine, another = (run(HomeFold.begin(store, 0, homes=1)) for _ in range(2))
    run(another.take(records(fold)[:1]))
    with pytest.raises(FencedError):
        run(mine.take(records(fold)))


# -- what is still to be sent ---------------------------------------------------------------------------------


def _fold_with_effects() -> Fold:
    """Home 0 has sent two jobs to home 1, and a dead letter."""
    fold = Fold(HOMES)
    for _ in range(2):
        fold.do(enqueue(job(queue_at(1, HOMES), homes=HOMES)), home=0)
    failing = fold.active(queue_at(0, HOMES), retry=policy(max_attempts=1, on_exhaustion="dead_letter"))
    fold.do(nack(failing))
    return fold


@pytest.mark.parametrize(
    ("dead", "marks", "left"),
    [
        (0, [0, 0], {"e:1", "m:1:1", "m:1:2"}),
        (1, [0, 1], {"m:1:2"}),
        (1, [1, 1], {"m:1:2"}),
        (0, [2, 2], {"e:1"}),
        (1, [0, 2], set()),
    ],
)
def test_the_outbox_has_what_is_not_known_to_have_arrived(dead: int, marks: list[int], left: set[str]) -> None:
    fold, store, seen = _fold_with_effects(), MemoryStore("mem"), list(marks)
    tails = {"events": 3, "retry": 0, "dead": dead, "commands.dead": 0}
    arrivals = Arrivals(tails, lambda _destination: seen[0])
    mine = run(HomeFold.begin(store, 0, homes=HOMES, outgoing=arrivals))
    log = records(fold)
    run(mine.take(log[:-1], round_max=1))
    seen.pop(0)
    run(mine.take(log[-1:]))
    trim = arrivals.trim()
    assert set(run(store.outbox(0))) - set(trim.fields) == left
    assert run(store.acked(0)) == Acked(events=3)


# -- where two dumps part -------------------------------------------------------------------------------------

ONE = b'{"id":"a","n":1,"deep":{"x":[1,2],"y":null}}'


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ({"events": {"1": b"x"}}, {"events": {"1": b"x"}}, None),
        ({"applied": b"7"}, {"applied": b"8"}, ("applied", "", "7", "8")),
        ({"step:w:1": ONE}, {}, ("step:w:1", "", ONE.decode(), "nothing")),
        ({"job:x": ONE}, {"job:x": ONE.replace(b"[1,2]", b"[1]")}, ("job:x", "deep.x", "[1,2]", "[1]")),
        ({"job:x": ONE}, {"job:x": ONE.replace(b',"y":null', b"")}, ("job:x", "deep.y", "null", "nothing")),
        ({"dead": {"a": 1, "b": 2}}, {"dead": {"a": 1, "b": 3}}, ("dead", "b", "2", "3")),
        ({"job:b": ONE, "job:a": b"1"}, {"job:b": b"2", "job:a": b"3"}, ("job:a", "", "1", "3")),
        ({"job:1": b"torn"}, {"job:1": b"also"}, ("job:1", "", "torn", "also")),
        ({"id:1": b'{"home":1,"stage":""}'}, {"id:1": b'{"home":1}'}, None),
    ],
)
def test_the_first_difference_is_named(one: Any, other: Any, found: tuple[str, ...] | None) -> None:
    difference = first_difference(0, one, other)
    told = None if difference is None else (difference.key, difference.field, difference.one, difference.other)
    assert told == found


# -- indexes in memory ----------------------------------------------------------------------------------------

moves = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.none() | st.integers(0, 5)), max_size=30)


@settings(deadline=None)
@given(st.lists(st.tuples(moves, st.integers(1, 9)), max_size=12))
def test_the_head_of_an_index_in_memory_is_that_of_a_sorted_one(steps: list[tuple[list[Any], int]]) -> None:
    store, name = MemoryStore("mem"), keys.record("mem", 0, ("due", "run"))
    for changes, count in steps:
        assert run(store.commit([Commit(home=0, expected=None, zsets={name: dict(changes)})])) == [None]
        wanted = sorted((score, member) for member, score in store.data.get(name, {}).items())
        assert store._head(name, count) == wanted[:count]
        assert run(store.earliest(0, "run")) == (wanted[0][0] if wanted else None)


def test_an_index_that_was_put_in_place_of_another_is_noticed() -> None:
    store, name = MemoryStore("mem"), keys.record("mem", 0, ("due", "run"))
    run(store.commit([Commit(home=0, expected=None, zsets={name: {"a": 1}})]))
    assert run(store.earliest(0, "run")) == 1
    store.data = {name: {"b": 7}}
    assert run(store.earliest(0, "run")) == 7
