"""Workflows in the fold: every kind, on one home and over four, to every end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from ojs_stream.core.commands import Ack, Cancel, JobNote, RetryDead, Watched
from ojs_stream.core.fold import results, workflows
from ojs_stream.core.homes import home_in_id
from ojs_stream.core.records import UniqueRule, Watcher
from tests.support.builders import DAY, Fold, client_id, command, enqueue, job, nack, queue_at, server_id
from tests.support.flows import Play, leaf, start_of
from tests.support.recount import recount_all

HOMES = (1, 4)


@pytest.fixture(params=HOMES, ids=["one home", "four homes"])
def fold(request: pytest.FixtureRequest) -> Fold:
    return Fold(request.param)


def spread(fold: Fold, count: int) -> list[str]:
    """Queues of different homes, as far as there are any."""
    return [queue_at(number % fold.homes, fold.homes, prefix=f"s{number}-") for number in range(count)]


def chain_of(fold: Fold, count: int, **more: Any) -> Play:
    queues = spread(fold, count)
    steps = [leaf(f"step.n{number}", queues[number]) for number in range(count)]
    return Play(fold, {"type": "chain", "name": "a chain", "steps": steps, **more})


def group_of(fold: Fold, count: int, kind: str = "group", **more: Any) -> Play:
    queues = spread(fold, count)
    jobs = [leaf(f"job.n{number}", queues[number]) for number in range(count)]
    return Play(fold, {"type": kind, "name": "some jobs", "jobs": jobs, **more})


def batch_of(fold: Fold, count: int, *names: str) -> Play:
    callbacks = {name: leaf("call." + name, queue_at(1 % fold.homes, fold.homes, prefix="cb-")) for name in names}
    return group_of(fold, count, "batch", callbacks=callbacks)


def settled(fold: Fold) -> None:
    """Indexes and counters follow from the records."""
    assert recount_all(fold.dumps()) == []


# -- chains ---------------------------------------------------------------------------------------------------


def test_a_chain_runs_one_step_after_another_and_hands_its_results_on(fold: Fold) -> None:
    chain = chain_of(fold, 3)
    assert chain.state == "running"
    assert chain.states() == {"0": "pending", "1": "waiting", "2": "waiting"}
    (first,) = chain.take().values()
    assert (first["workflow_id"], first["workflow_step"], first["parent_results"]) == (chain.id, "0", [])
    chain.ack("0", {"a": 1})
    assert chain.take()["1"]["parent_results"] == [{"a": 1}]
    chain.ack("1", [2**70])
    assert chain.take()["2"]["parent_results"] == [{"a": 1}, [2**70]]
    assert chain.state == "running"
    chain.ack("2")
    assert chain.state == "completed"
    assert set(chain.states().values()) == {"completed"}
    assert (chain.record.jobs_completed, chain.record.flow.completed) == (3, 3)
    assert chain.events() == ["workflow.started", *["workflow.step_completed"] * 3, "workflow.completed"]
    assert chain.plans() == []
    settled(fold)


def test_a_failed_step_ends_the_chain_and_what_comes_after_it_never_becomes_a_job(fold: Fold) -> None:
    chain = chain_of(fold, 4)
    chain.take()
    chain.ack("0")
    chain.take()
    chain.fail("1")
    assert chain.state == "failed"
    assert chain.states() == {"0": "completed", "1": "failed", "2": "cancelled", "3": "cancelled"}
    assert (chain.record.jobs_completed, chain.record.jobs_failed, chain.record.failed_step) == (1, 1, 1)
    assert chain.take() == {}
    assert chain.plans() == []
    (event,) = [event for event in fold.events if event.type == "workflow.failed"]
    assert event.data.failed_step_id == "1"
    assert event.data.error["message"] == "it broke"
    settled(fold)


def test_a_retry_of_a_failed_steps_dead_letter_does_not_reopen_the_workflow(fold: Fold) -> None:
    queues = spread(fold, 2)
    retry = {"max_attempts": 1, "on_exhaustion": "dead_letter"}
    chain = Play(fold, {"type": "chain", "steps": [leaf("a", queues[0], retry=retry), leaf("b", queues[1])]})
    chain.take()
    chain.fail("0")
    assert chain.state == "failed"
    job_id = chain.job_of("0")
    assert not fold.do(command(RetryDead, job_id=job_id, queue=queues[1])).refused
    assert list(chain.take()) == ["0"]
    fold.do(command(Ack, job_id=job_id), home=fold.where(job_id))
    assert fold.state(job_id) == "completed"
    assert (chain.state, chain.states()) == ("failed", {"0": "failed", "1": "cancelled"})


def test_a_long_chain_that_fails_at_once_is_cancelled_without_deep_recursion() -> None:
    fold = Fold()
    chain = Play(fold, {"type": "chain", "steps": [leaf("a.b")] * 1_000})
    chain.take()
    chain.fail("0")
    assert chain.state == "failed"
    assert list(chain.states().values()) == ["failed", *["cancelled"] * 999]


# -- groups ---------------------------------------------------------------------------------------------------


def test_the_jobs_of_a_group_become_available_in_their_order() -> None:
    fold = Fold()
    group = Play(fold, {"type": "group", "jobs": [leaf(f"job.n{number}") for number in range(20)]})
    assert list(group.take()) == [str(number) for number in range(20)]


def test_siblings_go_on_when_one_fails_and_the_group_fails_at_its_end(fold: Fold) -> None:
    group = group_of(fold, 3)
    assert sorted(group.take()) == ["0", "1", "2"]
    group.fail("1")
    assert group.state == "running"
    group.ack("2")
    group.ack("0")
    assert group.state == "failed"
    assert (group.record.jobs_completed, group.record.jobs_failed) == (2, 1)
    settled(fold)


def test_a_group_completes_with_its_last_job(fold: Fold) -> None:
    group = group_of(fold, 3)
    group.take()
    for step in ("2", "0", "1"):
        assert group.state == "running"
        group.ack(step)
    assert group.state == "completed"


def test_a_member_that_a_client_cancels_counts_as_failed(fold: Fold) -> None:
    group = group_of(fold, 2)
    fold.do(command(Cancel, job_id=group.job_of("0")))
    group.take()
    group.ack("1")
    assert (group.state, group.states()) == ("failed", {"0": "cancelled", "1": "completed"})


# -- batches --------------------------------------------------------------------------------------------------

ALL = ("on_complete", "on_success", "on_failure")


@pytest.mark.parametrize("failing", [False, True])
def test_callbacks_fire_by_the_outcome_once_each_with_all_results(fold: Fold, failing: bool) -> None:
    batch = batch_of(fold, 3, *ALL)
    batch.take()
    batch.ack("2")
    batch.ack("0")
    assert batch.take() == {}
    (batch.fail if failing else batch.ack)("1")
    fired = batch.take()
    assert sorted(fired) == (["on_complete", "on_failure"] if failing else ["on_complete", "on_success"])
    given = [{"of": "0"}, None if failing else {"of": "1"}, {"of": "2"}]
    assert [each["parent_results"] for each in fired.values()] == [given, given]
    assert batch.state == ("failed" if failing else "completed")
    skipped = "on_success" if failing else "on_failure"
    assert batch.states()[skipped] == "skipped"
    assert batch.events().count("workflow.callback_fired") == 2
    for name in fired:
        batch.ack(name)
    assert batch.take() == {}
    assert batch.state == ("failed" if failing else "completed")
    assert batch.plans() == []
    settled(fold)


def test_the_state_of_a_batch_is_that_of_its_jobs_whatever_becomes_of_a_callback(fold: Fold) -> None:
    batch = batch_of(fold, 1, "on_complete")
    batch.take()
    batch.ack("0")
    batch.take()
    batch.fail("on_complete")
    assert (batch.state, batch.states()["on_complete"]) == ("completed", "failed")


# -- graphs ---------------------------------------------------------------------------------------------------


def diamond(fold: Fold) -> Play:
    queues = spread(fold, 4)
    return Play(
        fold,
        {
            "name": "diamond",
            "steps": [
                {"id": "d", **leaf("d", queues[3]), "depends_on": ["c", "b"]},
                {"id": "a", **leaf("a", queues[0])},
                {"id": "b", **leaf("b", queues[1]), "depends_on": ["a"]},
                {"id": "c", **leaf("c", queues[2]), "depends_on": ["a"]},
            ],
        },
    )


def test_a_diamond_joins_and_gets_results_in_the_order_of_its_dependencies(fold: Fold) -> None:
    graph = diamond(fold)
    assert list(graph.take()) == ["a"]
    graph.ack("a")
    taken = graph.take()
    assert sorted(taken) == ["b", "c"]
    assert taken["b"]["parent_results"] == [{"of": "a"}]
    graph.ack("b")
    assert graph.take() == {}
    graph.ack("c")
    assert graph.take()["d"]["parent_results"] == [{"of": "c"}, {"of": "b"}]
    graph.ack("d")
    assert graph.state == "completed"
    settled(fold)


def test_a_failure_takes_its_dependants_and_the_graph_ends_when_nothing_runs(fold: Fold) -> None:
    graph = diamond(fold)
    graph.take()
    graph.ack("a")
    graph.take()
    graph.fail("b")
    assert (graph.state, graph.states()["d"]) == ("running", "cancelled")
    graph.ack("c")
    assert graph.state == "failed"
    assert graph.take() == {}
    settled(fold)


def test_callbacks_that_the_sdks_send_as_steps_are_callbacks(fold: Fold) -> None:
    queue = spread(fold, 1)[0]
    jobs = [{"id": f"step-{n}", **leaf(f"n{n}", queue)} for n in range(2)]
    ids = [each["id"] for each in jobs]
    go = [{"id": name.replace("_", "-"), **leaf(name, queue), "depends_on": ids} for name in ALL]
    python = [{"id": f"cb-{name}", **leaf(name, queue, callback_type=name), "depends_on": ids} for name in ALL]
    for callbacks in (go, python):
        batch = Play(fold, {"steps": [*jobs, *callbacks]})
        assert (batch.record.flow.count, batch.record.jobs) == (2, 2)
        batch.take()
        batch.ack("step-0")
        batch.ack("step-1")
        assert {step["type"] for step in batch.take().values()} == {"on_complete", "on_success"}
        assert batch.state == "completed"


# -- nesting --------------------------------------------------------------------------------------------------


def nested(fold: Fold) -> Play:
    """A chain of a group of chains: three levels."""
    queues = spread(fold, 5)
    inner = {"type": "chain", "steps": [leaf("c.a", queues[1]), leaf("c.b", queues[2])]}
    group = {"type": "group", "name": "middle", "jobs": [inner, leaf("g.b", queues[3])]}
    return Play(fold, {"type": "chain", "steps": [leaf("first", queues[0]), group, leaf("last", queues[4])]})


def test_three_levels_run_in_their_order_and_pass_results_in_their_shape(fold: Fold) -> None:
    flow = nested(fold)
    assert flow.record.jobs == 5
    assert list(flow.take()) == ["0"]
    flow.ack("0")
    assert flow.states()["1"] == "running"
    taken = flow.take()
    assert sorted(taken) == ["1.0.0", "1.1"]
    assert [each["parent_results"] for each in taken.values()] == [[{"of": "0"}]] * 2
    flow.ack("1.1")
    flow.ack("1.0.0")
    assert flow.take()["1.0.1"]["parent_results"] == [{"of": "1.0.0"}]
    flow.ack("1.0.1")
    assert flow.states()["1"] == "completed"
    assert flow.take()["2"]["parent_results"] == [{"of": "0"}, [{"of": "1.0.1"}, {"of": "1.1"}]]
    flow.ack("2")
    assert (flow.state, flow.record.jobs_completed, flow.record.flow.completed) == ("completed", 5, 3)
    settled(fold)


def test_a_failure_deep_inside_ends_its_flows_one_after_the_other(fold: Fold) -> None:
    flow = nested(fold)
    flow.take()
    flow.ack("0")
    flow.take()
    flow.fail("1.0.0")
    assert flow.states()["1.0"] == "failed"
    assert (flow.states()["1"], flow.state) == ("running", "running")
    flow.ack("1.1")
    assert (flow.states()["1"], flow.states()["2"], flow.state) == ("failed", "cancelled", "failed")
    settled(fold)


def test_a_nested_flow_that_is_never_reached_is_cancelled_with_all_that_is_in_it(fold: Fold) -> None:
    flow = nested(fold)
    flow.take()
    flow.fail("0")
    assert flow.state == "failed"
    assert {state for name, state in flow.states().items() if name != "0"} == {"cancelled"}
    assert flow.plans() == []


def test_a_nested_batch_ends_with_its_callbacks(fold: Fold) -> None:
    queues = spread(fold, 3)
    batch = {"type": "batch", "jobs": [leaf("job", queues[0])], "callbacks": {"on_success": leaf("cb", queues[1])}}
    flow = Play(fold, {"type": "chain", "steps": [batch, leaf("after", queues[2])]})
    flow.take()
    flow.ack("0.0")
    assert list(flow.take()) == ["0.on_success"]
    assert flow.states()["0"] == "running"
    flow.ack("0.on_success")
    assert flow.take()["1"]["parent_results"] == [[{"of": "0.0"}]]
    flow.ack("1")
    assert flow.state == "completed"


def test_a_nested_batch_whose_callback_fails_has_failed(fold: Fold) -> None:
    queues = spread(fold, 3)
    batch = {"type": "batch", "jobs": [leaf("job", queues[0])], "on_complete": leaf("cb", queues[1])}
    flow = Play(fold, {"type": "chain", "steps": [batch, leaf("after", queues[2])]})
    flow.take()
    flow.ack("0.0")
    flow.take()
    flow.fail("0.on_complete")
    assert (flow.state, flow.states()["1"]) == ("failed", "cancelled")


# -- options --------------------------------------------------------------------------------------------------


def test_options_of_the_workflow_hold_for_every_step_that_says_nothing_else() -> None:
    fold = Fold()
    steps = [
        {"type": "a", "args": []},
        {"type": "b", "args": [], "priority": 7, "options": {"queue": "own", "timeout_ms": 5}},
    ]
    group = Play(
        fold,
        {
            "type": "group",
            "jobs": steps,
            "options": {"queue": "theirs", "priority": 3, "timeout": 60, "tags": ["x"], "metadata": {"k": 1}},
        },
    )
    taken = group.take()
    assert [(taken[n]["queue"], taken[n]["priority"], taken[n]["timeout_ms"]) for n in ("0", "1")] == [
        ("theirs", 3, 60_000),
        ("own", 7, 5),
    ]
    assert [(each["tags"], each["meta"]) for each in taken.values()] == [(["x"], {"k": 1})] * 2


def test_a_delay_of_a_step_counts_from_its_start(fold: Fold) -> None:
    queues = spread(fold, 2)
    chain = Play(fold, {"type": "chain", "steps": [leaf("a", queues[0]), leaf("b", queues[1], delay="PT5S")]})
    chain.take()
    fold.now += 60_000
    chain.ack("0")
    assert fold.state(chain.job_of("1")) == "scheduled"
    fold.ticks(after=5_000)
    assert list(chain.take()) == ["1"]


# -- refused steps --------------------------------------------------------------------------------------------


def _unique(fold: Fold, lock_home: int, on_conflict: str) -> Any:
    return UniqueRule(
        key="f" * 64, home=lock_home % fold.homes, states=("available", "active"), on_conflict=on_conflict
    )


def _with_rule(fold: Fold, body: dict[str, Any], number: int, rule: Any) -> Play:
    """The step's job is unique; the fold is what is tested, not the parser of ``unique``."""
    asked = start_of(body, fold.homes)
    steps = list(asked.steps)
    steps[number] = structs.replace(steps[number], job=structs.replace(steps[number].job, unique=rule))
    play = Play.__new__(Play)
    play.fold, play.id = fold, asked.id
    play.home = home_in_id(asked.id)
    play.queues = sorted({new.job.queue for new in steps if new.job is not None})
    assert not fold.do(structs.replace(asked, steps=tuple(steps)), home=play.home).refused
    return play


