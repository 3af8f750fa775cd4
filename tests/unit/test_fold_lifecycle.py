"""Cancel, promote, dead letters and jobs that move, workers, ticks, retention, reset."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from ojs_stream.core.commands import (
    Ack,
    Beat,
    Cancel,
    DeleteDead,
    Direct,
    Pause,
    Promote,
    RemoveWorker,
    Reset,
    RetryDead,
)
from ojs_stream.core.records import Retention
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
    tick,
    worker_at,
)
from tests.support.recount import recount_all

HOMES = 4


def _dead(fold: Fold, queue: str = "default", **fields: Any) -> str:
    made = fold.active(queue, **fields)
    fold.do(nack(made, code="DEAD_LETTER"))
    return made


# -- cancel, promote ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["pending", "scheduled", "available", "active"])
def test_a_cancelled_job_says_where_it_was_and_who_did_it(state: str) -> None:
    fold = Fold()
    fields = {"pending": {"pending": True}, "scheduled": {"delay_ms": MINUTE}}.get(state, {})
    made = fold.active() if state == "active" else fold.put(**fields)
    outcome = fold.do(command(Cancel, job_id=made, reason="not wanted"))
    assert outcome.data == {"previous_state": state}
    assert fold.events[-1].data.cancelled_by == "test"
    assert fold.events[-1].data.reason == "not wanted"
    assert fold.do(command(Ack, job_id=made)).code == "conflict"


@pytest.mark.parametrize(("attempt", "after", "moved"), [(1, 1000, 1), (1, 999, 0), (2, 1000, 0), (0, 1000, 0)])
def test_a_promote_moves_only_its_own_attempt_and_only_when_it_is_due(
    attempt: int, after: int, moved: int
) -> None:
    fold = Fold()
    made = fold.active()
    fold.do(nack(made))
    assert fold.do(command(Promote, job_id=made, attempt=attempt), after=after).data == {"moved": moved}


def test_a_promote_that_comes_twice_or_for_nobody_is_nothing() -> None:
    fold = Fold()
    made = fold.active()
    fold.do(nack(made))
    asked = command(Promote, job_id=made, attempt=1)
    assert [fold.do(asked, after=SECOND).data["moved"] for _ in range(2)] == [1, 0]
    assert fold.do(command(Promote, job_id="gone", attempt=1)).data == {"moved": 0}


# -- dead letters -------------------------------------------------------------------------------------------


def test_a_dead_letter_is_a_record_in_the_topic_with_the_whole_job() -> None:
    fold = Fold()
    made = _dead(fold)
    (effect,) = fold.effects_of("dead")
    assert (effect.key, effect.headers["ojs-queue"]) == (made, "default")
    assert msgspec.json.decode(effect.value)["error"]["code"] == "DEAD_LETTER"


def test_a_discarded_job_that_is_no_dead_letter_is_not_found_there() -> None:
    fold = Fold()
    made = fold.active()
    fold.do(nack(made, retryable=False))
    assert fold.do(command(RetryDead, job_id=made)).code == "not_found"
    assert fold.do(command(DeleteDead, job_id=made)).code == "not_found"


def test_a_retried_dead_letter_begins_anew_with_what_was_asked() -> None:
    fold = Fold()
    made = _dead(fold)
    change = {"args": Raw(b"[2]"), "meta": Raw(b'{"m":1}'), "priority": 7, "retry": policy(max_attempts=9)}
    (answer,) = jobs_of(fold.do(command(RetryDead, job_id=made, **change)))
    assert (answer["state"], answer["attempt"], answer["priority"]) == ("available", 0, 7)
    assert (answer["args"], answer["meta"], answer["max_attempts"]) == ([2], {"m": 1}, 9)
    assert answer["re_enqueued_at"]
    assert not {"error", "errors", "completed_at", "discarded_at"} & answer.keys()
    assert fold.take() == [made]
    assert fold.record(made).job.attempt == 1
    assert recount_all(fold.dumps()) == []


def test_a_dead_letter_for_another_queue_of_this_home_moves_its_counters() -> None:
    fold = Fold()
    made = _dead(fold)
    fold.do(command(RetryDead, job_id=made, queue="other"))
    assert (fold.counts(), fold.counts("other")) == ({}, {"available": 1})
    assert recount_all(fold.dumps()) == []


@pytest.mark.parametrize("by_client", [False, True])
def test_a_job_that_moves_to_another_home_is_found_by_every_later_command(by_client: bool) -> None:
    fold = Fold(HOMES)
    near, far = queue_at(0, HOMES), queue_at(1, HOMES)
    made = _dead(fold, near, **({"id": client_id(HOMES, 2)} if by_client else {}))
    (answer,) = jobs_of(fold.do(command(RetryDead, job_id=made, queue=far)))
    assert (answer["queue"], answer["state"]) == (far, "available")
    assert fold.dump(0)[f"job:{made}"] == b'{"moved":1}'
    assert fold.take(far) == [made]
    assert not fold.do(command(Ack, job_id=made), home=0).refused
    assert fold.state(made) == "completed"
    fold.ticks(after=7 * DAY)
    assert not any(made in name for dump in fold.dumps() for name in dump)
    assert recount_all(fold.dumps()) == []


def test_the_old_home_of_a_job_says_who_will_answer() -> None:
    fold = Fold(HOMES)
    made = _dead(fold, queue_at(0, HOMES))
    fold.do(command(RetryDead, job_id=made, queue=queue_at(1, HOMES)))
    fold.deliver = False
    assert fold.do(command(Cancel, job_id=made), home=0).forwarded == 1
    assert fold.state(made) == "available"
    fold.deliver_all()
    assert fold.state(made) == "cancelled"


def test_a_job_that_moves_back_replaces_its_own_note() -> None:
    fold = Fold(HOMES)
    near, far = queue_at(0, HOMES), queue_at(1, HOMES)
    made = _dead(fold, near)
    fold.do(command(RetryDead, job_id=made, queue=far))
    fold.take(far)
    fold.do(nack(made, code="DEAD_LETTER"))
    fold.do(command(RetryDead, job_id=made, queue=near))
    assert fold.where(made) == 0
    fold.do(command(Cancel, job_id=made), home=1)
    assert fold.state(made) == "cancelled"
    fold.ticks(after=7 * DAY)
    assert not any(made in name for dump in fold.dumps() for name in dump)


def test_a_deleted_dead_letter_frees_its_id() -> None:
    fold = Fold(HOMES)
    mine = client_id(HOMES, 2)
    _dead(fold, queue_at(1, HOMES), id=mine)
    outcome = fold.do(command(DeleteDead, job_id=mine))
    assert outcome.awaits == ((1, 2, 1),)
    assert fold.find(mine) is None
    assert recount_all(fold.dumps()) == []
    assert fold.put(id=mine) == mine


# -- workers ------------------------------------------------------------------------------------------------


def _beat(fold: Fold, worker: str, **fields: Any) -> str:
    return str(fold.do(command(Beat, worker_id=worker, **fields)).data["directive"])


def test_a_worker_is_told_what_was_asked_of_it_at_its_next_beat() -> None:
    fold = Fold()
    assert _beat(fold, "w1") == "running"
    fold.do(command(Direct, worker_id="w1", directive="quiet"))
    assert _beat(fold, "w1", state="running") == "quiet"


@pytest.mark.parametrize(
    ("directive", "reported", "answer"),
    [
        ("running", "quiet", "quiet"),
        ("quiet", "running", "quiet"),
        ("quiet", "terminate", "terminate"),
        ("terminate", "quiet", "terminate"),
        ("terminate", "running", "terminate"),
        ("running", "drain", "running"),
    ],
)
def test_a_directive_never_goes_down_by_what_a_worker_reports(directive: str, reported: str, answer: str) -> None:
    fold = Fold()
    _beat(fold, "w1")
    fold.do(command(Direct, worker_id="w1", directive=directive))
    assert _beat(fold, "w1", state=reported) == answer
    assert _beat(fold, "w1") == answer


def test_a_beat_keeps_what_it_does_not_say() -> None:
    fold = Fold()
    _beat(fold, "w1", hostname="here", pid=7, queues=("a",), labels=Raw(b'{"x":1}'), concurrency=3, version="1")
    _beat(fold, "w1")
    worker = msgspec.json.decode(fold.dump()["worker:w1"])
    assert (worker["hostname"], worker["pid"], worker["queues"], worker["labels"]) == ("here", 7, ["a"], {"x": 1})


@pytest.mark.parametrize("kind", [Direct, RemoveWorker])
def test_an_unknown_worker_is_not_found(kind: Any) -> None:
    fields = {"directive": "quiet"} if kind is Direct else {}
    assert Fold().do(command(kind, worker_id="nobody", **fields)).code == "not_found"


def test_a_worker_that_signs_off_is_gone_and_its_leases_stay() -> None:
    fold = Fold()
    made = fold.active()
    _beat(fold, "w1")
    fold.do(command(RemoveWorker, worker_id="w1"))
    assert "worker:w1" not in fold.dump()
    assert fold.state(made) == "active"
    assert recount_all(fold.dumps()) == []


def test_a_silent_worker_loses_its_leases_at_every_home_and_is_forgotten_later() -> None:
    fold = Fold(HOMES)
    worker = worker_at(3, HOMES)
    ids = [fold.active(queue_at(home, HOMES), worker=worker) for home in range(HOMES)]
    other = fold.active(queue_at(0, HOMES), worker="somebody")
    last = fold.active(queue_at(1, HOMES), worker=worker, retry=policy(max_attempts=1))
    _beat(fold, worker, keep_ms=DAY)
    for _ in range(15):
        for home in range(HOMES):
            fold.do(tick("reap"), home=home)
        fold.now += 2 * SECOND
    assert [fold.state(one) for one in ids] == ["active"] * HOMES
    fold.ticks()
    assert [fold.state(one) for one in ids] == ["available"] * HOMES
    assert (fold.state(other), fold.state(last)) == ("active", "discarded")
    error = fold.record(ids[0]).job.error
    assert error is not None
    assert error.type == "worker_death"
    assert recount_all(fold.dumps()) == []
    fold.ticks(after=DAY)
    assert f"worker:{worker}" not in fold.dump(3)


def test_a_worker_that_never_beat_is_never_silent() -> None:
    fold = Fold()
    made = fold.active()
    for _ in range(30):
        fold.do(tick("reap"), after=2 * SECOND)
    assert fold.state(made) == "active"


def test_more_leases_than_one_message_takes_back_follow_in_the_next() -> None:
    fold = Fold()
    fold.do(enqueue(*[job() for _ in range(1_001)]))
    for _ in range(11):
        fold.take(count=100)
    _beat(fold, "w1")
    for _ in range(15):
        fold.do(tick("reap"), after=2 * SECOND)
    assert fold.counts() == {"available": 1_001}
    assert recount_all(fold.dumps()) == []


# -- ticks, retention ---------------------------------------------------------------------------------------


def test_a_tick_is_bounded_and_says_that_more_is_left() -> None:
    fold = Fold()
    fold.do(enqueue(*[job(delay_ms=SECOND) for _ in range(300)]))
    fold.now += SECOND
    assert fold.do(tick("run")).data == {"moved": 256, "more": True}
    assert fold.do(tick("run")).data == {"moved": 44, "more": False}
    assert fold.do(tick("run")).data == {"moved": 0, "more": False}


def test_due_jobs_become_available_in_the_order_of_their_instants() -> None:
    fold = Fold()
    late, early = fold.put(delay_ms=2 * SECOND), fold.put(delay_ms=SECOND)
    fold.now += 3 * SECOND
    fold.do(tick("run"))
    assert fold.take(count=2) == [early, late]


def test_jobs_that_time_out_in_one_tick_have_dice_of_their_own() -> None:
    fold = Fold()
    ids = [fold.active(timeout_ms=3 * SECOND, retry=policy(jitter=True, initial_ms=MINUTE)) for _ in range(5)]
    fold.do(tick("reap"), after=3 * SECOND)
    assert len({fold.record(one).job.retry_delay_ms for one in ids}) == 5


@pytest.mark.parametrize("by_client", [False, True])
def test_after_its_retention_nothing_of_a_job_is_left(by_client: bool) -> None:
    fold = Fold(HOMES)
    made = fold.active(queue_at(1, HOMES), **({"id": client_id(HOMES, 3)} if by_client else {}))
    fold.do(command(Ack, job_id=made))
    fold.ticks(after=7 * DAY - 1)
    assert fold.state(made) == "completed"
    fold.ticks(after=1)
    assert not any(made in name for dump in fold.dumps() for name in dump)
    assert not any(made in index for dump in fold.dumps() for index in dump.values() if isinstance(index, dict))
    assert fold.counts(queue_at(1, HOMES)) == {}
    assert recount_all(fold.dumps()) == []


def test_a_negative_retention_keeps_a_job_for_ever() -> None:
    fold = Fold()
    made = fold.active(retention=Retention(-1, -1, -1, -1))
    fold.do(command(Ack, job_id=made))
    fold.ticks(after=10_000 * DAY)
    assert fold.state(made) == "completed"


# -- reset --------------------------------------------------------------------------------------------------


def test_a_reset_forgets_every_record_and_keeps_the_position() -> None:
    fold = Fold()
    fold.active()
    fold.do(command(Pause, queue="q"))
    _beat(fold, "w1")
    sequence = msgspec.json.decode(fold.dump()["home"])["sequence"]
    assert fold.do(command(Reset)).data == {"epoch": 1}
    dump = fold.dump()
    assert set(dump) == {"applied", "home"}
    assert msgspec.json.decode(dump["home"])["sequence"] == sequence
    assert recount_all(fold.dumps()) == []
    assert fold.take() == []
    fold.put()
    assert recount_all(fold.dumps()) == []


def test_messages_and_promotes_of_an_older_epoch_change_nothing() -> None:
    fold = Fold(HOMES, deliver=False)
    far = job(queue_at(1, HOMES), homes=HOMES)
    fold.do(enqueue(job(queue_at(0, HOMES), homes=HOMES), far))
    fold.do(command(Reset), home=1)
    fold.deliver_all()
    assert fold.find(far.id) is None
    failed = fold.active(queue_at(1, HOMES))
    fold.do(nack(failed))
    assert fold.do(command(Promote, job_id=failed, attempt=1, epoch=0), after=SECOND).code == "conflict"
    assert fold.do(command(Promote, job_id=failed, attempt=1, epoch=1)).data == {"moved": 1}


def test_a_message_of_an_older_epoch_still_counts_as_folded() -> None:
    fold = Fold(HOMES, deliver=False)
    fold.do(enqueue(job(queue_at(0, HOMES), homes=HOMES), job(queue_at(1, HOMES), homes=HOMES)))
    fold.do(command(Reset), home=1)
    fold.deliver_all()
    assert msgspec.json.decode(fold.dump(1)["home"])["marks"] == {"0": 1}


def test_commands_before_and_after_a_reset_may_share_its_record() -> None:
    fold = Fold()
    old, new = job(), job()
    fold.do(enqueue(job()))
    fold.do_all([enqueue(old), command(Reset), enqueue(new)])
    assert fold.find(old.id) is None
    assert fold.counts() == {"available": 1}
    assert list(fold.dump()["events"]) == ["3"]
    assert recount_all(fold.dumps()) == []
