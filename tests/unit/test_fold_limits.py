"""Limits (OJS.md 5.5): held jobs, slots on every way in and out, windows, queues of several homes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw

from ojs_stream.core.commands import (
    Ack,
    Beat,
    Cancel,
    Configure,
    DeleteDead,
    DeleteQueue,
    GiveBack,
    LimitOverride,
    RetryDead,
)
from ojs_stream.core.limits import limit_home
from ojs_stream.core.records import ConfigRecord, Override, Window
from tests.support.builders import HOUR, MINUTE, SECOND, Fold, claim, command, enqueue, job, nack, policy, queue_at
from tests.support.limits import KEY, disagreements, limit_of, rule, slot_of, used
from tests.support.recount import recount_all

LAST = policy(max_attempts=1)
LAST_DEAD = policy(max_attempts=1, on_exhaustion="dead_letter")


def _sound(fold: Fold) -> None:
    assert recount_all(fold.dumps()) == []
    assert disagreements(fold) == []


def _one(homes: int, **fields: object) -> tuple[Fold, str]:
    """A fold, and a queue whose home is not that of the key (with several homes)."""
    fold = Fold(homes)
    home = (limit_home(KEY, homes) + 1) % homes
    return fold, queue_at(home, homes)


# -- waiting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("homes", [1, 4])
def test_a_limited_job_waits_and_stops_nobody_behind_it(homes: int) -> None:
    fold, queue = _one(homes)
    limit = rule(homes=homes, concurrency=1)
    first, second = fold.put(queue, limit=limit), fold.put(queue, limit=limit)
    free = fold.put(queue)
    assert fold.take(queue, count=3) == [first, free]
    assert fold.state(second) == "available"
    assert fold.counts(queue) == {"active": 2, "available": 1}
    fold.do(command(Ack, job_id=first))
    assert fold.take(queue, count=3) == [second]
    _sound(fold)


def test_a_high_priority_job_at_its_limit_does_not_stop_a_low_one() -> None:
    fold = Fold()
    limit = rule(concurrency=1)
    fold.active(limit=limit)
    fold.put(limit=limit, priority=100)
    low = fold.put(priority=-100)
    assert fold.take(count=2) == [low]


def test_the_best_of_those_who_wait_comes_first() -> None:
    fold = Fold()
    limit = rule(concurrency=1)
    first = fold.active(limit=limit)
    old, young, high = fold.put(limit=limit), fold.put(limit=limit), fold.put(limit=limit, priority=9)
    order = []
    current = first
    for _ in range(3):
        fold.do(command(Ack, job_id=current))
        (current,) = fold.take()
        order.append(current)
    assert order == [high, old, young]


def test_a_better_job_takes_the_slot_of_one_that_has_not_started() -> None:
    fold = Fold()
    limit = rule(concurrency=1)
    low = fold.put(limit=limit)
    high = fold.put(limit=limit, priority=5)
    assert fold.take(count=2) == [high]
    fold.do(command(Ack, job_id=high))
    assert fold.take() == [low]
    _sound(fold)


def test_a_job_keeps_its_place_when_its_lease_is_lost() -> None:
    fold = Fold()
    limit = rule(concurrency=1)
    first, second = fold.put(limit=limit, visibility_timeout_ms=SECOND), fold.put(limit=limit)
    assert fold.take(count=2) == [first]
    fold.ticks(after=2 * SECOND)
    assert fold.take(count=2) == [first]
    assert fold.state(second) == "available"
    _sound(fold)


def test_idle_workers_see_that_a_queue_has_only_held_jobs() -> None:
    fold = Fold()
    limit = rule(concurrency=1)
    fold.active(limit=limit)
    fold.put(limit=limit)
    assert b'"held":1' in fold.dump()["queue:default"]


# -- every way out of active ----------------------------------------------------------------------------------


def _acked(fold: Fold, made: str) -> None:
    fold.do(command(Ack, job_id=made))


def _failed(fold: Fold, made: str) -> None:
    fold.do(nack(made))


def _requeued(fold: Fold, made: str) -> None:
    fold.do(nack(made, requeue=True))


def _cancelled(fold: Fold, made: str) -> None:
    fold.do(command(Cancel, job_id=made))


def _given_back(fold: Fold, made: str) -> None:
    fold.do(command(GiveBack, job_ids=(made,), worker_id="w1"))


def _pass(fold: Fold, seconds: int) -> None:
    """Time in which the log is never silent for long: that would be an outage."""
    for _ in range(seconds):
        fold.ticks(after=SECOND)


def _invisible(fold: Fold, _made: str) -> None:
    _pass(fold, 6)


def _timed_out(fold: Fold, _made: str) -> None:
    _pass(fold, 10)


def _worker_died(fold: Fold, _made: str) -> None:
    fold.do(command(Beat, worker_id="w1", dead_after_ms=SECOND))
    fold.ticks(after=4 * SECOND)


def _removed(fold: Fold, made: str) -> None:
    fold.do(nack(made))
    fold.do(command(DeleteDead, job_id=made))


def _expired(fold: Fold, _made: str) -> None:
    _pass(fold, 31)


EXITS: list[tuple[str, Callable[[Fold, str], None], dict[str, object], str | None]] = [
    ("ack", _acked, {}, "completed"),
    ("nack with attempts left", _failed, {}, "retryable"),
    ("nack at the last attempt", _failed, {"retry": LAST}, "discarded"),
    ("nack to the dead letters", _failed, {"retry": LAST_DEAD}, "discarded"),
    ("nack with requeue", _requeued, {}, "available"),
    ("cancel", _cancelled, {}, "cancelled"),
    ("give back", _given_back, {}, "available"),
    ("visibility expiry", _invisible, {"visibility_timeout_ms": 5 * SECOND}, "available"),
    (
        "visibility expiry at the last attempt",
        _invisible,
        {"visibility_timeout_ms": 5 * SECOND, "retry": LAST},
        "discarded",
    ),
    ("execution timeout", _timed_out, {"timeout_ms": 10 * SECOND}, "retryable"),
    ("execution timeout at the last attempt", _timed_out, {"timeout_ms": 10 * SECOND, "retry": LAST}, "discarded"),
    ("total timeout", _expired, {"total_timeout_ms": 30 * SECOND}, "discarded"),
    ("worker death", _worker_died, {}, "available"),
    ("worker death at the last attempt", _worker_died, {"retry": LAST}, "discarded"),
    ("removal", _removed, {"retry": LAST_DEAD}, None),
]


@pytest.mark.parametrize("homes", [1, 4])
@pytest.mark.parametrize(("leave", "fields", "state"), [pytest.param(*row[1:], id=row[0]) for row in EXITS])
def test_every_way_out_of_active_frees_the_slot(
    leave: Callable[[Fold, str], None], fields: dict[str, object], state: str | None, homes: int
) -> None:
    fold, queue = _one(homes)
    limit = rule(homes=homes, concurrency=1)
    made = fold.active(queue, limit=limit, **fields)
    assert used(fold) == (0, 0, 1)
    leave(fold, made)
    found = fold.find(made)
    assert (found.job.state if found else None) == state
    again = state == "available"
    assert used(fold) == (0, 1 if again else 0, 0)
    other = fold.put(queue, limit=limit, priority=1)
    assert fold.take(queue) == [made if again and homes > 1 else other]
    _sound(fold)


@pytest.mark.parametrize("homes", [1, 4])
def test_a_waiting_or_granted_job_that_is_cancelled_leaves_no_slot(homes: int) -> None:
    fold, queue = _one(homes)
    limit = rule(homes=homes, concurrency=1)
    granted, waiting, last = (fold.put(queue, limit=limit) for _ in range(3))
    fold.do(command(Cancel, job_id=waiting))
    fold.do(command(Cancel, job_id=granted))
    assert (slot_of(fold, granted), slot_of(fold, waiting)) == (None, None)
    assert fold.take(queue, count=3) == [last]
    _sound(fold)


def test_a_held_job_expires_like_any_other() -> None:
    fold = Fold()
    limit = rule(concurrency=1)
    fold.active(limit=limit)
    late = fold.put(limit=limit, expires_in_ms=SECOND)
    fold.ticks(after=2 * SECOND)
    assert fold.state(late) == "discarded"
    assert used(fold) == (0, 0, 1)


# -- windows and throttles ------------------------------------------------------------------------------------


def test_a_window_begins_with_its_first_start_and_holds_as_many_as_it_may() -> None:
    fold = Fold()
    made = [fold.put(limit=rule(rate=(2, SECOND))) for _ in range(5)]
    fold.ticks(after=700)
    assert fold.take(count=5) == made[:2]
    fold.ticks(after=999)
    assert fold.take(count=5) == []
    fold.ticks(after=1)
    assert fold.take(count=5) == made[2:4]
    for each in made[:4]:
        fold.do(command(Ack, job_id=each))
    assert fold.take(count=5) == []
    _sound(fold)


def test_slots_that_were_granted_long_ago_count_in_the_window_in_which_they_are_used() -> None:
    fold = Fold()
    made = [fold.put(limit=rule(rate=(2, SECOND))) for _ in range(4)]
    assert fold.take() == made[:1]
    fold.ticks(after=5 * SECOND)
    assert fold.take(count=4) == made[1:3]


def test_throttled_starts_are_evenly_spaced() -> None:
    fold = Fold()
    made = [fold.put(limit=rule(throttle=(4, SECOND))) for _ in range(3)]
    assert fold.take(count=3) == made[:1]
    fold.ticks(after=249)
    assert fold.take(count=3) == []
    fold.ticks(after=1)
    assert fold.take(count=3) == made[1:2]


def test_all_bounds_must_be_met() -> None:
    fold = Fold()
    limit = rule(rate=(2, SECOND), concurrency=1)
    made = [fold.put(limit=limit) for _ in range(3)]
    assert fold.take(count=3) == made[:1]
    fold.ticks(after=2 * SECOND)
    assert fold.take(count=3) == []
    fold.do(command(Ack, job_id=made[0]))
    assert fold.take(count=3) == made[1:2]


# -- on_limit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("homes", [1, 4])
def test_a_job_that_asks_for_it_is_rescheduled_to_when_the_window_opens(homes: int) -> None:
    fold, queue = _one(homes)
    limit = rule(homes=homes, rate=(1, MINUTE), on_limit="reschedule")
    fold.active(queue, limit=limit)
    later = fold.put(queue, limit=limit)
    record = fold.record(later)
    assert (record.job.state, record.ctl.due) == ("scheduled", fold.now + MINUTE)
    assert slot_of(fold, later) is None
    fold.ticks(after=MINUTE)
    assert fold.take(queue) == [later]
    _sound(fold)


@pytest.mark.parametrize("homes", [1, 4])
@pytest.mark.parametrize("dead", [False, True])
def test_a_job_that_asks_for_it_is_dropped(homes: int, dead: bool) -> None:
    fold, queue = _one(homes)
    limit = rule(homes=homes, concurrency=1, on_limit="drop")
    retry = LAST_DEAD if dead else LAST
    fold.put(queue, limit=limit, retry=retry)
    dropped = fold.put(queue, limit=limit, retry=retry)
    record = fold.record(dropped)
    assert record.job.error is not None
    assert (record.job.state, record.job.error.type, record.ctl.dead) == ("discarded", "rate_limited", dead)
    assert "rate_limit.dropped" in fold.event_types(dropped)
    assert used(fold) == (0, 1, 0)
    _sound(fold)


# -- slots that nobody uses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("homes", [1, 4])
def test_a_slot_that_is_not_used_goes_to_a_job_of_another_queue(homes: int) -> None:
    fold = Fold(homes)
    here, there = (
        queue_at(limit_home(KEY, homes), homes),
        queue_at((limit_home(KEY, homes) + 1) % homes, homes, "x"),
    )
    limit = rule(homes=homes, concurrency=1)
    first, second = (fold.put(there, limit=limit) for _ in range(2))
    third = fold.put(here, limit=limit)
    assert fold.take(here) == []
    fold.ticks(after=4 * SECOND)
    assert fold.take(here) == []
    fold.ticks(after=SECOND)
    assert fold.take(here) == [third], "past the second job of the queue that nobody works"
    assert fold.record(first).ctl.held
    fold.do(command(Ack, job_id=third))
    assert fold.take(there, count=2) == [second], "the first has gone to the tail"
    _sound(fold)


def test_nothing_is_written_while_nobody_else_could_use_the_slot() -> None:
    fold = Fold()
    limit = rule(concurrency=1)
    for _ in range(3):
        fold.put(limit=limit)
    fold.ticks(after=6 * SECOND)
    assert (limit_of(fold) or {}).get("wake_at") is None


@pytest.mark.parametrize("homes", [1, 4])
def test_a_job_that_starts_while_its_slot_is_asked_back_keeps_it(homes: int) -> None:
    fold = Fold(homes, deliver=False)
    far, near = queue_at((limit_home(KEY, homes) + 1) % homes, homes), queue_at(limit_home(KEY, homes), homes, "x")
    limit = rule(homes=homes, concurrency=1)
    first = fold.put(far, limit=limit)
    fold.deliver_all()
    second = fold.put(near, limit=limit)
    fold.deliver_all()
    fold.now += 5 * SECOND
    if homes > 1:
        fold.ticks()  # The message is under way.
        assert fold.take(far) == [first]
        fold.deliver_all()
        assert fold.take(near) == []
        assert used(fold) == (1, 0, 1)
        fold.do(command(Ack, job_id=first))
        fold.deliver_all()
    else:
        fold.ticks()
    assert fold.take(near) == [second]
    fold.deliver_all()
    _sound(fold)


# -- what else changes a limit --------------------------------------------------------------------------------


@pytest.mark.parametrize("homes", [1, 4])
def test_a_job_may_say_when_its_limit_may_go_on(homes: int) -> None:
    fold, queue = _one(homes)
    limit = rule(homes=homes, concurrency=2)
    made = fold.active(queue, limit=limit, retry=LAST)
    fold.do(nack(made, limit_until=fold.now + MINUTE))
    second = fold.put(queue, limit=limit)
    assert fold.take(queue) == []
    assert "rate_limit.dynamic_adjusted" in fold.event_types(KEY)
    fold.ticks(after=MINUTE)
    assert fold.take(queue) == [second]
    _sound(fold)


def test_an_override_wins_until_it_ends() -> None:
    fold = Fold()
    closed = Override(concurrency=0, until=fold.now + MINUTE)
    fold.do(command(LimitOverride, key=KEY, override=closed))
    made = fold.put(limit=rule(concurrency=5))
    assert fold.take() == []
    fold.ticks(after=MINUTE)
    assert fold.take() == [made]
    fold.do(command(LimitOverride, key=KEY, override=Override(concurrency=1)))
    fold.put(limit=rule(concurrency=5))
    assert fold.take() == []
    fold.do(command(LimitOverride, key=KEY))
    assert len(fold.take()) == 1
    assert fold.do(command(LimitOverride, key="nobody")).code == "not_found"
    _sound(fold)


def test_the_rule_of_the_latest_new_job_is_in_force() -> None:
    fold = Fold()
    first = fold.put(limit=rule(concurrency=1))
    second = fold.put(limit=rule(concurrency=2))
    assert fold.take(count=2) == [first, second]
    fold.do(nack(first, requeue=True))
    assert (limit_of(fold) or {})["concurrency"] == 2


def test_a_dead_letter_that_moves_to_another_home_asks_from_there() -> None:
    fold, queue = _one(4)
    other = queue_at((limit_home(KEY, 4) + 2) % 4, 4)
    limit = rule(homes=4, concurrency=1)
    made = fold.active(queue, limit=limit, retry=LAST_DEAD)
    fold.do(nack(made))
    fold.do(command(RetryDead, job_id=made, queue=other))
    assert fold.take(other) == [made]
    assert used(fold) == (0, 0, 1)
    _sound(fold)


def test_a_limit_that_nobody_uses_is_forgotten_but_not_before_its_window_is_over() -> None:
    fold = Fold()
    for key, period in (("short", SECOND), ("long", 3 * HOUR)):
        made = fold.active(limit=rule(key, rate=(1, period)))
        fold.do(command(Ack, job_id=made))
    fold.ticks(after=HOUR)
    assert (limit_of(fold, "short"), limit_of(fold, "long") is None) == (None, False)
    fold.ticks(after=2 * HOUR)
    assert limit_of(fold, "long") is None
    _sound(fold)


def test_who_waits_and_who_is_released_is_told() -> None:
    fold = Fold()
    limit = rule(concurrency=1)
    first = fold.active(limit=limit)
    second = fold.put(limit=limit)
    (told,) = [event for event in fold.events if event.type == "rate_limit.exceeded"]
    assert (told.subject, told.data.key, told.data.strategy, told.data.limit, told.data.current) == (
        second,
        KEY,
        "concurrency",
        1,
        1,
    )
    fold.do(command(Ack, job_id=first))
    assert fold.event_types(second) == ["job.enqueued", "rate_limit.exceeded", "rate_limit.released"]


def test_many_grants_go_on_tick_by_tick() -> None:
    fold = Fold()
    fold.do(command(LimitOverride, key=KEY, override=Override(concurrency=0)))
    jobs = tuple(job(limit=rule(concurrency=1_000)) for _ in range(700))
    fold.do(enqueue(*jobs))
    assert used(fold) == (700, 0, 0)
    fold.do(command(LimitOverride, key=KEY))
    assert used(fold) == (700 - 256, 256, 0)
    fold.ticks()
    fold.ticks()
    assert used(fold) == (0, 700, 0)
    assert len(fold.take(count=1_000)) == 700
    _sound(fold)


# -- whole queues ---------------------------------------------------------------------------------------------


def _configure(queue: str, **fields: Any) -> Configure:
    names = ("concurrency", "rate_limit")
    return command(Configure, queue=queue, config=ConfigRecord(name=queue, **fields), names=names)


@pytest.mark.parametrize("name", ["default", "_default"])
def test_a_queue_limit_binds_all_its_jobs(name: str) -> None:
    fold = Fold()
    fold.do(_configure(name, concurrency=2, rate_limit=Window(3, SECOND)))
    made = [fold.put(args=Raw(b"[%d]" % n)) for n in range(6)]
    assert fold.take(count=6) == made[:2]
    assert fold.take(count=6) == []
    fold.do(command(Ack, job_id=made[0]))
    fold.do(command(Ack, job_id=made[1]))
    assert fold.take(count=6) == made[2:3]
    fold.do(command(Ack, job_id=made[2]))
    assert fold.do(claim(count=6)).jobs == ()
    fold.ticks(after=SECOND)
    assert fold.take(count=6) == made[3:5]
    fold.do(_configure(name))
    assert fold.take(count=6) == made[5:]
    _sound(fold)


@pytest.mark.parametrize(("target", "homes"), [(0, 1), (0, 4), (2, 4)])
def test_jobs_that_move_with_their_queue_keep_their_slots_or_ask_again(target: int, homes: int) -> None:
    fold, queue = _one(homes)
    other = queue_at((limit_home(KEY, homes) + 1 + target) % homes, homes, "other")
    limit = rule(homes=homes, concurrency=1)
    first, second = (fold.put(queue, limit=limit) for _ in range(2))
    fold.do(command(DeleteQueue, queue=queue, strategy="move", target=other))
    assert fold.take(other, count=2) == [first]
    assert used(fold) == (1, 0, 1)
    fold.do(command(Ack, job_id=first))
    assert fold.take(other, count=2) == [second]
    _sound(fold)