@pytest.mark.parametrize("on_conflict", ["reject", "ignore"])
@pytest.mark.parametrize("lock_home", [0, 2])
def test_a_step_whose_unique_job_is_refused_has_failed_and_its_siblings_go_on(
    fold: Fold, lock_home: int, on_conflict: str
) -> None:
    queues = spread(fold, 3)
    rule = _unique(fold, lock_home, on_conflict)
    fold.do(enqueue(job("other", homes=fold.homes, unique=rule)), home=rule.home)
    body = {"type": "group", "jobs": [leaf(f"n{n}", queues[n]) for n in range(3)]}
    group = _with_rule(fold, body, 1, rule)
    assert group.states() == {"0": "pending", "1": "failed", "2": "pending"}
    assert group.steps()["1"].reason
    group.take()
    group.ack("0")
    group.ack("2")
    assert group.state == "failed"
    settled(fold)


def test_the_cancel_of_a_unique_step_does_not_overtake_its_job() -> None:
    """The lock's home decides on the job and sends it on: the cancel goes the same way, behind it."""
    fold = Fold(4, deliver=False)
    rule = _unique(fold, 2, "reject")
    queue, away = queue_at(0, 4), queue_at(3, 4, prefix="away-")
    flow = _with_rule(fold, {"type": "group", "jobs": [leaf("a", queue), leaf("b", away)]}, 1, rule)
    assert not flow.cancel().refused
    fold.deliver_all()
    assert fold.state(flow.job_of("1")) == "cancelled"
    assert flow.take() == {}


