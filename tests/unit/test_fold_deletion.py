"""Purge and deletion of queues: what goes, what moves, what stays, and that nothing is left behind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from ojs_stream.core.commands import (
    Ack,
    Beat,
    Cancel,
    Configure,
    DeleteQueue,
    Pause,
    Purge,
    Resume,
)
from ojs_stream.core.config_body import parse_config_body
from ojs_stream.core.fold import deletion
from ojs_stream.core.homes import home_of
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import UniqueRule
from ojs_stream.core.states import State
from tests.support.builders import (
    DAY,
    MINUTE,
    SECOND,
    Fold,
    client_id,
    command,
    enqueue,
    job,
    jobs_of,
    nack,
    policy,
    queue_at,
)
from tests.support.recount import recount_all

both = pytest.mark.parametrize("homes", [1, 4])


def purge(fold: Fold, queue: str, state: State, **fields: Any) -> Outcome:
    return fold.do(command(Purge, queue=queue, state=state, **fields))


def delete(fold: Fold, queue: str, strategy: str = "reject", target: str = "") -> Outcome:
    return fold.do(command(DeleteQueue, queue=queue, strategy=strategy, target=target))


def keys(fold: Fold, word: str) -> list[str]:
    return sorted(name for dump in fold.dumps() for name in dump if word in name.split(":"))


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(deletion, "STEP_JOBS_MAX", 3)
    return 3


# -- purge ----------------------------------------------------------------------------------------------------


@both
def test_a_purge_takes_records_indexes_counters_ids_and_locks(homes: int) -> None:
    fold = Fold(homes)
    lock = UniqueRule(key="ab" * 32, home=homes - 1, states=("available",))
    own = client_id(homes)
    fold.put("mail", id=own)
    fold.put("mail", unique=lock)
    stays = fold.active("mail", priority=100)
    assert purge(fold, "mail", "available").data == {"purged": 2, "more": False}
    assert fold.counts("mail") == {"active": 1}
    assert fold.state(stays) == "active"
    assert keys(fold, own) == keys(fold, lock.key) == []
    assert recount_all(fold.dumps()) == []


@both
def test_a_purge_is_bounded_and_counts_exactly(homes: int, small_steps: int) -> None:
    fold = Fold(homes)
    for _ in range(7):
        fold.put("mail")
    told = [purge(fold, "mail", "available").data for _ in range(3)]
    assert [each["purged"] for each in told] == [small_steps, small_steps, 1]
    assert [each["more"] for each in told] == [True, True, False]
    assert fold.counts("mail") == {}


def test_a_purge_spares_what_ended_lately() -> None:
    fold = Fold(4)
    ids = [fold.active("mail") for _ in range(3)]
    for job_id in ids:
        fold.do(command(Ack, job_id=job_id), after=MINUTE)
    assert purge(fold, "mail", "completed", before=fold.now - 30 * SECOND).data == {"purged": 2, "more": False}
    assert [fold.find(job_id) is None for job_id in ids] == [True, True, False]


def test_a_purged_active_job_is_lost_to_its_worker() -> None:
    fold = Fold(4)
    job_id = fold.active("mail")
    assert purge(fold, "mail", "active").data["purged"] == 1
    assert fold.do(command(Ack, job_id=job_id)).code == "not_found"
    assert recount_all(fold.dumps()) == []


def test_a_purge_of_a_queue_that_nobody_knows_finds_nothing() -> None:
    assert purge(Fold(4), "mail", "available").data == {"purged": 0, "more": False}


# -- reject ---------------------------------------------------------------------------------------------------


@both
def test_a_queue_in_use_is_not_deleted(homes: int) -> None:
    fold = Fold(homes)
    fold.put("mail")
    assert (delete(fold, "mail").code, fold.counts("mail")) == ("conflict", {"available": 1})
    assert delete(fold, "nowhere").code == "not_found"


@both
def test_an_empty_queue_goes_with_its_configuration_and_statistics(homes: int) -> None:
    fold = Fold(homes)
    body = parse_config_body("mail", b'{"max_size": 3}')
    fold.do(command(Configure, queue="mail", config=body.config, names=body.names))
    done = fold.active("mail")
    fold.do(command(Ack, job_id=done))
    purge(fold, "mail", "completed")
    assert keys(fold, "mail") != []
    assert delete(fold, "mail").data == {"jobs_affected": 0, "deleted": True}
    assert keys(fold, "mail") == []
    fold.put("mail")
    assert fold.counts("mail") == {"available": 1}
    assert recount_all(fold.dumps()) == []


@both
def test_finished_jobs_of_a_deleted_queue_are_found_until_their_retention_is_over(homes: int) -> None:
    fold = Fold(homes)
    done = fold.active("mail")
    fold.do(command(Ack, job_id=done))
    delete(fold, "mail")
    assert fold.state(done) == "completed"
    assert all("mail" not in dump.get("queues", {}) for dump in fold.dumps()), "no client sees the queue"
    assert recount_all(fold.dumps()) == []
    fold.ticks(after=8 * DAY)
    assert keys(fold, "mail") == keys(fold, done) == []


@both
def test_a_deleted_queue_begins_again_at_first_sight(homes: int) -> None:
    fold = Fold(homes)
    done = fold.active("mail")
    fold.do(command(Ack, job_id=done))
    fold.do(command(Pause, queue="mail"))
    delete(fold, "mail")
    new = fold.put("mail")
    assert fold.take("mail") == [new], "nobody has paused this one"
    fold.ticks(after=8 * DAY)
    assert fold.find(done) is None
    assert recount_all(fold.dumps()) == []


def test_a_queue_that_goes_and_comes_in_one_record_counts_from_nothing() -> None:
    """However the commands fall into rounds, the state is the same."""
    together, apart = Fold(), Fold()
    steps = [
        enqueue(job("mail", id="0197f0a0-1111-7000-9000-0000000000aa")),
        command(Cancel, job_id="0197f0a0-1111-7000-9000-0000000000aa"),
        command(Purge, queue="mail", state="cancelled"),
        command(DeleteQueue, queue="mail", strategy="reject"),
        enqueue(job("mail", id="0197f0a0-1111-7000-9000-0000000000bb")),
    ]
    assert not any(outcome.refused for outcome in together.do_all(steps))
    for step in steps:
        assert not apart.do(step).refused
    queues = [json.loads(fold.dump()["queue:mail"]) for fold in (together, apart)]
    assert queues[0] == queues[1]
    assert keys(together, "mail") == keys(apart, "mail")
    assert recount_all(together.dumps()) == []


# -- discard --------------------------------------------------------------------------------------------------


@both
def test_discard_ends_what_waits_and_what_runs(homes: int) -> None:
    fold = Fold(homes)
    running = fold.active("mail")
    waiting = [fold.put("mail"), fold.put("mail", delay_ms=MINUTE), fold.put("mail", pending=True)]
    assert delete(fold, "mail", "discard").data == {"jobs_affected": 4, "deleted": True}
    for job_id in (running, *waiting):
        record = fold.record(job_id)
        assert record.job.state == "discarded"
        assert record.job.error is not None
        assert record.job.error.type == "queue_deleted"
    assert fold.event_types(waiting[0])[-1] == "job.discarded"
    assert "job.failed" not in fold.event_types(waiting[0]), "it never ran"
    assert fold.do(command(Ack, job_id=running)).code == "conflict"
    assert keys(fold, "config") == []
    assert recount_all(fold.dumps()) == []


@both
def test_a_long_queue_is_discarded_step_by_step(homes: int, small_steps: int) -> None:
    fold = Fold(homes)
    ids = [fold.put("mail") for _ in range(3 * small_steps + 1)]
    assert delete(fold, "mail", "discard").data["jobs_affected"] == len(ids)
    assert {fold.state(job_id) for job_id in ids} == {"discarded"}
    assert fold.counts("mail") == {"discarded": len(ids)}
    assert recount_all(fold.dumps()) == []


def test_while_it_is_emptied_a_queue_takes_nothing_and_is_changed_by_nobody(small_steps: int) -> None:
    fold = Fold(4, deliver=False)
    for _ in range(small_steps + 1):
        fold.put("mail")
    assert delete(fold, "mail", "discard").data["deleted"] is False
    assert fold.do(command(Resume, queue="mail")).code == "conflict"
    assert delete(fold, "mail", "discard").code == "conflict"
    body = parse_config_body("mail", b'{"max_size": 3}')
    assert fold.do(command(Configure, queue="mail", config=body.config, names=body.names)).code == "conflict"
    assert fold.do(enqueue(job("mail", homes=4))).code == "queue_draining"
    fold.deliver_all()
    fold.put("mail")


# -- move -----------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("far", [False, True], ids=["same home", "other home"])
def test_jobs_move_in_order_and_are_found_where_they_are(homes: int, far: bool) -> None:
    fold = Fold(homes)
    target = queue_at((home_of("mail", homes) + far) % homes, homes, "target")
    there = fold.put(target)
    first, own = fold.put("mail"), fold.put("mail", id=client_id(homes))
    urgent, later = fold.put("mail", priority=9), fold.put("mail", delay_ms=MINUTE)
    assert delete(fold, "mail", "move", target).data == {"jobs_affected": 4, "deleted": True}
    assert fold.counts(target) == {"available": 4, "scheduled": 1}
    assert fold.record(later).job.queue == target
    assert fold.take(target, count=9) == [urgent, there, first, own]
    # A command by an id whose bits name the old home is sent on.
    old = home_of("mail", homes)
    fold.do(command(Ack, job_id=first), home=old)
    assert fold.state(first) == "completed"
    fold.ticks(after=2 * MINUTE)
    assert fold.state(later) == "available"
    assert keys(fold, "mail") == []
    assert recount_all(fold.dumps()) == []


@both
def test_a_retry_waits_on_in_the_other_queue(homes: int) -> None:
    fold = Fold(homes)
    target = queue_at(homes - 1, homes, "target")
    failed = fold.active("mail", retry=policy(initial_ms=MINUTE, max_ms=MINUTE))
    fold.do(nack(failed))
    delete(fold, "mail", "move", target)
    assert (fold.state(failed), fold.counts(target)) == ("retryable", {"retryable": 1})
    fold.ticks(after=2 * MINUTE)
    assert fold.take(target) == [failed]
    assert fold.record(failed).job.attempt == 2
    assert recount_all(fold.dumps()) == []


@both
def test_active_jobs_end_before_the_queue_does(homes: int) -> None:
    fold = Fold(homes)
    target = queue_at(homes - 1, homes, "target")
    acked, failing = fold.active("mail"), fold.active("mail")
    assert delete(fold, "mail", "move", target).data == {"jobs_affected": 2, "deleted": False}
    fold.do(command(Ack, job_id=acked))
    fold.do(nack(failing))
    fold.ticks(after=2 * SECOND)
    assert fold.record(failing).job.queue == target, "what came back moves as well"
    assert fold.state(acked) == "completed"
    assert all("mail" not in dump.get("queues", {}) for dump in fold.dumps())
    assert recount_all(fold.dumps()) == []


@both
def test_a_long_queue_moves_step_by_step(homes: int, small_steps: int) -> None:
    fold = Fold(homes)
    target = queue_at(homes - 1, homes, "target")
    ids = [fold.put("mail") for _ in range(3 * small_steps + 1)]
    delete(fold, "mail", "move", target)
    assert fold.take(target, count=99) == ids
    assert recount_all(fold.dumps()) == []


def test_a_moved_job_keeps_its_lock() -> None:
    fold = Fold(4)
    target = queue_at((home_of("mail", 4) + 1) % 4, 4, "target")
    lock = UniqueRule(key="cd" * 32, home=2, states=("available", "active"))
    first = fold.put("mail", unique=lock)
    delete(fold, "mail", "move", target)
    assert fold.do(enqueue(job("post", homes=4, unique=lock))).code == "duplicate"
    replacing = structs.replace(lock, on_conflict="replace")
    (second,) = jobs_of(fold.do(enqueue(job("post", homes=4, unique=replacing))))
    assert (fold.state(first), fold.state(second["id"])) == ("cancelled", "available")


def test_nothing_moves_into_a_queue_that_is_emptied_itself() -> None:
    fold = Fold(4)
    fold.active("one")
    fold.put("two")
    delete(fold, "one", "move", "three")
    assert delete(fold, "two", "move", "one").code == "conflict"


def test_a_silent_worker_of_a_deleted_queue_gives_its_job_to_the_other() -> None:
    fold = Fold(4)
    target = queue_at((home_of("mail", 4) + 1) % 4, 4, "target")
    fold.do(command(Beat, worker_id="w1", dead_after_ms=3_000))
    held = fold.active("mail")
    delete(fold, "mail", "move", target)
    fold.ticks(after=4 * SECOND)
    fold.ticks(after=2 * SECOND)
    fold.ticks(after=2 * SECOND)
    assert (fold.state(held), fold.record(held).job.queue) == ("available", target)
    assert recount_all(fold.dumps()) == []
