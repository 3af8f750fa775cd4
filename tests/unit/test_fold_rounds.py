"""What holds for every command: folded once, hurting only itself, the same in any round."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from ojs_stream.core import fold as folding
from ojs_stream.core.commands import Ack, Cancel, Claim, Enqueue
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import HomeState
from ojs_stream.core.world import Needs, World
from ojs_stream.store.memory import MemoryStore
from ojs_stream.store.rounds import HomeRound
from tests.support.builders import (
    NAMESPACE,
    Fold,
    claim,
    command,
    enqueue,
    entry,
    fold_round,
    job,
    pack,
    policy,
    queue_at,
    replay,
    run,
)
from tests.support.commands import Step, histories, play
from tests.support.recount import recount_all

HOMES = 3


def _content(fold: Fold, home: int = 0) -> dict[str, Any]:
    return {name: content for name, content in fold.dump(home).items() if name not in ("applied", "home")}


def test_a_message_that_comes_again_is_folded_once() -> None:
    fold = Fold(HOMES, deliver=False)
    fold.do(enqueue(*[job(queue_at(home, HOMES), homes=HOMES) for home in (0, 1)]))
    (message,) = fold.held
    fold.deliver_all()
    content = _content(fold, 1)
    fold.append(1, [message.data, message.data])
    assert _content(fold, 1) == content


def test_messages_of_different_homes_have_marks_of_their_own() -> None:
    fold = Fold(HOMES)
    for home in (0, 1):
        for _ in range(2):
            fold.do(enqueue(*[job(queue_at(to, HOMES), homes=HOMES) for to in (home, 2)]))
    assert json.loads(fold.dump(2)["home"])["marks"] == {"0": 2, "1": 2}
    assert fold.counts(queue_at(2, HOMES)) == {"available": 4}


def test_a_refused_command_leaves_no_trace_and_the_others_of_its_record_count() -> None:
    fold = Fold()
    one, two = job(), job()
    outcomes = fold.do_all(
        [enqueue(one), command(Ack, job_id="nobody"), enqueue(two), command(Ack, job_id=one.id)]
    )
    assert [outcome.code for outcome in outcomes] == ["", "not_found", "", "conflict"]
    assert fold.counts() == {"available": 2}


@pytest.mark.parametrize("bad", [b'{"kind":"explode","v":1,"actor":"x"}', b'{"kind":"ack","v":0,"actor":"x"}'])
def test_a_command_that_nobody_understands_is_put_aside_and_hurts_nobody(bad: bytes) -> None:
    fold = Fold()
    good = [job() for _ in range(255)]
    encoded: list[Any] = [enqueue(each) for each in good]
    fold.append(0, [*encoded[:100], bad, *encoded[100:]])
    assert fold.counts() == {"available": 255}
    (buried,) = fold.effects_of("commands.dead")
    assert json.loads(bytes(buried.value))["command"] == bad.decode()
    assert buried.headers["ojs-offset"] == "1"


def test_a_record_that_is_no_pack_is_put_aside_as_a_whole() -> None:
    fold = Fold()
    fold.append_value(0, b"\xff not json")
    assert len(fold.effects_of("commands.dead")) == 1
    assert fold.put()


def test_a_command_that_raises_hurts_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(world: World, asked: Cancel) -> Outcome:
        folding.HANDLERS[Ack](world, command(Ack, job_id=asked.job_id))
        raise ZeroDivisionError("boom")

    monkeypatch.setitem(folding.HANDLERS, Cancel, explode)
    fold = Fold()
    made = fold.active()
    content, happened = _content(fold), len(fold.events)
    outcomes = fold.do_all([command(Cancel, job_id=made), enqueue(job("other"))])
    assert [outcome.code for outcome in outcomes] == ["backend_error", ""]
    assert (fold.state(made), fold.counts()) == ("active", {"active": 1})
    assert {name: _content(fold).get(name) for name in content if name.startswith("job:")} == {
        name: data for name, data in content.items() if name.startswith("job:")
    }
    assert len(fold.events) == happened + 1
    (buried,) = fold.effects_of("commands.dead")
    assert buried.headers["ojs-error"] == "ZeroDivisionError: boom"


def test_a_message_that_raises_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    fold = Fold(HOMES, deliver=False)
    fold.do(enqueue(*[job(queue_at(home, HOMES), homes=HOMES) for home in (0, 1)]))

    def explode(_world: World, _asked: Any) -> Outcome:
        raise ZeroDivisionError("boom")

    monkeypatch.setitem(folding.HANDLERS, folding.c.Insert, explode)
    fold.deliver_all()
    assert json.loads(fold.dump(1)["home"])["marks"] == {"0": 1}
    assert len(fold.effects_of("commands.dead")) == 1


def test_every_command_has_a_handler() -> None:
    assert set(folding.HANDLERS) == set(folding.c.AnyCommand.__args__)


# -- properties ---------------------------------------------------------------------------------------------


def _played(history: list[Step]) -> Fold:
    fold = Fold(HOMES)
    for step in history:
        play(fold, step)
    return fold


@settings(max_examples=60, deadline=None)
@given(histories(HOMES), st.lists(st.integers(1, 40), min_size=1))
def test_how_the_log_was_cut_into_rounds_does_not_show(history: list[Step], sizes: list[int]) -> None:
    fold = _played(history)
    for home in range(HOMES):
        store = MemoryStore(NAMESPACE)
        run(replay(store, fold.logs[home], home, homes=HOMES, sizes=sizes * 50))
        assert run(store.dump(home)) == fold.dump(home)


@settings(max_examples=60, deadline=None)
@given(histories(HOMES))
def test_indexes_and_counters_always_equal_a_recount(history: list[Step]) -> None:
    fold = Fold(HOMES)
    for step in history:
        play(fold, step)
        assert recount_all(fold.dumps()) == [], step


@settings(max_examples=40, deadline=None)
@given(histories(1))
def test_a_fold_with_nothing_loaded_first_gives_the_same(history: list[Step]) -> None:
    fold = Fold(1)
    for step in history:
        play(fold, step)
    log = [entry(offset, now, value) for offset, (now, value) in enumerate(fold.logs[0])]
    lazy, eager = MemoryStore(NAMESPACE), MemoryStore(NAMESPACE)
    run(_fold_lazily(lazy, log[:1]))
    for store in (lazy, eager):
        if store is eager:
            _, commit = run(fold_round(store, HomeState(home=0), log[:1], homes=1, expected=None))
            assert run(store.commit([commit])) == [None]
    state = run(eager.position(0))[1]
    assert state is not None
    _, commit = run(fold_round(eager, state, log[1:], homes=1, expected=0))
    assert run(eager.commit([commit])) == [None]
    run(_fold_lazily(lazy, log[1:]))
    assert run(lazy.dump(0)) == run(eager.dump(0)) == fold.dump(0)


async def _fold_lazily(store: MemoryStore, log: list[Any]) -> None:
    """Nothing is loaded before the fold asks for it."""
    applied, state = await store.position(0)
    done = HomeRound(state or HomeState(home=0), log, homes=1, expected=applied)
    needs: Needs | None = Needs()
    while needs is not None:
        await store.load([(done.world, needs)])
        needs = done.fold()
    from ojs_stream.store.commit import commit_of

    commit = commit_of(done.world, namespace=NAMESPACE, expected=applied, applied=done.last_offset)
    assert await store.commit([commit]) == [None]


@given(st.integers(1, 120), st.integers(1, 9), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_claims_of_one_record_empty_a_queue_in_order(jobs: int, count: int, claims: int) -> None:
    fold = Fold()
    asked = [job(priority=number % 3, retry=policy(max_attempts=1)) for number in range(jobs)]
    fold.do(enqueue(*asked))
    outcomes = fold.do_all([claim("x", "default", count=count) for _ in range(claims)])
    taken = [json.loads(bytes(each))["id"] for outcome in outcomes for each in outcome.jobs]
    order = [each.id for each in sorted(asked, key=lambda each: -each.priority)]
    assert taken == order[: count * claims]


@given(st.integers(-(2**200), 2**200))
@settings(max_examples=30, deadline=None)
def test_integers_of_any_size_survive(number: int) -> None:
    fold = Fold(HOMES)
    text = str(number).encode()
    made = fold.put(queue_at(2, HOMES), args=Raw(b"[" + text + b"]"), meta=Raw(b'{"n":' + text + b"}"))
    (taken,) = fold.do(claim(queue_at(2, HOMES))).jobs
    assert b'"args":[' + text + b"]" in bytes(taken)
    (done,) = fold.do(command(Ack, job_id=made, result=Raw(text))).jobs
    assert b'"result":' + text + b"," in bytes(done) or bytes(done).endswith(b'"result":' + text + b"}")


def test_packs_are_what_the_log_holds() -> None:
    decoded = entry(3, 7, pack([enqueue(job()), claim()]))
    assert [type(each) for each in decoded.commands] == [Enqueue, Claim]
    assert msgspec.structs.asdict(decoded)["offset"] == 3