# -- cancel ---------------------------------------------------------------------------------------------------


def test_cancel_takes_waiting_available_and_active_steps(fold: Fold) -> None:
    flow = nested(fold)
    flow.take()
    flow.ack("0")
    taken = flow.take()
    outcome = flow.cancel()
    assert outcome.data == {"cancelled": ["2", "1.1", "1.0.0", "1.0.1"], "completed": 1}
    assert flow.state == "cancelled"
    assert {name for name, state in flow.states().items() if state != "cancelled"} == {"0"}
    assert {fold.state(each["id"]) for each in taken.values()} == {"cancelled"}
    assert flow.take() == {}
    assert flow.plans() == []
    assert fold.do(command(Ack, job_id=taken["1.1"]["id"])).code == "conflict"
    assert flow.events()[-1] == "workflow.cancelled"
    settled(fold)


@pytest.mark.parametrize("state", ["scheduled", "retryable", "available", "active"])
def test_cancel_reaches_a_job_in_every_state(fold: Fold, state: str) -> None:
    options = {"delay": "PT1H"} if state == "scheduled" else {"retry": {"max_attempts": 3}}
    flow = Play(fold, {"type": "chain", "steps": [leaf("a", spread(fold, 2)[1], **options), leaf("b")]})
    if state in ("retryable", "active"):
        flow.take()
    if state == "retryable":
        fold.do(nack(flow.job_of("0")))
    assert fold.state(flow.job_of("0")) == state
    assert not flow.cancel().refused
    assert fold.state(flow.job_of("0")) == "cancelled"
    assert flow.take() == {}


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_a_workflow_that_is_over_cannot_be_cancelled(fold: Fold, end: str) -> None:
    chain = chain_of(fold, 1)
    chain.take()
    {"completed": chain.ack, "failed": chain.fail, "cancelled": lambda _: chain.cancel()}[end]("0")
    assert chain.state == end
    refused = chain.cancel()
    assert (refused.code, refused.details["current_state"]) == ("conflict", end)


