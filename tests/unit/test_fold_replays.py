"""Idempotency keys: the same request with the same key changes the world once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from ojs_stream.core.commands import Bulk, Enqueue, NewJob
from ojs_stream.core.fold.replays import REPLAY_MS, WAITING_MAX
from ojs_stream.core.homes import home_of
from tests.support.builders import SECOND, Fold, client_id, command, enqueue, job, queue_at, tick
from tests.support.recount import recount_all

HOMES = [1, 4]
KEY = "anonymous/jobs/import 42"
FAR = queue_at((home_of(KEY, 4) + 2) % 4, 4)
"""A queue of another home than the key's, of four."""


def asked(*jobs: NewJob, body: str = "b1", **fields: Any) -> Enqueue:
    return structs.replace(enqueue(*jobs), replay=KEY, body=body, **fields)


def ids_of(outcome: Any) -> list[str]:
    assert not outcome.refused, outcome
    return [json.loads(bytes(each))["id"] for each in outcome.jobs]


def events(fold: Fold) -> int:
    return sum(event.type == "job.enqueued" for event in fold.events)


@pytest.mark.parametrize("homes", HOMES)
def test_a_repeat_stores_nothing_and_is_answered_the_first_jobs(homes: int) -> None:
    """The first answer was lost: the client sends the request again, the server makes new ids for it."""
    fold = Fold(homes)
    queues = [queue_at(home % homes, homes) for home in range(3)]
    first = fold.do(asked(*[job(queue, homes=homes) for queue in queues]))
    again = fold.do(asked(*[job(queue, homes=homes) for queue in queues]))
    assert ids_of(again) == ids_of(first)
    assert ("replayed" in first.data, again.data["replayed"]) == (False, True)
    assert events(fold) == 3
    assert all(b'"args"' not in bytes(each) for each in again.jobs)
    assert recount_all(fold.dumps()) == []


@pytest.mark.parametrize("homes", HOMES)
def test_another_request_with_the_key_is_refused(homes: int) -> None:
    fold = Fold(homes)
    fold.do(asked(job(homes=homes)))
    assert fold.do(asked(job(homes=homes), body="b2")).code == "idempotency_mismatch"
    assert events(fold) == 1


@pytest.mark.parametrize("homes", HOMES)
def test_a_key_is_forgotten_after_a_day(homes: int) -> None:
    fold = Fold(homes)
    fold.do(asked(job(homes=homes)))
    assert fold.do(asked(job(homes=homes)), after=REPLAY_MS - 1).data["replayed"]
    fold.ticks(after=1)
    assert not any(name.startswith("replay:") for dump in fold.dumps() for name in dump)
    assert "replayed" not in fold.do(asked(job(homes=homes))).data
    assert recount_all(fold.dumps()) == []


def test_a_key_that_no_tick_has_removed_yet_is_new_after_its_day() -> None:
    fold = Fold()
    fold.do(asked(job()))
    assert "replayed" not in fold.do(asked(job(), body="b2"), after=REPLAY_MS).data


@pytest.mark.parametrize("homes", HOMES)
def test_a_refusal_is_not_kept(homes: int) -> None:
    fold = Fold(homes)
    taken = [client_id(homes, home % homes) for home in range(2)]
    fold.put(id=taken[1])
    assert fold.do(asked(*[job(id=one) for one in taken])).code == "duplicate"
    assert not any(name.startswith("replay:") for dump in fold.dumps() for name in dump)
    assert not fold.do(asked(job(homes=homes), body="b2")).refused


@pytest.mark.parametrize("homes", HOMES)
def test_a_partial_batch_of_which_nothing_is_stored_is_not_kept(homes: int) -> None:
    fold = Fold(homes)
    mine = fold.put(id=client_id())
    refused = fold.do(asked(job(id=mine), partial=True))
    assert refused.data["refused"]["0"]["code"] == "duplicate"
    assert "replayed" not in fold.do(asked(job(id=mine), partial=True)).data


