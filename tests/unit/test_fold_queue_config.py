"""Queue configurations: who has them, what they fill into jobs, and how full a queue may be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw, structs

from ojs_stream.core.commands import (
    Ack,
    Cancel,
    Configure,
    Drain,
    Enqueue,
    NewJob,
    Resume,
)
from ojs_stream.core.config_body import parse_config_body
from ojs_stream.core.homes import home_of
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import Retention
from ojs_stream.core.validation import Rules, parse_job
from tests.support.builders import (
    DAY,
    KEEP,
    MINUTE,
    SECOND,
    Fold,
    client_id,
    command,
    enqueue,
    job,
    jobs_of,
    queue_at,
    server_id,
)
from tests.support.recount import recount_all

DEFAULT = "_default"
both = pytest.mark.parametrize("homes", [1, 4])


def configure(fold: Fold, queue: str, **fields: Any) -> Outcome:
    """What a PUT of a configuration does."""
    body = parse_config_body(queue, json.dumps(fields).encode())
    return fold.do(command(Configure, queue=queue, config=body.config, names=body.names))


def sent(queue: str, homes: int, **fields: Any) -> NewJob:
    """A job as a view makes it of a request."""
    body = json.dumps({"type": "email.send", "args": [], "queue": queue, **fields}).encode()
    return parse_job(body, Rules(retention=KEEP), lambda name: server_id(home_of(name, homes)))


def configs(fold: Fold, queue: str) -> list[Any]:
    return [dump.get(f"config:{queue}") for dump in fold.dumps()]


# -- who has it -----------------------------------------------------------------------------------------------


@both
def test_every_home_has_the_configuration(homes: int) -> None:
    fold = Fold(homes)
    outcome = configure(fold, "mail", max_size=3, retention={"completed": "P1D"})
    assert outcome.data == {"name": "mail", "version": 1}
    assert len(outcome.awaits) == homes - 1, "the answer waits for the other homes"
    assert len(set(configs(fold, "mail"))) == 1
    assert json.loads(configs(fold, "mail")[0])["max_size"] == 3


@both
def test_a_change_keeps_what_it_does_not_name_and_null_takes_back(homes: int) -> None:
    fold = Fold(homes)
    configure(fold, "mail", max_size=3, concurrency=5, retention={"completed": "P1D"})
    configure(fold, "mail", concurrency=None, retention={"discarded": "P2D"})
    for stored in map(json.loads, configs(fold, "mail")):
        assert (stored["max_size"], stored["completed_ms"], stored["discarded_ms"]) == (3, DAY, 2 * DAY)
        assert "concurrency" not in stored
        assert stored["version"] == 2


def test_two_changes_at_once_leave_all_homes_with_the_same() -> None:
    fold = Fold(4, deliver=False)
    for size in (3, 4):
        configure(fold, "mail", max_size=size)
    # From the latest to the earliest destination, but in order between two homes: as an outbox sends them.
    fold.held.sort(key=lambda message: (-message.destination, message.number))
    fold.deliver_all()
    assert len(set(configs(fold, "mail"))) == 1
    assert json.loads(configs(fold, "mail")[0])["max_size"] == 4


def test_a_queue_is_created_once() -> None:
    fold = Fold(4)
    body = parse_config_body("mail", b'{"max_size": 3}')
    create = command(Configure, queue="mail", config=body.config, names=body.names, create=True, replace=True)
    assert not fold.do(create).refused
    assert fold.do(create).code == "conflict"
    keyed = structs.replace(create, queue="post", replay="k", body="b")
    assert fold.do(keyed).data == {"name": "post", "version": 1}
    assert fold.do(keyed).data == {"name": "post", "version": 1, "replayed": True}
    assert [event.type for event in fold.events if event.subject == "mail"] == ["queue.created"]


# -- defaults -------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("chosen", [False, True], ids=["server's id", "client's id"])
def test_precedence_is_job_queue_template_server(homes: int, chosen: bool) -> None:
    fold = Fold(homes)
    configure(fold, DEFAULT, default_timeout=60, visibility_timeout=50, retention={"cancelled": "P3D"})
    configure(fold, "mail", default_timeout=40, default_retry={"max_attempts": 7})
    options: dict[str, Any] = {"id": client_id()} if chosen else {}
    plain = fold.do(enqueue(sent("mail", homes, **options)))
    (shown,) = jobs_of(plain)
    record = fold.record(shown["id"])
    assert (record.job.timeout_ms, record.job.visibility_timeout_ms) == (40 * SECOND, 50 * SECOND)
    assert (record.job.max_attempts, record.ctl.retry.max_attempts) == (7, 7)
    assert record.ctl.retention == structs.replace(KEEP, cancelled_ms=3 * DAY)
    assert shown == {**json.loads(json.dumps(shown)), "timeout_ms": 40 * SECOND, "max_attempts": 7}
    options = {"id": client_id()} if chosen else {}
    own = {"timeout": 30, "visibility_timeout_ms": 20 * SECOND, "max_attempts": 2, **options}
    (given,) = jobs_of(fold.do(enqueue(sent("mail", homes, **own))))
    assert (given["timeout_ms"], given["visibility_timeout_ms"]) == (30 * SECOND, 20 * SECOND)
    assert given["max_attempts"] == 2
    (other,) = jobs_of(fold.do(enqueue(sent("post", homes))))
    assert (other["timeout_ms"], other["max_attempts"]) == (60 * SECOND, 3)
    assert recount_all(fold.dumps()) == []


@both
def test_a_retry_policy_is_merged_field_by_field_and_shown_as_it_is(homes: int) -> None:
    fold = Fold(homes)
    configure(fold, DEFAULT, default_retry={"on_exhaustion": "dead_letter", "initial_interval": "PT9S"})
    configure(fold, "mail", default_retry={"initial_interval": "PT5S", "backoff_coefficient": 1.0})
    (shown,) = jobs_of(fold.do(enqueue(sent("mail", homes, retry={"max_attempts": 4, "x_mine": 1}))))
    policy = fold.record(shown["id"]).ctl.retry
    assert (policy.max_attempts, policy.initial_ms, policy.strategy) == (4, 5 * SECOND, "constant")
    assert policy.on_exhaustion == "dead_letter"
    assert shown["retry"]["initial_interval"] == "PT5S"
    assert shown["retry"]["x_mine"] == 1


def test_what_a_job_says_of_its_intervals_bounds_what_its_queue_says() -> None:
    fold = Fold()
    configure(fold, "mail", default_retry={"initial_interval": "PT10M", "max_interval": "PT20M"})
    (short,) = jobs_of(fold.do(enqueue(sent("mail", 1, retry={"max_interval": "PT1M"}))))
    (long,) = jobs_of(fold.do(enqueue(sent("mail", 1, retry={"initial_interval": "PT1H"}))))
    assert fold.record(short["id"]).ctl.retry.initial_ms == MINUTE
    assert fold.record(long["id"]).ctl.retry.max_ms == 60 * MINUTE


def test_a_default_timeout_is_never_longer_than_the_jobs_total() -> None:
    fold = Fold()
    configure(fold, "mail", default_timeout=600)
    (made,) = jobs_of(fold.do(enqueue(sent("mail", 1, total_timeout=60))))
    assert made["timeout_ms"] == 60 * SECOND


def test_a_job_of_another_home_is_stored_as_it_was_answered() -> None:
    """The id's home decides, the queue's home inserts: both resolve the same defaults, once."""
    fold = Fold(4)
    there = queue_at(1, 4)
    configure(fold, there, default_timeout=40)
    (shown,) = jobs_of(fold.do(enqueue(sent(there, 4, id=client_id(4, 2)))))
    assert shown["timeout_ms"] == 40 * SECOND == fold.record(shown["id"]).job.timeout_ms


def test_a_change_does_not_touch_jobs_that_are_there() -> None:
    fold = Fold()
    (made,) = jobs_of(fold.do(enqueue(sent("mail", 1))))
    configure(fold, "mail", default_timeout=40)
    assert fold.record(made["id"]).job.timeout_ms == 30 * MINUTE


@both
def test_each_final_state_is_kept_as_long_as_the_queue_says(homes: int) -> None:
    fold = Fold(homes)
    configure(fold, "mail", retention={"completed": "10s", "cancelled": "20s"})
    done, gone, kept = (fold.do(enqueue(sent("mail", homes))).jobs[0] for _ in range(3))
    ids = [json.loads(bytes(raw))["id"] for raw in (done, gone, kept)]
    fold.take("mail")
    fold.do(command(Ack, job_id=ids[0]))
    fold.do(command(Cancel, job_id=ids[1]))
    fold.ticks(after=15 * SECOND)
    assert [fold.find(job_id) is not None for job_id in ids] == [False, True, True]
    fold.ticks(after=10 * SECOND)
    assert [fold.find(job_id) is not None for job_id in ids] == [False, False, True]
    assert fold.counts("mail") == {"available": 1}
    assert recount_all(fold.dumps()) == []


# -- room -----------------------------------------------------------------------------------------------------


def full(outcome: Outcome) -> tuple[int, int]:
    assert outcome.code == "QUEUE_FULL", outcome
    return outcome.details["depth"], outcome.details["bound"]


@both
def test_a_full_queue_rejects_until_a_job_has_ended(homes: int) -> None:
    fold = Fold(homes)
    configure(fold, "mail", backpressure={"max_depth": 2, "strategy": "reject"})
    first = fold.put("mail")
    fold.put("mail", delay_ms=MINUTE)
    assert full(fold.do(enqueue(job("mail", homes=homes)))) == (2, 2)
    assert fold.take("mail") == [first]
    assert full(fold.do(enqueue(job("mail", homes=homes)))) == (2, 2), "a running job has its place still"
    fold.do(command(Ack, job_id=first))
    fold.put("mail")
    rejected = [event for event in fold.events if event.type == "backpressure.rejected"]
    assert [(event.subject, event.data.depth, event.data.bound) for event in rejected] == [("mail", 2, 2)] * 2
    assert recount_all(fold.dumps()) == []


@both
def test_the_template_bounds_every_queue_and_a_queue_lifts_it(homes: int) -> None:
    fold = Fold(homes)
    configure(fold, DEFAULT, max_size=1)
    configure(fold, "free", max_size=0)
    for queue in ("one", "two", "free"):
        fold.put(queue)
    assert fold.do(enqueue(job("one", homes=homes))).code == "QUEUE_FULL"
    fold.put("free")


@both
def test_a_batch_finds_room_for_all_its_jobs_or_none(homes: int) -> None:
    fold = Fold(homes)
    near, far = queue_at(0, homes, "near"), queue_at(homes - 1, homes, "far")
    configure(fold, far, max_size=2)
    jobs = [job(queue, homes=homes) for queue in (near, far, far, far)]
    refused = fold.do(enqueue(*jobs))
    assert full(refused) == (2, 2)
    assert refused.details["index"] == 3
    assert (fold.counts(near), fold.counts(far)) == ({}, {})
    assert not fold.do(enqueue(*jobs[:3])).refused
    assert (fold.counts(near), fold.counts(far)) == ({"available": 1}, {"available": 2})
    assert recount_all(fold.dumps()) == []


def test_batches_of_several_homes_that_meet_never_overfill() -> None:
    """Whatever is under way between homes: rooms of one stage are never taken for those of another."""
    fold = Fold(4, deliver=False)
    target, bound = queue_at(3, 4, "target"), 5
    configure(fold, target, max_size=bound)
    fold.deliver_all()
    answers = []
    for n in range(12):
        start = queue_at(n % 3, 4)
        answers.append(enqueue(job(start, homes=4), *[job(target, homes=4) for _ in range(1 + n % 3)]))
    submits = []
    for asked in answers:
        home = fold.home_for(asked)
        submit = f"mine:{len(submits)}"
        submits.append(submit)
        fold.append(home, [structs.replace(asked, submit=submit)])
    while fold.held:
        # Between two homes the order is kept; which home comes next is not said.
        place = next(i for i, one in enumerate(fold.held) if one.destination == fold.held[-1].destination)
        message = fold.held.pop(place)
        fold.append(message.destination, [message.data])
        assert fold.counts(target).get("available", 0) <= bound
    outcomes = [fold._outcomes[submit] for submit in submits]
    stored = sum(len(outcome.jobs) - 1 for outcome in outcomes if not outcome.refused)
    assert fold.counts(target) == {"available": stored}
    assert 3 <= stored <= bound
    assert b'"reserved"' not in fold.dump(3)[f"queue:{target}"], "no room is held for ever"
    assert recount_all(fold.dumps()) == []


@both
def test_a_partial_command_stores_what_finds_room(homes: int) -> None:
    fold = Fold(homes)
    near, far = queue_at(0, homes, "near"), queue_at(homes - 1, homes, "far")
    configure(fold, far, max_size=2)
    jobs = tuple(job(queue, homes=homes) for queue in (near, far, far, far, near))
    outcome = fold.do(command(Enqueue, jobs=jobs, batch=True, partial=True))
    assert list(outcome.data["refused"]) == ["3"]
    assert outcome.data["refused"]["3"]["code"] == "QUEUE_FULL"
    assert outcome.jobs[3] == Raw(b"null")
    assert (fold.counts(near), fold.counts(far)) == ({"available": 2}, {"available": 2})
    assert full(fold.do(enqueue(job(far, homes=homes)))) == (2, 2), "a refused job gives no room back"
    assert recount_all(fold.dumps()) == []


def test_a_nearly_full_queue_is_told() -> None:
    fold = Fold(4)
    configure(fold, "mail", backpressure={"max_depth": 4, "warning_threshold": 0.5})
    told = [fold.do(enqueue(job("mail", homes=4))).data.get("pressure") for _ in range(3)]
    assert told[0] is None
    assert told[2] == {"queue": "mail", "depth": 3, "bound": 4, "pressure": 0.75}


def test_a_nearly_full_queue_is_told_by_its_home_to_who_decides() -> None:
    fold = Fold(4)
    far = queue_at(1, 4)
    configure(fold, far, max_size=2)
    told = fold.do(enqueue(*[job(far, homes=4, id=client_id(4, 2)) for _ in range(2)])).data["pressure"]
    assert told == {"queue": far, "depth": 2, "bound": 2, "pressure": 1.0}


@both
def test_only_allowed_types_come_in(homes: int) -> None:
    fold = Fold(homes)
    configure(fold, "mail", allowed_job_types=["email.*", "sms"])
    fold.put("mail")
    refused = fold.do(enqueue(job("mail", homes=homes, type="payment.take")))
    assert (refused.code, refused.details["type"]) == ("JOB_TYPE_NOT_ALLOWED", "payment.take")
    configure(fold, "mail", allowed_job_types=["*"])
    fold.put("mail", type="payment.take")


@both
def test_a_draining_queue_takes_nothing_new_and_gives_what_it_has(homes: int) -> None:
    fold = Fold(homes)
    first = fold.put("mail")
    assert len(fold.do(command(Drain, queue="mail")).awaits) == homes - 1
    assert fold.do(enqueue(job("mail", homes=homes))).code == "queue_draining"
    assert fold.do(enqueue(job("mail", homes=homes, id=client_id(homes)))).code == "queue_draining"
    assert fold.take("mail") == [first]
    fold.do(command(Resume, queue="mail"))
    fold.put("mail")
    types = [event.type for event in fold.events if event.subject == "mail"]
    assert types == ["queue.draining", "queue.resumed"]
    assert recount_all(fold.dumps()) == []


@both
def test_what_the_log_has_accepted_enters_a_draining_and_full_queue(homes: int) -> None:
    fold = Fold(homes)
    configure(fold, "mail", max_size=1)
    fold.put("mail")
    fold.do(command(Drain, queue="mail"))
    step = command(Enqueue, jobs=(job("mail", homes=homes),), source="0", number=1_000)
    assert not fold.do(step, home=home_of("mail", homes)).refused
    assert fold.counts("mail") == {"available": 2}


def test_a_client_that_sets_nothing_writes_no_list_of_what_it_has_set() -> None:
    assert sent("mail", 1).given == ()
    given = sent("mail", 1, options={"timeout_ms": 5, "retry": {"jitter": False}}, result_ttl=60).given
    assert given == ("timeout_ms", "retention.completed_ms", "retry.jitter")


def test_without_a_configuration_a_job_is_what_the_view_made_it() -> None:
    fold = Fold(4)
    short = Retention(1, 2, 3, 4)
    made = fold.put("mail", retention=short, timeout_ms=5)
    assert (fold.record(made).ctl.retention, fold.record(made).job.timeout_ms) == (short, 5)