def test_cancel_of_an_unknown_workflow_is_not_found() -> None:
    fold = Fold()
    chain = chain_of(fold, 1)
    chain.id = server_id(0)
    assert chain.cancel().code == "not_found"


# -- once -----------------------------------------------------------------------------------------------------


def test_a_step_is_told_twice_and_late_and_advances_once(fold: Fold) -> None:
    batch = batch_of(fold, 2, "on_complete")
    batch.take()
    watcher = Watcher("workflow", batch.home, f"{batch.id}:0")
    note = JobNote(id=batch.job_of("0"), home=0, queue="q", state="completed", at=fold.now)
    batch.ack("0")
    told = command(Watched, watcher=watcher, note=note)
    for state in ("completed", "discarded", "removed"):
        fold.do(structs.replace(told, note=structs.replace(note, state=state)), home=batch.home)
    assert (batch.state, batch.record.flow.open) == ("running", 1)
    batch.ack("1")
    for _ in range(2):
        fold.do(told, home=batch.home)
    assert list(batch.take()) == ["on_complete"]
    assert batch.events().count("workflow.callback_fired") == 1


def test_a_note_of_another_job_or_of_a_workflow_that_is_gone_changes_nothing(fold: Fold) -> None:
    chain = chain_of(fold, 2)
    before = chain.steps()
    for name in (f"{chain.id}:0", f"{chain.id}:1", f"{chain.id}:77", f"{client_id()}:0"):
        note = JobNote(id=client_id(), home=0, queue="q", state="completed", at=fold.now)
        fold.do(command(Watched, watcher=Watcher("workflow", chain.home, name), note=note), home=chain.home)
    assert chain.steps() == before


