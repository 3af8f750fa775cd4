"""Enqueue: ids of the server and of clients, on one home and over several, all or none."""

from __future__ import annotations

import pytest
from msgspec import Raw

from ojs_stream.core.commands import Ack, Cancel
from ojs_stream.core.homes import home_of
from tests.support.builders import (
    DAY,
    KEEP,
    MINUTE,
    SECOND,
    START,
    Fold,
    client_id,
    command,
    enqueue,
    job,
    jobs_of,
    queue_at,
    tick,
)
from tests.support.recount import recount_all

HOMES = 4


def test_a_new_job_is_available_at_the_record_time() -> None:
    fold = Fold()
    (made,) = jobs_of(fold.do(enqueue(job())))
    assert (made["state"], made["attempt"], made["max_attempts"]) == ("available", 0, 3)
    assert made["created_at"] == made["enqueued_at"] == "2030-03-17T17:46:40.000Z"
    assert not {"started_at", "completed_at", "error", "result", "scheduled_at"} & made.keys()


def test_a_scheduled_job_waits_and_has_no_enqueued_at() -> None:
    fold = Fold()
    (made,) = jobs_of(fold.do(enqueue(job(delay_ms=2 * SECOND))))
    assert (made["state"], made["scheduled_at"]) == ("scheduled", "2030-03-17T17:46:42.000Z")
    assert "enqueued_at" not in made
    assert fold.counts() == {"scheduled": 1}


def test_a_schedule_in_the_past_is_available_at_once() -> None:
    fold = Fold()
    made = fold.put(scheduled=START - 1, scheduled_at="2030-03-17T17:46:39.999Z")
    assert fold.state(made) == "available"


def test_a_relative_expiry_counts_from_the_record_time() -> None:
    fold = Fold()
    made = fold.put(expires_in_ms=2 * SECOND)
    assert fold.record(made).job.expires_at == "2030-03-17T17:46:42.000Z"
    assert fold.record(made).ctl.expires == START + 2 * SECOND


def test_an_absolute_expiry_is_given_back_as_it_was_written() -> None:
    fold = Fold()
    made = fold.put(expires=START + DAY, expires_at="2099-12-31T23:59:59Z")
    assert fold.record(made).job.expires_at == "2099-12-31T23:59:59Z"


def test_a_batch_is_answered_in_the_order_of_the_request() -> None:
    fold = Fold(HOMES)
    asked = [job(queue_at(home, HOMES), homes=HOMES) for home in (2, 0, 3, 1, 2)]
    assert [made["id"] for made in jobs_of(fold.do(enqueue(*asked)))] == [each.id for each in asked]
    assert all(fold.state(each.id) == "available" for each in asked)


def test_jobs_of_a_batch_at_other_homes_carry_the_time_of_the_first() -> None:
    fold = Fold(HOMES, deliver=False)
    near, far = (job(queue_at(home, HOMES), homes=HOMES) for home in (0, 1))
    outcome = fold.do(enqueue(near, far))
    fold.now += MINUTE
    fold.deliver_all()
    assert fold.record(far.id).job.created_at == fold.record(near.id).job.created_at
    assert outcome.awaits == ((0, 1, 1),)


@pytest.mark.parametrize("homes", [1, HOMES])
def test_a_client_id_is_kept_and_cannot_be_used_twice(homes: int) -> None:
    fold = Fold(homes)
    mine = client_id()
    assert fold.put(id=mine) == mine
    again = fold.do(enqueue(job(queue_at(homes - 1, homes), id=mine)))
    assert again.code == "duplicate"
    assert again.details["existing_job_id"] == mine
    assert len(fold.events) == 1


def test_a_server_made_job_stays_when_its_id_arrives_as_a_clients() -> None:
    """Views and the bulk agent look first; what slips through must not tear counters and indexes."""
    fold = Fold(HOMES)
    for home in range(HOMES):
        queue = queue_at(home, HOMES)
        made = fold.put(queue)
        (mine,) = fold.take(queue)
        assert mine == made
        fold.do(enqueue(job(queue, id=made)))
        assert fold.state(made) == "active"
        assert fold.counts(queue) == {"active": 1}
    assert recount_all(fold.dumps()) == []


def test_a_client_id_twice_in_one_batch_is_refused() -> None:
    fold = Fold()
    mine = client_id()
    assert fold.do(enqueue(job(id=mine), job(id=mine))).code == "duplicate"
    assert fold.counts() == {}


