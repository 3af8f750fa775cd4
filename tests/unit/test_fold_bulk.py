"""Batches over several homes, all or none or each for itself; priorities; the same change for many jobs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from ojs_stream.core.commands import Bulk, Enqueue, NewJob, Reprioritize, RetryDead, RetryJob
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import UniqueRule
from tests.support.builders import (
    HOUR,
    MINUTE,
    SECOND,
    Fold,
    client_id,
    command,
    enqueue,
    job,
    jobs_of,
    nack,
    queue_at,
    tick,
)
from tests.support.recount import recount_all

HOMES = [1, 4]
STATES = ("available", "scheduled", "pending", "active", "retryable", "completed", "cancelled", "discarded")


def stored_ids(fold: Fold) -> set[str]:
    return {name[4:] for dump in fold.dumps() for name in dump if name.startswith("job:")}


def reserved(fold: Fold) -> dict[str, int]:
    records = [json.loads(data) for dump in fold.dumps() for name, data in dump.items() if name[:6] == "queue:"]
    return {
        record["name"]: sum(len(places) for places in record["reserved"].values())
        for record in records
        if record.get("reserved")
    }


def held(fold: Fold) -> list[str]:
    """Ids, locks and stages of all homes."""
    kinds = ("id:", "lock:", "stage:")
    return [name for dump in fold.dumps() for name in dump if name.startswith(kinds)]


def unique(key: str, homes: int, home: int) -> UniqueRule:
    return UniqueRule(key=key, home=home % homes, states=("available", "active", "scheduled"))


def wide_batch(homes: int) -> tuple[list[str], list[NewJob]]:
    """Jobs for eight queues of all homes, of every kind of need."""
    queues = [queue_at(place % homes, homes, prefix=f"wide{place}-") for place in range(8)]
    mine = [client_id(homes, (place + 1) % homes) for place in range(8)]
    jobs = [
        job(queue, id=one, unique=unique(f"k{place}", homes, place + 2))
        for place, (queue, one) in enumerate(zip(queues, mine, strict=True))
    ]
    return queues, jobs


REASONS = ["taken id", "full queue", "draining queue", "taken lock"]


def stand_against(fold: Fold, reason: str, queue: str, last: NewJob) -> str:
    """Make one job of a batch impossible; gives the code of the refusal."""
    if reason == "taken id":
        fold.put("other", id=last.id)
        return "duplicate"
    if reason == "taken lock":
        fold.put("other", unique=last.unique)
        return "duplicate"
    if reason == "full queue":
        fold.put(queue)
        fold.configure(queue, max_size=1)
        return "QUEUE_FULL"
    fold.configure(queue, draining=True)
    return "queue_draining"


@pytest.mark.parametrize("homes", HOMES)
@pytest.mark.parametrize("reason", REASONS)
def test_a_batch_with_one_impossible_job_stores_nothing_anywhere(homes: int, reason: str) -> None:
    fold = Fold(homes)
    queues, jobs = wide_batch(homes)
    for queue in queues[:-1]:
        fold.configure(queue, max_size=1)
    code = stand_against(fold, reason, queues[-1], jobs[-1])
    before, holds = stored_ids(fold), held(fold)
    refused = fold.do(enqueue(*jobs))
    assert (refused.code, refused.details["index"]) == (code, 7)
    assert stored_ids(fold) == before
    assert held(fold) == holds
    assert reserved(fold) == {}
    assert all(fold.counts(queue) == {} for queue in queues[:-1])
    assert recount_all(fold.dumps()) == []
    jobs_of(fold.do(enqueue(*jobs[:-1])))


@pytest.mark.parametrize("homes", HOMES)
def test_a_batch_over_all_homes_is_stored_and_holds_no_room_afterwards(homes: int) -> None:
    fold = Fold(homes)
    queues, jobs = wide_batch(homes)
    for queue in queues:
        fold.configure(queue, max_size=1)
    made = jobs_of(fold.do(enqueue(*jobs)))
    assert [each["id"] for each in made] == [each.id for each in jobs]
    assert reserved(fold) == {}
    assert fold.do(enqueue(job(queues[3]))).code == "QUEUE_FULL"
    assert recount_all(fold.dumps()) == []


def test_a_batch_whose_other_home_is_away_is_aborted_by_its_deadline() -> None:
    fold = Fold(4, deliver=False)
    queues, jobs = wide_batch(4)
    for queue in queues:
        fold.configure(queue, max_size=1)
    assert fold.do(enqueue(*jobs)).code == "silent"
    decider = fold.home_for(enqueue(*jobs))
    away = (decider + 1) % 4
    lost = [message for message in fold.held if message.destination == away]
    fold.held = [message for message in fold.held if message.destination != away]
    fold.deliver_all()
    assert any(name.startswith("stage:") for name in held(fold))
    fold.now += 8 * SECOND
    fold.do(tick("reap"), home=decider)
    fold.held = lost + fold.held
    fold.deliver_all()
    assert (stored_ids(fold), held(fold), reserved(fold)) == (set(), [], {})
    fold.deliver = True
    assert len(jobs_of(fold.do(enqueue(*jobs)))) == 8


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("refusing", ["lock", "room"])
def test_a_home_that_refuses_gives_back_no_room_that_another_stage_holds(refusing: str, partial: bool) -> None:
    """It has rolled back, or never took, what the refused job needed: nothing of it is to be set free."""
    fold = Fold(4, deliver=False)
    far, lock = queue_at(1, 4), unique("k", 4, 1)
    fold.configure(far, max_size=2 if refusing == "room" else 9)
    fold.do(enqueue(job(far, id=client_id(4, 2))))
    fold.do(enqueue(job(far, id=client_id(4, 0), unique=lock)))
    late = job(far, id=client_id(4, 0), unique=lock if refusing == "lock" else None)
    fold.do(structs.replace(enqueue(late), partial=partial))
    # The first stage holds its room and does not hear of it.
    while message := next((each for each in fold.held if each.destination != 2), None):
        fold.held.remove(message)
        fold.append(message.destination, [message.data])
    assert fold.find(late.id) is None
    assert (fold.counts(far), reserved(fold)) == ({"available": 1}, {far: 1})
    fold.deliver_all()
    assert (fold.counts(far), reserved(fold)) == ({"available": 2}, {})


# -- each for itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("homes", HOMES)
def test_a_partial_batch_stores_what_it_can_and_names_the_rest(homes: int) -> None:
    fold = Fold(homes)
    queues, jobs = wide_batch(homes)
    fold.put("other", id=jobs[1].id)
    fold.put("other", unique=jobs[3].unique)
    fold.put(queues[5])
    for queue in queues:
        fold.configure(queue, max_size=1)
    outcome = fold.do(structs.replace(enqueue(*jobs), partial=True))
    refused = {place: said["code"] for place, said in outcome.data["refused"].items()}
    assert refused == {"1": "duplicate", "3": "duplicate", "5": "QUEUE_FULL"}
    stored = [place for place, each in enumerate(outcome.jobs) if bytes(each) != b"null"]
    assert stored == [0, 2, 4, 6, 7]
    assert all((fold.find(jobs[place].id) is not None) == (place in (*stored, 1)) for place in range(8))
    assert reserved(fold) == {}
    assert recount_all(fold.dumps()) == []


# -- priority -------------------------------------------------------------------------------------------------


def test_higher_first_and_the_oldest_among_equals_also_after_a_change() -> None:
    fold = Fold()
    low, first, second, high = (fold.put(priority=priority) for priority in (-10, 0, 0, 10))
    outcome = fold.do(command(Reprioritize, job_id=low, priority=0))
    assert (jobs_of(outcome)[0]["priority"], outcome.data) == (0, {"previous_priority": -10})
    assert fold.take(count=4) == [high, low, first, second]
    assert recount_all(fold.dumps()) == []


@pytest.mark.parametrize("homes", HOMES)
def test_a_change_of_priority_is_an_event_and_the_same_priority_is_none(homes: int) -> None:
    fold = Fold(homes)
    made = fold.put()
    fold.do(command(Reprioritize, job_id=made, priority=5))
    fold.do(command(Reprioritize, job_id=made, priority=5))
    changed = [event for event in fold.events if event.type == "priority.changed"]
    assert [(event.data.previous_priority, event.data.new_priority) for event in changed] == [(0, 5)]


def test_a_scheduled_job_keeps_its_time_and_begins_with_the_new_priority() -> None:
    fold = Fold()
    late = fold.put(delay_ms=MINUTE)
    fold.do(command(Reprioritize, job_id=late, priority=9))
    early = fold.put()
    fold.ticks(after=MINUTE)
    assert fold.take(count=2) == [late, early]


# -- the same for many ----------------------------------------------------------------------------------------


def bulk(action: str, *job_ids: str, states: tuple[str, ...] = STATES, **fields: Any) -> Bulk:
    return command(Bulk, action=action, job_ids=job_ids, states=states, **fields)


def test_a_bulk_command_says_what_became_of_every_id() -> None:
    fold = Fold()
    waiting, done = fold.put(), fold.put()
    fold.do(bulk("cancel", done))
    unknown = client_id()
    outcome = fold.do(bulk("cancel", waiting, done, unknown, reason="incident"))
    wanted = {"done": [waiting], "skipped": {done: "the job is cancelled"}, "missing": [unknown]}
    assert outcome.data == wanted
    last = fold.events[-1]
    assert (last.type, last.data.cancelled_by, last.data.reason) == ("job.cancelled", "test", "incident")


def test_what_has_left_the_wanted_states_meanwhile_is_skipped() -> None:
    fold = Fold()
    made = fold.active()
    outcome = fold.do(bulk("cancel", made, states=("available", "scheduled")))
    assert outcome.data["skipped"] == {made: "the job is active"}
    assert fold.state(made) == "active"


def test_a_thousand_jobs_a_command_and_no_more() -> None:
    fold = Fold()
    ids = [job() for _ in range(1_001)]
    fold.do(enqueue(*ids))
    outcome = fold.do(bulk("cancel", *[each.id for each in ids]))
    assert len(outcome.data["done"]) == 1_000
    assert fold.counts() == {"cancelled": 1_000, "available": 1}


@pytest.mark.parametrize("homes", HOMES)
def test_deleted_jobs_give_their_ids_back(homes: int) -> None:
    fold = Fold(homes)
    mine = client_id(homes, 0)
    fold.put(queue_at(homes - 1, homes), id=mine)
    fold.do(bulk("cancel", mine))
    fold.do(bulk("delete", mine))
    assert (stored_ids(fold), held(fold)) == (set(), [])
    assert fold.put(id=mine) == mine


def _over(fold: Fold, **fields: Any) -> str:
    made = fold.active(**fields)
    fold.do(nack(made, code="DEAD_LETTER"))
    fold.now += HOUR
    return made


@pytest.mark.parametrize("limit", [{"expires_in_ms": MINUTE}, {"total_timeout_ms": MINUTE, "timeout_ms": SECOND}])
def test_a_job_whose_own_time_is_over_is_not_tried_again(limit: dict[str, int]) -> None:
    """It would be discarded again at once, and whoever asked would believe that it runs."""
    fold = Fold()
    made = _over(fold, **limit)
    asked: list[Any] = [command(RetryJob, job_id=made), command(RetryDead, job_id=made)]
    assert [fold.do(one).code for one in asked] == ["conflict", "conflict"]
    outcome: Outcome = fold.do(bulk("retry", made))
    assert outcome.data["skipped"] == {made: "the job is over its expires_at or total_timeout"}


def test_a_partial_enqueue_without_needs_is_one_command() -> None:
    fold = Fold(4)
    jobs = [job(queue_at(home, 4), homes=4) for home in range(4)]
    outcome = fold.do(command(Enqueue, jobs=tuple(jobs), batch=True, partial=True))
    assert [each["id"] for each in jobs_of(outcome)] == [each.id for each in jobs]