def test_messages_delivered_late_change_nothing_in_the_end() -> None:
    fold = Fold(4, deliver=False)
    chain = chain_of(fold, 3)
    for step in ("0", "1", "2"):
        fold.deliver_all()
        chain.take()
        chain.ack(step)
    assert chain.state == "running"
    fold.deliver_all()
    assert chain.state == "completed"
    settled(fold)


def test_a_repeat_with_the_same_key_starts_nothing_and_is_answered_the_same(fold: Fold) -> None:
    asked = structs.replace(start_of({"type": "group", "jobs": [leaf("a")]}, fold.homes), replay="k", body="1")
    first = fold.do(asked)
    again = fold.do(structs.replace(asked, id=server_id(home_in_id(asked.id))), home=home_in_id(asked.id))
    assert first.data == {"id": asked.id}
    assert again.data == {"id": asked.id, "replayed": True}
    assert fold.counts() == {"available": 1}
    other = fold.do(structs.replace(asked, body="2"), home=home_in_id(asked.id))
    assert other.code == "idempotency_mismatch"


# -- bounds ---------------------------------------------------------------------------------------------------


def test_a_large_result_is_passed_by_reference(fold: Fold) -> None:
    chain = chain_of(fold, 2)
    chain.take()
    chain.ack("0", "x" * results.RESULT_BYTES_MAX)
    reference = {
        "result_ref": f"/ojs/v1/jobs/{chain.job_of('0')}",
        "result_size_bytes": results.RESULT_BYTES_MAX + 2,
    }
    assert chain.take()["1"]["parent_results"] == [reference]
    assert json.loads(bytes(chain.steps()["0"].result)) == reference