def test_a_client_id_of_a_finished_job_stays_taken_until_it_is_removed() -> None:
    fold = Fold(HOMES)
    mine = client_id(HOMES, 1)
    fold.active(queue_at(2, HOMES), id=mine)
    fold.do(command(Ack, job_id=mine))
    assert fold.do(enqueue(job(id=mine))).code == "duplicate"
    fold.ticks(after=KEEP.completed_ms)
    assert fold.find(mine) is None
    assert fold.put(id=mine) == mine


def test_a_staged_batch_is_stored_when_every_home_says_yes() -> None:
    fold = Fold(HOMES)
    ids = [client_id(HOMES, home) for home in range(HOMES)]
    asked = [job(queue_at(3 - n, HOMES), id=one) for n, one in enumerate(ids)]
    made = jobs_of(fold.do(enqueue(*asked)))
    assert [each["id"] for each in made] == ids
    assert [fold.where(one) for one in ids] == [3, 2, 1, 0]
    assert recount_all(fold.dumps()) == []


def test_a_staged_batch_with_one_taken_id_stores_nothing_and_releases_the_others() -> None:
    fold = Fold(HOMES)
    ids = [client_id(HOMES, home) for home in range(HOMES)]
    taken = fold.put(id=ids[2])
    outcome = fold.do(enqueue(*[job(id=one) for one in ids]))
    assert (outcome.code, outcome.details["existing_job_id"]) == ("duplicate", taken)
    assert [fold.find(one) is None for one in ids] == [True, True, False, True]
    assert recount_all(fold.dumps()) == []
    assert fold.put(id=ids[3]) == ids[3]


def test_a_stage_that_is_not_decided_in_time_is_aborted_and_its_late_answers_change_nothing() -> None:
    fold = Fold(HOMES, deliver=False)
    ids = [client_id(HOMES, home) for home in range(3)]
    assert fold.do(enqueue(*[job(id=one) for one in ids])).code == "silent"
    reserves, fold.held = fold.held, []
    fold.now += 8 * SECOND
    assert fold.do(tick("reap"), home=home_of(ids[0], HOMES)).data["moved"] == 1
    fold.held = reserves + fold.held
    fold.deliver_all()
    assert [fold.find(one) for one in ids] == [None, None, None]
    assert recount_all(fold.dumps()) == []
    fold.deliver = True
    assert [fold.put(id=one) for one in ids] == ids


def test_two_batches_that_want_the_same_ids_end_with_one_winner_at_most() -> None:
    fold = Fold(HOMES, deliver=False)
    ids = [client_id(HOMES, home) for home in range(2)]
    first, second = (enqueue(*[job(id=one) for one in order]) for order in (ids, ids[::-1]))
    fold.do(first)
    fold.do(second)
    fold.deliver_all()
    stored = [fold.find(one) is not None for one in ids]
    assert stored in ([True, True], [False, False])
    assert recount_all(fold.dumps()) == []


def test_a_cancelled_job_frees_its_client_id_after_its_retention() -> None:
    fold = Fold(HOMES)
    mine = fold.put(queue_at(1, HOMES), id=client_id(HOMES, 0))
    fold.do(command(Cancel, job_id=mine))
    fold.ticks(after=KEEP.cancelled_ms)
    assert recount_all(fold.dumps()) == []
    assert not any(name.startswith("id:") for dump in fold.dumps() for name in dump)


@pytest.mark.parametrize(
    "text",
    [b"[18446744073709551616,-9223372036854775809]", b"[1e400,0.1000,1E2]", b'[ {"a" : "\\u00e9\xc3\xa9"} ]'],
)
def test_args_meta_and_result_are_the_bytes_that_came(text: bytes) -> None:
    fold = Fold(HOMES)
    meta = b'{"deep":' + text + b"}"
    made = fold.active("bytes", args=Raw(text), meta=Raw(meta), extra=Raw(b'{"x_mine":' + text + b"}"))
    (answer,) = fold.do(command(Ack, job_id=made, result=Raw(text))).jobs
    record = fold.record(made)
    assert (bytes(record.job.args), bytes(record.job.meta), bytes(record.job.result)) == (text, meta, text)  # type: ignore[arg-type]
    assert bytes(answer).count(text) == 4
    assert bytes(answer).endswith(b',"x_mine":' + text + b"}")
