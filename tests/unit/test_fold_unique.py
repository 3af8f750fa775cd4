"""Unique jobs in the fold: conflicts, the lock that follows its job, batches, and what happens between homes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw, structs

from ojs_stream.core.commands import Ack, Activate, Beat, Cancel, DeleteDead, GiveBack, RetryDead
from ojs_stream.core.fold import OBSERVERS
from ojs_stream.core.homes import home_of
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import Retention, UniqueRule, Watcher
from ojs_stream.core.states import STATES, State
from tests.support.builders import (
    DAY,
    KEEP,
    SECOND,
    START,
    Fold,
    claim,
    client_id,
    command,
    enqueue,
    job,
    jobs_of,
    nack,
    policy,
    queue_at,
    tick,
    unique,
)
from tests.support.recount import recount_all

HOMES = 4
BOTH = pytest.mark.parametrize("homes", [1, HOMES])


class Unique:
    """Jobs with one fingerprint, each in the queue that the test names."""

    def __init__(self, homes: int, *, deliver: bool = True, **rule: Any) -> None:
        self.fold = Fold(homes, deliver=deliver)
        self.homes = homes
        self.rule = unique(homes=homes, **rule)
        self.queue = queue_at(homes - 1, homes)

    def new(self, *, queue: str = "", **fields: Any) -> Any:
        rule = structs.replace(self.rule, **{n: fields.pop(n) for n in tuple(fields) if n in RULE_FIELDS})
        return job(queue or self.queue, homes=self.homes, unique=rule, **fields)

    def ask(self, **fields: Any) -> Outcome:
        return self.fold.do(enqueue(self.new(**fields)))

    def put(self, **fields: Any) -> str:
        (made,) = jobs_of(self.ask(**fields))
        assert made is not None
        return str(made["id"])

    def free(self) -> bool:
        """Whether a new job is accepted now; it is taken away again."""
        outcome = self.ask()
        if outcome.refused:
            assert outcome.code == "duplicate", outcome
            return False
        (made,) = jobs_of(outcome)
        self.fold.do(command(Cancel, job_id=made["id"]))
        return True

    def sound(self) -> bool:
        assert recount_all(self.fold.dumps()) == []
        return True


RULE_FIELDS = frozenset(UniqueRule.__struct_fields__)

# -- conflicts ------------------------------------------------------------------------------------------------


@BOTH
def test_a_second_job_is_refused_and_told_which_one_stands_against_it(homes: int) -> None:
    jobs = Unique(homes)
    first = jobs.put()
    again = jobs.ask()
    assert again.code == "duplicate"
    assert again.details["existing_job_id"] == first
    assert again.details["existing_job_state"] == "available"
    assert again.details["unique_key"] == "k"
    assert jobs.fold.counts(jobs.queue) == {"available": 1}
    assert jobs.sound()


@BOTH
def test_other_fingerprints_and_jobs_without_one_are_not_concerned(homes: int) -> None:
    jobs = Unique(homes)
    jobs.put()
    jobs.put(key="other", home=home_of("other", homes))
    jobs.fold.put(jobs.queue)
    assert jobs.fold.counts(jobs.queue) == {"available": 3}


@BOTH
def test_ignore_answers_the_existing_job_and_stores_nothing(homes: int) -> None:
    jobs = Unique(homes)
    first = jobs.put()
    again = jobs.ask(on_conflict="ignore")
    assert (again.data, [bytes(each) for each in again.jobs]) == ({"existing": {"0": first}}, [b"null"])
    assert jobs.fold.counts(jobs.queue) == {"available": 1}


@BOTH
@pytest.mark.parametrize("active", [False, True])
def test_replace_cancels_the_existing_job_whatever_it_does(homes: int, active: bool) -> None:
    jobs = Unique(homes)
    first = jobs.put()
    if active:
        assert jobs.fold.take(jobs.queue) == [first]
    other = queue_at(0, homes, prefix="other")
    again = jobs.ask(queue=other, on_conflict="replace")
    assert again.data == {"replaced": {"0": first}}
    (second,) = jobs_of(again)
    assert (jobs.fold.state(first), jobs.fold.state(second["id"])) == ("cancelled", "available")
    assert jobs.ask().details["existing_job_id"] == second["id"]
    assert jobs.sound()


@BOTH
def test_replace_except_schedule_changes_a_scheduled_job_in_its_place(homes: int) -> None:
    jobs = Unique(homes)
    first = jobs.put(delay_ms=5 * SECOND)
    again = jobs.ask(
        delay_ms=9 * SECOND,
        args=Raw(b"[2]"),
        meta=Raw(b'{"a":1}'),
        priority=7,
        retry=policy(max_attempts=9),
        extra=Raw(b'{"x_new":1}'),
        on_conflict="replace_except_schedule",
    )
    assert again.data == {"existing": {"0": first}}
    record = jobs.fold.record(first)
    assert (bytes(record.job.args), bytes(record.job.meta), record.job.priority) == (b"[2]", b'{"a":1}', 7)
    assert (record.job.max_attempts, record.ctl.due, record.extra) == (9, START + 5 * SECOND, Raw(b'{"x_new":1}'))
    assert jobs.fold.counts(jobs.queue) == {"scheduled": 1}
    assert jobs.sound()


@BOTH
def test_replace_except_schedule_of_a_job_without_a_schedule_is_replace(homes: int) -> None:
    jobs = Unique(homes)
    first = jobs.put()
    again = jobs.ask(on_conflict="replace_except_schedule")
    assert again.data == {"replaced": {"0": first}}
    assert jobs.fold.state(first) == "cancelled"


def test_a_revision_that_comes_when_the_job_runs_already_replaces_it() -> None:
    jobs = Unique(HOMES, deliver=False)
    jobs.queue = queue_at((jobs.rule.home + 1) % HOMES, HOMES)
    jobs.ask(delay_ms=SECOND)
    jobs.fold.deliver_all()
    again = jobs.ask(args=Raw(b'["new"]'), on_conflict="replace_except_schedule")
    (first,) = again.data["existing"].values()
    revision, jobs.fold.held = jobs.fold.held, []
    jobs.fold.now += SECOND
    assert jobs.fold.take(jobs.queue) == [first]
    jobs.fold.held = revision + jobs.fold.held
    jobs.fold.deliver_all()
    assert jobs.fold.state(first) == "cancelled"
    (new,) = jobs.fold.take(jobs.queue)
    jobs.fold.deliver_all()
    assert bytes(jobs.fold.record(new).job.args) == b'["new"]'
    assert jobs.sound()


# -- the lock follows its job ---------------------------------------------------------------------------------

Way = Callable[[Unique], None]
DEAD = {"retry": policy(max_attempts=1, on_exhaustion="dead_letter")}


def _start(jobs: Unique, **fields: Any) -> str:
    made = jobs.put(**fields)
    assert jobs.fold.take(jobs.queue) == [made]
    return made


def _ack(jobs: Unique) -> None:
    jobs.fold.do(command(Ack, job_id=_start(jobs)))


def _discard(jobs: Unique) -> None:
    jobs.fold.do(nack(_start(jobs), code="DISCARD"))


def _retryable(jobs: Unique) -> None:
    jobs.fold.do(nack(_start(jobs)))


def _promoted(jobs: Unique) -> None:
    _retryable(jobs)
    jobs.fold.ticks(after=2 * SECOND)


def _requeue(jobs: Unique) -> None:
    jobs.fold.do(nack(_start(jobs), requeue=True))


def _give_back(jobs: Unique) -> None:
    made = _start(jobs)
    jobs.fold.do(command(GiveBack, job_ids=(made,), worker_id="w1"), home=jobs.fold.where(made))


def _cancel(jobs: Unique) -> None:
    jobs.fold.do(command(Cancel, job_id=jobs.put()))


def _cancel_active(jobs: Unique) -> None:
    jobs.fold.do(command(Cancel, job_id=_start(jobs)))


def _expire(jobs: Unique) -> None:
    jobs.put(expires_in_ms=SECOND)
    jobs.fold.ticks(after=SECOND)


def _expire_at_claim(jobs: Unique) -> None:
    jobs.put(expires_in_ms=SECOND)
    assert jobs.fold.do(claim(jobs.queue), after=SECOND).jobs == ()


def _lose_lease(jobs: Unique) -> None:
    _start(jobs, visibility_timeout_ms=SECOND)
    jobs.fold.ticks(after=2 * SECOND)


def _lose_last_lease(jobs: Unique) -> None:
    _start(jobs, visibility_timeout_ms=SECOND, retry=policy(max_attempts=1))
    jobs.fold.ticks(after=2 * SECOND)


def _time_out(jobs: Unique) -> None:
    _start(jobs, timeout_ms=SECOND)
    jobs.fold.ticks(after=SECOND)


def _worker_dies(jobs: Unique) -> None:
    made = jobs.put()
    jobs.fold.do(command(Beat, worker_id="w1", dead_after_ms=SECOND))
    assert jobs.fold.take(jobs.queue) == [made]
    jobs.fold.ticks(after=2 * SECOND)


def _dead(jobs: Unique) -> str:
    made = _start(jobs, **DEAD)
    jobs.fold.do(nack(made))
    return made


def _revive(jobs: Unique) -> None:
    jobs.fold.do(command(RetryDead, job_id=_dead(jobs)))


def _revive_elsewhere(jobs: Unique) -> None:
    jobs.fold.do(command(RetryDead, job_id=_dead(jobs), queue=queue_at(0, jobs.homes, prefix="far")))


def _delete_dead(jobs: Unique) -> None:
    jobs.fold.do(command(DeleteDead, job_id=_dead(jobs)))


def _retention(jobs: Unique) -> None:
    jobs.fold.do(command(Ack, job_id=_start(jobs)))
    jobs.fold.ticks(after=KEEP.completed_ms)


def _schedule(jobs: Unique) -> None:
    jobs.put(delay_ms=SECOND)


def _fall_due(jobs: Unique) -> None:
    _schedule(jobs)
    jobs.fold.ticks(after=SECOND)


def _pending(jobs: Unique) -> None:
    jobs.put(pending=True)


def _activate(jobs: Unique) -> None:
    jobs.fold.do(command(Activate, job_id=jobs.put(pending=True)))


WAYS: dict[Way, State | None] = {
    Unique.put: "available",  # type: ignore[dict-item]
    _start: "active",  # type: ignore[dict-item]
    _ack: "completed",
    _discard: "discarded",
    _retryable: "retryable",
    _promoted: "available",
    _requeue: "available",
    _give_back: "available",
    _cancel: "cancelled",
    _cancel_active: "cancelled",
    _expire: "discarded",
    _expire_at_claim: "discarded",
    _lose_lease: "available",
    _lose_last_lease: "discarded",
    _time_out: "retryable",
    _worker_dies: "available",
    _dead: "discarded",  # type: ignore[dict-item]
    _revive: "available",
    _revive_elsewhere: "available",
    _delete_dead: None,
    _retention: None,
    _schedule: "scheduled",
    _fall_due: "available",
    _pending: "pending",
    _activate: "available",
}
DEFAULT = ("available", "active", "scheduled", "retryable", "pending")


@BOTH
@pytest.mark.parametrize(
    "states", [DEFAULT, ("available",), ("available", "active"), ("completed",), STATES], ids=str
)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
def test_a_job_stands_against_another_exactly_in_its_states(
    homes: int, states: tuple[State, ...], way: Way
) -> None:
    jobs = Unique(homes, states=states)
    way(jobs)
    assert jobs.sound()
    assert jobs.free() == (WAYS[way] not in states)
    assert jobs.sound()


@BOTH
def test_a_lock_is_gone_when_nobody_can_want_it(homes: int) -> None:
    jobs = Unique(homes)
    _ack(jobs)
    assert not any(name.startswith("lock:") for dump in jobs.fold.dumps() for name in dump)


@BOTH
def test_a_job_that_comes_back_stands_against_new_ones_although_another_has_come_meanwhile(homes: int) -> None:
    jobs = Unique(homes, states=("available",))
    first = _start(jobs)
    second = jobs.put()
    jobs.fold.do(nack(first, requeue=True))
    jobs.fold.do(command(Cancel, job_id=second))
    assert jobs.ask().details["existing_job_id"] == first
    assert jobs.sound()


@BOTH
def test_replace_takes_the_place_of_all_that_stand_against_it(homes: int) -> None:
    jobs = Unique(homes, states=("available",))
    first = _start(jobs)
    second = jobs.put()
    jobs.fold.do(nack(first, requeue=True))
    third = jobs.put(on_conflict="replace")
    assert [jobs.fold.state(one) for one in (first, second, third)] == ["cancelled", "cancelled", "available"]
    assert jobs.sound()


@BOTH
def test_a_finished_job_that_was_replaced_does_not_stand_against_anything(homes: int) -> None:
    jobs = Unique(homes, states=("completed", "available"))
    _ack(jobs)
    second = jobs.put(on_conflict="replace")
    assert jobs.ask().details["existing_job_id"] == second
    jobs.fold.do(command(Cancel, job_id=second))
    assert jobs.free()


@BOTH
def test_a_period_ends_the_lock_although_its_job_still_waits(homes: int) -> None:
    jobs = Unique(homes, period_ms=2 * SECOND)
    first = jobs.put()
    assert jobs.fold.do(enqueue(jobs.new()), after=2 * SECOND - 1).code == "duplicate"
    jobs.fold.now += 1
    second = jobs.put()
    assert [jobs.fold.state(one) for one in (first, second)] == ["available", "available"]
    jobs.fold.do(claim(jobs.queue))
    assert jobs.ask().details["existing_job_id"] == second
    jobs.fold.ticks(after=2 * SECOND)
    assert jobs.sound()
    assert not any(name.startswith("lock:") for dump in jobs.fold.dumps() for name in dump)


@BOTH
def test_a_job_under_a_period_does_not_take_its_lock_again_when_it_comes_back_too_late(homes: int) -> None:
    jobs = Unique(homes, period_ms=2 * SECOND)
    first = _start(jobs)
    jobs.fold.ticks(after=3 * SECOND)
    jobs.fold.do(nack(first, requeue=True))
    assert not any(name.startswith("lock:") for dump in jobs.fold.dumps() for name in dump)
    assert jobs.free()


@BOTH
def test_a_dead_letter_that_was_replaced_and_comes_back_stands_against_new_jobs_again(homes: int) -> None:
    jobs = Unique(homes, states=(*DEFAULT, "discarded"))
    first = _dead(jobs)
    second = jobs.put(on_conflict="replace")
    jobs.fold.do(command(RetryDead, job_id=first))
    jobs.fold.do(command(Cancel, job_id=second))
    assert jobs.ask().details["existing_job_id"] == first
    assert jobs.sound()


# -- batches --------------------------------------------------------------------------------------------------


@BOTH
def test_a_batch_with_twins_is_refused_and_names_the_second(homes: int) -> None:
    jobs = Unique(homes)
    outcome = jobs.fold.do(enqueue(job(homes=homes), jobs.new(), jobs.new()))
    assert (outcome.code, outcome.details["index"], outcome.details["same_as"]) == ("duplicate", 2, 1)
    assert jobs.fold.counts(jobs.queue) == {}
    assert jobs.free()
    assert jobs.sound()


@BOTH
def test_ignored_twins_are_answered_with_the_first(homes: int) -> None:
    jobs = Unique(homes, on_conflict="ignore")
    first, *others = (jobs.new() for _ in range(3))
    outcome = jobs.fold.do(enqueue(first, *others))
    assert outcome.data == {"existing": {"1": first.id, "2": first.id}}
    assert jobs.fold.counts(jobs.queue) == {"available": 1}
    again = jobs.fold.do(enqueue(jobs.new(), jobs.new()))
    assert again.data == {"existing": {"0": first.id, "1": first.id}}
    assert jobs.sound()


@BOTH
def test_of_replacing_twins_the_last_is_stored(homes: int) -> None:
    jobs = Unique(homes, on_conflict="replace")
    before = jobs.put()
    asked = [jobs.new(queue=queue_at(home, homes)) for home in range(homes)] + [jobs.new()]
    outcome = jobs.fold.do(enqueue(*asked))
    last = asked[-1].id
    places = [str(place) for place in range(len(asked) - 1)]
    assert outcome.data == {
        "replaced": {str(len(asked) - 1): before},
        "existing": dict.fromkeys(places, last),
    }
    assert [one.id for one in asked if jobs.fold.find(one.id)] == [last]
    assert jobs.fold.state(before) == "cancelled"
    assert jobs.sound()


@BOTH
def test_a_twin_that_keeps_the_schedule_has_that_of_the_first(homes: int) -> None:
    jobs = Unique(homes, on_conflict="replace_except_schedule")
    first, second = jobs.new(delay_ms=2 * SECOND), jobs.new(delay_ms=9 * SECOND, args=Raw(b"[2]"))
    jobs.fold.do(enqueue(first, second))
    record = jobs.fold.record(second.id)
    assert (record.ctl.due, bytes(record.job.args), jobs.fold.find(first.id)) == (START + 2 * SECOND, b"[2]", None)


@BOTH
def test_twins_that_do_not_stand_against_each_other_are_both_stored(homes: int) -> None:
    jobs = Unique(homes, states=("available",))
    outcome = jobs.fold.do(enqueue(jobs.new(delay_ms=SECOND), jobs.new()))
    assert len(jobs_of(outcome)) == 2
    assert jobs.fold.counts(jobs.queue) == {"available": 1, "scheduled": 1}
    assert jobs.sound()


@BOTH
def test_a_batch_with_one_duplicate_stores_nothing_and_holds_nothing(homes: int) -> None:
    jobs = Unique(homes)
    taken = jobs.put()
    free = [jobs.new(key=f"k{n}", home=home_of(f"k{n}", homes)) for n in range(6)]
    outcome = jobs.fold.do(enqueue(*free, jobs.new()))
    assert (outcome.code, outcome.details["index"]) == ("duplicate", 6)
    assert outcome.details["existing_job_id"] == taken
    assert jobs.sound()
    assert len(jobs_of(jobs.fold.do(enqueue(*free)))) == 6
    assert jobs.sound()


@BOTH
def test_a_partial_batch_stores_what_is_no_duplicate(homes: int) -> None:
    jobs = Unique(homes)
    taken = jobs.put()
    asked = (jobs.new(), jobs.new(key="a", home=home_of("a", homes)), jobs.new(on_conflict="ignore"))
    outcome = jobs.fold.do(structs.replace(enqueue(*asked), partial=True))
    assert outcome.data["refused"].keys() == {"0"}
    assert outcome.data["existing"] == {"2": taken}
    assert jobs.fold.find(asked[1].id) is not None
    assert jobs.sound()


# -- between homes --------------------------------------------------------------------------------------------


def _staged() -> Unique:
    """A lock at one home, decided at another (by a client's id), for a queue of a third."""
    jobs = Unique(HOMES, deliver=False)
    jobs.queue = queue_at((jobs.rule.home + 1) % HOMES, HOMES)
    return jobs


def _far_id(jobs: Unique) -> str:
    return client_id(HOMES, (jobs.rule.home + 2) % HOMES)


def _deliver(jobs: Unique, kind: str) -> None:
    """Deliver what is on its way, of one kind."""
    wanted = f'"kind":"{kind}"'.encode()
    while chosen := [message for message in jobs.fold.held if wanted in message.data]:
        jobs.fold.held.remove(chosen[0])
        jobs.fold.append(chosen[0].destination, [chosen[0].data])


def test_an_undecided_job_refuses_what_rejects_and_asks_the_others_to_repeat() -> None:
    jobs = _staged()
    jobs.ask(id=_far_id(jobs))
    _deliver(jobs, "reserve")
    assert jobs.ask().code == "duplicate"
    assert jobs.ask(on_conflict="ignore").code == jobs.ask(on_conflict="replace").code == "backend_error"
    jobs.fold.deliver_all()
    assert jobs.ask(on_conflict="ignore").data["existing"]
    jobs.fold.deliver_all()
    assert jobs.sound()


def test_an_aborted_stage_gives_the_lock_back_to_the_job_that_it_would_have_replaced() -> None:
    jobs = _staged()
    first = jobs.put()
    jobs.fold.deliver_all()
    late = _far_id(jobs)
    jobs.ask(id=late, on_conflict="replace")
    _deliver(jobs, "reserve")
    jobs.fold.now += 8 * SECOND
    jobs.fold.do(tick("reap"), home=home_of(late, HOMES))
    jobs.fold.deliver_all()
    assert jobs.fold.find(late) is None
    assert (jobs.fold.state(first), jobs.ask().details["existing_job_id"]) == ("available", first)
    jobs.fold.deliver_all()
    assert jobs.sound()


def test_a_job_that_ended_while_a_stage_wanted_to_replace_it_is_not_locked_by_the_abort() -> None:
    jobs = _staged()
    first = jobs.put()
    jobs.fold.deliver_all()
    late = _far_id(jobs)
    jobs.ask(id=late, on_conflict="replace")
    _deliver(jobs, "reserve")
    jobs.fold.do(command(Cancel, job_id=first))
    jobs.fold.now += 8 * SECOND
    jobs.fold.do(tick("reap"), home=home_of(late, HOMES))
    jobs.fold.deliver_all()
    jobs.fold.deliver = True
    assert jobs.free()
    assert jobs.sound()


def test_a_job_can_be_replaced_only_when_its_home_has_it() -> None:
    """The lock must not name a job whose insert may still be overtaken by its cancel."""
    jobs = _staged()
    first = _far_id(jobs)
    jobs.ask(id=first)
    _deliver(jobs, "reserve")
    _deliver(jobs, "reserved")
    _deliver(jobs, "settle")
    assert jobs.fold.find(first) is None
    assert jobs.ask(on_conflict="replace").code == "backend_error"
    jobs.fold.deliver_all()
    second = jobs.put(on_conflict="replace")
    jobs.fold.deliver_all()
    assert [jobs.fold.state(one) for one in (first, second)] == ["cancelled", "available"]
    assert jobs.sound()


def test_two_batches_that_want_the_same_locks_end_with_one_winner_at_most() -> None:
    fold = Fold(HOMES, deliver=False)
    keys = [next(f"u{n}" for n in range(999) if home_of(f"u{n}", HOMES) == home) for home in (0, 1)]
    rules = [unique(key, homes=HOMES) for key in keys]
    pairs = [enqueue(*[job("q", homes=HOMES, unique=rule) for rule in order]) for order in (rules, rules[::-1])]
    for pair in pairs:
        fold.do(pair)
    fold.deliver_all()
    stored = [[fold.find(new.id) is not None for new in pair.jobs] for pair in pairs]
    assert stored in ([[True] * 2, [False] * 2], [[False] * 2, [True] * 2], [[False] * 2] * 2)
    assert recount_all(fold.dumps()) == []
    fold.deliver = True
    fold.do(enqueue(*[job("q", homes=HOMES, unique=rule) for rule in rules]))
    assert recount_all(fold.dumps()) == []


def test_notes_of_a_job_that_moves_home_reach_its_lock_in_their_order() -> None:
    jobs = _staged()
    keep = Retention(DAY, DAY, DAY, DAY)
    jobs.rule = structs.replace(jobs.rule, states=(*DEFAULT, "discarded"))
    made = jobs.put(retention=keep, **DEAD)
    jobs.fold.deliver_all()
    jobs.fold.take(jobs.queue)
    jobs.fold.do(nack(made))
    notes, jobs.fold.held = jobs.fold.held, []
    far = queue_at((jobs.rule.home + 2) % HOMES, HOMES)
    jobs.fold.do(command(RetryDead, job_id=made, queue=far), home=home_of(jobs.queue, HOMES))
    (adopt,) = jobs.fold.held
    assert adopt.destination == jobs.rule.home, (
        "it passes by its lock, behind the notes that are on their way there"
    )
    jobs.fold.held = notes + jobs.fold.held
    jobs.fold.deliver_all()
    assert jobs.fold.take(far) == [made]
    jobs.fold.do(command(Cancel, job_id=made), home=home_of(jobs.queue, HOMES))
    jobs.fold.deliver_all()
    assert jobs.fold.state(made) == "cancelled"
    jobs.fold.deliver = True
    assert jobs.free()
    jobs.fold.ticks(after=DAY)
    assert jobs.sound()
    assert not [name for dump in jobs.fold.dumps() for name in dump if made in name]


def test_a_client_id_that_a_server_made_job_has_frees_the_lock_that_was_taken_for_it() -> None:
    fold = Fold(HOMES)
    queue = queue_at(0, HOMES)
    made = fold.put(queue)
    rule = unique(homes=HOMES)
    fold.do(enqueue(job(queue, homes=HOMES, id=made, unique=rule)))
    assert recount_all(fold.dumps()) == []
    assert not fold.do(enqueue(job(queue, homes=HOMES, unique=rule))).refused


@BOTH
def test_a_repeated_enqueue_with_an_id_is_a_duplicate_of_itself(homes: int) -> None:
    jobs = Unique(homes)
    mine = client_id()
    jobs.put(id=mine)
    for on_conflict in ("reject", "ignore", "replace"):
        outcome = jobs.ask(id=mine, on_conflict=on_conflict)
        assert (outcome.code, outcome.details["existing_job_id"]) == ("duplicate", mine)
    assert jobs.sound()


@BOTH
def test_who_waits_for_a_job_is_told_that_another_one_answers_for_it(homes: int) -> None:
    jobs = Unique(homes)
    taken = jobs.put()
    told: list[str] = []
    cron = Watcher("cron", 0, "nightly")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OBSERVERS, "cron", lambda _world, _watcher, note: told.append(f"{note.state} {note.reason}"))
        jobs.ask(on_conflict="ignore", watchers=(cron,))
        jobs.ask(watchers=(cron,))
    assert [text.split()[0] for text in told] == ["refused", "refused"]
    assert all(taken in text for text in told)