def test_many_large_results_do_not_make_a_job_that_is_too_large() -> None:
    fold = Fold()
    batch = Play(fold, {"type": "batch", "jobs": [leaf("a")] * 40, "on_complete": leaf("cb")})
    batch.take()
    for number in range(40):
        batch.ack(str(number), "x" * 60_000)
    (callback,) = batch.take().values()
    given = callback["parent_results"]
    assert [type(each) for each in given] == [str] * 17 + [dict] * 23
    assert len(json.dumps(given)) < results.JOB_RESULTS_BYTES_MAX + 40 * 200


def test_jobs_for_another_home_travel_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflows, "MESSAGE_JOBS_MAX", 3)
    fold = Fold(4)
    here, there = queue_at(0, 4), queue_at(2, 4, prefix="there-")
    group = Play(fold, {"type": "group", "jobs": [leaf("a", here), *[leaf("b", there)] * 7]})
    assert list(group.take()) == [str(number) for number in range(8)]


def test_a_retention_that_is_over_takes_the_workflow_and_its_steps(
    fold: Fold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows, "DROPPED_MAX", 2)
    batch = batch_of(fold, 3, "on_complete")
    batch.take()
    for step in ("0", "1", "2"):
        batch.ack(step)
    fold.ticks(after=7 * DAY - 1)
    assert batch.state == "completed"
    fold.ticks(after=1)
    left = [name for dump in fold.dumps() for name in dump if name.startswith(("workflow", "step", "plan"))]
    assert left == []


def test_a_workflow_that_runs_is_kept_forever(fold: Fold) -> None:
    chain = chain_of(fold, 2)
    fold.ticks(after=1_000 * DAY)
    assert chain.state == "running"


def test_its_records_are_small_when_a_step_ends() -> None:
    """The end of one of a thousand jobs writes a few hundred bytes, not the workflow."""
    fold = Fold()
    batch = Play(fold, {"type": "batch", "jobs": [leaf("a.b")] * 1_000, "on_complete": leaf("cb")})
    batch.take()
    before = fold.dump()
    batch.ack("500")
    after = fold.dump()
    changed = [name for name in after if after[name] != before.get(name) and name.startswith(("workflow", "step"))]
    assert sorted(changed) == sorted([f"workflow:{batch.id}", f"step:{batch.id}:500"])
    assert sum(len(after[name]) for name in changed) < 1_500