@pytest.mark.parametrize("homes", HOMES)
def test_a_repeat_with_the_clients_own_ids_is_answered_the_same_jobs(homes: int) -> None:
    fold = Fold(homes)
    mine = [client_id(homes, home % homes) for home in range(3)]
    first = fold.do(asked(*[job(id=one) for one in mine]))
    again = fold.do(asked(*[job(id=one) for one in mine]))
    assert ids_of(first) == ids_of(again) == mine
    assert events(fold) == 3


def staged(fold: Fold) -> tuple[list[str], str]:
    """A batch that waits for another home, and a repeat of it that waits with it; (ids, who repeats)."""
    home = home_of(KEY, fold.homes)
    mine = [client_id(fold.homes, (home + place) % fold.homes) for place in range(2)]
    batch = asked(*[job(FAR, id=one) for one in mine])
    assert fold.do(batch).code == "silent"
    fold.append(home, [structs.replace(batch, submit="repeat:1")])
    assert fold.heard("repeat:1") is None
    return mine, "repeat:1"


def test_a_repeat_of_an_undecided_batch_is_answered_with_it() -> None:
    fold = Fold(4, deliver=False)
    mine, repeat = staged(fold)
    assert fold.do(asked(job(id=mine[0]), body="b2")).code == "idempotency_mismatch"
    fold.deliver_all()
    heard = fold.heard(repeat)
    assert heard is not None
    assert ids_of(heard) == mine
    assert heard.data["replayed"]
    assert heard.awaits
    assert ids_of(fold.do(asked(*[job(FAR, id=one) for one in mine]))) == mine
    assert events(fold) == 2
    assert recount_all(fold.dumps()) == []


def test_a_repeat_of_a_batch_that_is_aborted_hears_so_and_the_key_is_free() -> None:
    fold = Fold(4, deliver=False)
    mine, repeat = staged(fold)
    fold.now += 8 * SECOND
    fold.do(tick("reap"), home=home_of(KEY, 4))
    fold.deliver_all()
    heard = fold.heard(repeat)
    assert heard is not None
    assert heard.code == "backend_error"
    fold.deliver = True
    assert ids_of(fold.do(asked(*[job(id=one) for one in mine], body="b2"))) == mine
    assert recount_all(fold.dumps()) == []


def test_repeats_that_wait_are_bounded() -> None:
    fold = Fold(4, deliver=False)
    mine, _ = staged(fold)
    batch = asked(*[job(FAR, id=one) for one in mine])
    repeats = [structs.replace(batch, submit=f"repeat:{place}") for place in range(2, WAITING_MAX + 2)]
    fold.append(home_of(KEY, 4), repeats)
    last = fold.heard(repeats[-1].submit)
    assert last is not None
    assert last.code == "backend_error"
    assert fold.heard(repeats[-2].submit) is None
    fold.deliver_all()
    assert fold.heard(repeats[-2].submit) is not None


def test_a_repeat_waits_for_the_homes_that_may_not_have_the_jobs_yet() -> None:
    fold = Fold(4, deliver=False)
    decider = home_of(KEY, 4)
    far = queue_at((decider + 1) % 4, 4)
    fold.do(asked(job(far, homes=4)))
    assert fold.do(asked(job(far, homes=4))).awaits == ((decider, (decider + 1) % 4, 1),)


@pytest.mark.parametrize("homes", HOMES)
def test_what_the_view_has_refused_is_told_again(homes: int) -> None:
    fold = Fold(homes)
    rejected = {"0": {"code": "invalid_request", "message": "no", "details": {"field": "type"}}}
    batch = asked(job(homes=homes), partial=True, rejected=rejected)
    first, again = fold.do(batch), fold.do(structs.replace(batch, jobs=(job(homes=homes),)))
    assert first.data["rejected"] == again.data["rejected"] == rejected


def test_a_job_that_was_deleted_meanwhile_is_still_named() -> None:
    fold = Fold()
    (made,) = ids_of(fold.do(asked(job())))
    for action in ("cancel", "delete"):
        fold.do(command(Bulk, action=action, job_ids=(made,), states=("available", "cancelled")))
    assert fold.find(made) is None
    assert ids_of(fold.do(asked(job()))) == [made]
