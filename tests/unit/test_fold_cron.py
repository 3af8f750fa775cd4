"""Cron entries in the fold: a tick fires once, overlaps do what the policy says, the history says what was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw, structs

from ojs_stream.core.commands import (
    Ack,
    Cancel,
    DeleteCron,
    Fire,
    PutCron,
    Reset,
    SwitchCron,
    TriggerCron,
)
from ojs_stream.core.homes import home_in_id, home_of
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import CronRecord, UniqueRule, decode_record
from tests.support.builders import (
    MINUTE,
    SECOND,
    START,
    Fold,
    command,
    enqueue,
    job,
    jobs_of,
    nack,
    policy,
    queue_at,
)
from tests.support.recount import recount_all

HOMES = pytest.mark.parametrize("homes", [1, 4])
NAME = "nightly"
FIRST = START + MINUTE
TEMPLATE = Raw(b'{"type":"report.make","args":[18446744073709551616]}')


def cron_command(kind: Any, name: str = NAME, **fields: Any) -> Any:
    return command(kind, name=name, **fields)


def register(
    fold: Fold, *, queue: str = "reports", name: str = NAME, job_fields: Any = (), **fields: Any
) -> Outcome:
    given = {"args": Raw(b"[18446744073709551616]"), "meta": Raw(b'{"n":1.50}'), **dict(job_fields)}
    plain: dict[str, Any] = {
        "expression": "* * * * *",
        "timezone": "UTC",
        "overlap": "skip",
        "job": job(queue, homes=fold.homes, id="", client_id=False, **given),
        "template": TEMPLATE,
        "anchor": fold.now,
        "next_at": FIRST,
    }
    return fold.do(cron_command(PutCron, name, **{**plain, **fields}), home=home_of(name, fold.homes))


def ask(fold: Fold, kind: Any, name: str = NAME, **fields: Any) -> Outcome:
    return fold.do(cron_command(kind, name, **fields), home=home_of(name, fold.homes))


def entry_of(fold: Fold, name: str = NAME) -> CronRecord:
    found = decode_record(("cron", name), fold.dump(home_of(name, fold.homes))[f"cron:{name}"])
    assert isinstance(found, CronRecord)
    return found


def fire(fold: Fold, tick: int, *, after: int = 0, name: str = NAME, **fields: Any) -> int:
    fold.now = max(fold.now, tick) + after
    given = {"tick": tick, "next_at": tick + MINUTE, "version": entry_of(fold, name).version, **fields}
    outcome = ask(fold, Fire, name, **given)
    assert not outcome.refused, outcome
    return int(outcome.data["moved"])


def jobs_in(fold: Fold, queue: str = "reports") -> list[str]:
    return [name[4:] for dump in fold.dumps() for name in dump if name.startswith("job:")]


def told(fold: Fold, name: str = NAME) -> list[str]:
    return [event.type for event in fold.events if event.subject == name]


def outcomes(fold: Fold) -> list[tuple[str, str]]:
    return [(run.outcome, run.reason) for run in entry_of(fold).history]


def sound(fold: Fold) -> None:
    assert recount_all(fold.dumps()) == []


# -- registration -------------------------------------------------------------------------------------------


@HOMES
def test_an_entry_is_listed_and_due_at_its_home(homes: int) -> None:
    fold = Fold(homes)
    outcome = register(fold)
    assert outcome.data == {"created": True}
    dump = fold.dump(home_of(NAME, homes))
    assert dump["crons"] == {NAME: 0}
    assert dump["due:cron"] == {f"cron:{NAME}": FIRST}
    assert bytes(outcome.jobs[0]) == dump[f"cron:{NAME}"]
    sound(fold)


def test_the_same_schedule_goes_on_when_an_application_registers_again() -> None:
    fold = Fold()
    register(fold, expression="@every 1h")
    fold.now += 10 * SECOND
    outcome = register(fold, expression="@every 1h", anchor=fold.now, next_at=FIRST + 10 * SECOND, overlap="allow")
    assert outcome.data == {"created": False}
    entry = entry_of(fold)
    assert (entry.anchor, entry.next_at, entry.overlap, entry.version) == (START, FIRST, "allow", 2)
    assert (entry.created, entry.updated) == (START, START + 10 * SECOND)


def test_another_schedule_or_zone_begins_anew() -> None:
    fold = Fold()
    register(fold)
    register(fold, expression="0 * * * *", next_at=FIRST + 1)
    assert entry_of(fold).next_at == FIRST + 1
    register(fold, expression="0 * * * *", timezone="Asia/Tokyo", next_at=FIRST + 2)
    assert entry_of(fold).next_at == FIRST + 2


def test_an_entry_that_an_operator_has_paused_stays_so_when_it_is_registered_again() -> None:
    fold = Fold()
    register(fold)
    ask(fold, SwitchCron, enabled=False)
    register(fold)
    assert (entry_of(fold).enabled, entry_of(fold).next_at) == (False, 0)
    register(fold, enabled=True)
    assert (entry_of(fold).enabled, entry_of(fold).next_at) == (True, FIRST)


def test_a_change_of_a_version_that_is_over_is_a_conflict() -> None:
    fold = Fold()
    register(fold)
    assert not register(fold, changes=1, overlap="allow").refused
    assert register(fold, changes=1, overlap="enqueue").code == "conflict"
    assert register(fold, name="unknown", changes=1).code == "not_found"
    assert entry_of(fold).overlap == "allow"


def test_a_deleted_entry_is_gone_and_its_jobs_stay() -> None:
    fold = Fold()
    register(fold)
    fire(fold, FIRST)
    (made,) = jobs_in(fold)
    assert not ask(fold, DeleteCron).refused
    assert {name for name in fold.dump() if "cron" in name} == set()
    assert ask(fold, DeleteCron).code == "not_found"
    assert ask(fold, TriggerCron).code == "not_found"
    assert ask(fold, SwitchCron, enabled=True).code == "not_found"
    assert fold.take("reports") == [made]
    assert not fold.do(command(Ack, job_id=made)).refused, "nobody waits for it any more"


# -- ticks --------------------------------------------------------------------------------------------------


@HOMES
def test_a_tick_enqueues_the_job_of_the_template_and_says_so(homes: int) -> None:
    fold = Fold(homes)
    queue = queue_at(homes - 1, homes, prefix="reports")
    register(fold, queue=queue)
    assert fire(fold, FIRST, after=7) == 1
    (made,) = jobs_in(fold)
    assert home_in_id(made) == fold.where(made) == homes - 1
    record = fold.record(made)
    assert record.job.queue == queue
    assert bytes(record.job.args) == b"[18446744073709551616]", "raw as it was registered"
    assert bytes(record.job.meta) == (
        b'{"n":1.50,"cron_name":"nightly","cron_triggered_at":"2030-03-17T17:47:40.000Z"}'
    )
    entry = entry_of(fold)
    assert (entry.runs, entry.last_run, entry.next_at) == (1, FIRST + 7, FIRST + MINUTE)
    assert [(run.due, run.at, run.job) for run in entry.history] == [(FIRST, FIRST + 7, made)]
    (event,) = [event for event in fold.events if event.type == "cron.triggered"]
    assert event.subject == NAME
    said = event.data
    assert (said.cron_name, said.cron_expr, said.job_type, said.job_id) == (NAME, "* * * * *", "email.send", made)
    assert (said.scheduled_at, said.run_count) == ("2030-03-17T17:47:40.000Z", 1)
    sound(fold)


@HOMES
def test_a_tick_that_several_timers_submit_fires_once(homes: int) -> None:
    fold = Fold(homes)
    register(fold, overlap="allow")
    version = entry_of(fold).version
    fold.now = FIRST
    twice = cron_command(Fire, tick=FIRST, next_at=FIRST + MINUTE, version=version)
    answers = fold.do_all([twice, twice, twice], home=home_of(NAME, homes))
    assert [answer.data["moved"] for answer in answers] == [1, 0, 0]
    assert fire(fold, FIRST) == 0
    assert len(jobs_in(fold)) == 1
    assert fire(fold, FIRST + MINUTE) == 1
    assert len(jobs_in(fold)) == 2
    sound(fold)


def test_the_job_id_follows_from_name_and_tick() -> None:
    ids = []
    for _ in range(2):
        fold = Fold()
        register(fold)
        fire(fold, FIRST)
        ids += jobs_in(fold)
    assert ids[0] == ids[1]
    assert int(ids[0].replace("-", "")[:12], 16) == FIRST, "a UUIDv7 of the tick's time"


def test_an_entry_that_is_registered_anew_never_makes_an_id_again() -> None:
    """A view's clock may be behind: the tick that the deleted entry has fired comes once more."""
    fold = Fold()
    register(fold)
    fire(fold, FIRST)
    ask(fold, DeleteCron)
    register(fold)
    fire(fold, FIRST)
    assert len(set(jobs_in(fold))) == 2
    sound(fold)


def test_a_tick_that_is_decided_is_not_fired_again_by_a_schedule_that_begins_before_it() -> None:
    fold = Fold()
    register(fold, overlap="allow")
    fire(fold, FIRST)
    register(fold, overlap="allow", expression="*/1 * * * *", next_at=FIRST - 1)
    assert fire(fold, FIRST, next_at=FIRST + MINUTE) == 1, "it moves on"
    assert len(jobs_in(fold)) == 1
    assert entry_of(fold).next_at == FIRST + MINUTE


def test_what_is_void_or_not_due_by_the_clock_of_the_log_moves_nothing() -> None:
    fold = Fold()
    register(fold)
    before = fold.dump()[f"cron:{NAME}"]
    assert ask(fold, Fire, tick=FIRST, next_at=FIRST + MINUTE, version=1).data == {"moved": 0}, "the log is behind"
    fold.now = FIRST
    assert fire(fold, FIRST, version=7) == 0
    assert fire(fold, FIRST - 1) == 0
    assert fire(fold, FIRST, next_at=FIRST) == 0
    assert ask(fold, Fire, "unknown", tick=FIRST, next_at=0, version=1).data == {"moved": 0}
    assert fold.dump()[f"cron:{NAME}"] == before


def test_after_downtime_there_is_one_catch_up_and_the_missed_ticks_are_counted() -> None:
    fold = Fold()
    register(fold, overlap="allow")
    late = FIRST + 9 * MINUTE
    assert fire(fold, late, missed=9) == 1
    assert len(jobs_in(fold)) == 1
    (run,) = entry_of(fold).history
    assert (run.due, run.missed) == (late, 9)
    assert entry_of(fold).next_at == late + MINUTE
    assert fire(fold, FIRST + MINUTE) == 0


def test_a_last_instant_leaves_nothing_due() -> None:
    fold = Fold()
    register(fold)
    assert fire(fold, FIRST, next_at=0) == 1
    assert "due:cron" not in fold.dump()
    assert entry_of(fold).enabled


# -- overlap ------------------------------------------------------------------------------------------------


@HOMES
def test_skip_waits_until_the_job_is_over_in_whatever_state_it_is(homes: int) -> None:
    fold = Fold(homes)
    register(fold, queue=queue_at(homes - 1, homes, prefix="reports"))
    fire(fold, FIRST)
    (made,) = jobs_in(fold)
    fire(fold, FIRST + MINUTE)
    queue = fold.record(made).job.queue
    assert fold.take(queue) == [made]
    fire(fold, FIRST + 2 * MINUTE)
    assert jobs_in(fold) == [made]
    assert outcomes(fold)[:2] == [("skipped", "overlap_skip")] * 2
    skipped = [event.data for event in fold.events if event.type == "cron.skipped"]
    assert {(said.reason, said.existing_job_id) for said in skipped} == {("overlap_skip", made)}
    assert entry_of(fold).runs == 1
    fold.do(command(Ack, job_id=made))
    fire(fold, FIRST + 3 * MINUTE)
    assert len(jobs_in(fold)) == 2
    assert entry_of(fold).history[-1].state == "completed"
    sound(fold)


@pytest.mark.parametrize("end", ["ack", "discard", "cancel"])
def test_every_way_to_an_end_frees_the_entry(end: str) -> None:
    fold = Fold()
    register(fold, job_fields={"retry": policy(max_attempts=1)})
    fire(fold, FIRST)
    (made,) = jobs_in(fold)
    fold.take("reports")
    fold.do({"ack": command(Ack, job_id=made), "discard": nack(made), "cancel": command(Cancel, job_id=made)}[end])
    assert entry_of(fold).running == ()
    fire(fold, FIRST + MINUTE)
    assert len(jobs_in(fold)) == 2


def test_a_failure_that_is_retried_is_no_end() -> None:
    fold = Fold()
    register(fold)
    fire(fold, FIRST)
    fold.take("reports")
    fold.do(nack(jobs_in(fold)[0]))
    fire(fold, FIRST + MINUTE)
    assert len(jobs_in(fold)) == 1


@HOMES
@pytest.mark.parametrize("overlap", ["allow", "enqueue"])
def test_allow_and_enqueue_fire_beside_what_is_not_over(homes: int, overlap: str) -> None:
    fold = Fold(homes)
    register(fold, overlap=overlap)
    for number in range(3):
        fire(fold, FIRST + number * MINUTE)
    assert len(set(jobs_in(fold))) == 3
    assert [each.id for each in entry_of(fold).running] == sorted(jobs_in(fold))
    assert fold.counts("reports") == {"available": 3}


@HOMES
def test_cancel_previous_ends_what_runs_before_the_next_begins(homes: int) -> None:
    fold = Fold(homes)
    queue = queue_at(homes - 1, homes, prefix="reports")
    register(fold, queue=queue, overlap="cancel_previous")
    fire(fold, FIRST)
    (first,) = jobs_in(fold)
    fold.take(queue)
    fire(fold, FIRST + MINUTE)
    (second,) = fold.take(queue)
    assert (fold.state(first), fold.state(second)) == ("cancelled", "active")
    assert [each.id for each in entry_of(fold).running] == [second]
    assert [run.state for run in entry_of(fold).history] == ["", "cancelled"]
    fold.do(command(Ack, job_id=second))
    fire(fold, FIRST + 2 * MINUTE)
    assert fold.state(second) == "completed", "nothing ran: nothing is cancelled"
    sound(fold)


# -- refusals -----------------------------------------------------------------------------------------------


def unique_at(home: int, **fields: Any) -> UniqueRule:
    return UniqueRule(key="aa", home=home, states=("available", "active"), **fields)


@HOMES
@pytest.mark.parametrize("on_conflict", ["reject", "ignore"])
def test_a_run_that_is_a_duplicate_is_skipped_with_its_reason(homes: int, on_conflict: Any) -> None:
    """With one home it is known at once, with several when the lock's home has answered."""
    fold = Fold(homes)
    lock_home = (home_of(NAME, homes) + 1) % homes
    rule = unique_at(lock_home, on_conflict=on_conflict)
    taken = job("reports", homes=homes, unique=rule)
    fold.do(enqueue(taken), home=lock_home)
    register(fold, job_fields={"unique": rule})
    fire(fold, FIRST)
    assert jobs_in(fold) == [taken.id]
    entry = entry_of(fold)
    assert (entry.running, entry.runs) == ((), 0)
    ((outcome, reason),) = outcomes(fold)
    assert outcome == "skipped"
    assert taken.id in reason
    assert told(fold)[-1] == "cron.skipped"
    fold.take("reports")
    fold.do(command(Ack, job_id=taken.id))
    fire(fold, FIRST + MINUTE)
    assert len(jobs_in(fold)) == 2
    assert entry_of(fold).runs == 1
    sound(fold)


@HOMES
def test_cancel_previous_is_told_of_a_cancelled_job_even_when_the_next_is_refused(homes: int) -> None:
    fold = Fold(homes)
    here = home_of(NAME, homes)
    queue = queue_at(here, homes, prefix="reports")
    register(fold, queue=queue, overlap="cancel_previous")
    fire(fold, FIRST)
    (first,) = jobs_in(fold)
    fold.do(enqueue(job(queue, homes=homes, unique=unique_at(here))), home=here)
    register(fold, queue=queue, overlap="cancel_previous", job_fields={"unique": unique_at(here)})
    fire(fold, FIRST + MINUTE)
    assert fold.state(first) == "cancelled"
    assert entry_of(fold).running == ()
    assert outcomes(fold)[0][0] == "skipped"


# -- by hand ------------------------------------------------------------------------------------------------


@HOMES
def test_a_run_by_hand_leaves_the_schedule_alone(homes: int) -> None:
    fold = Fold(homes)
    register(fold)
    ids = [str(jobs_of(ask(fold, TriggerCron))[0]["id"]) for _ in range(2)]
    assert sorted(ids) == sorted(jobs_in(fold))
    assert len(set(ids)) == 2, "in the same millisecond, too"
    entry = entry_of(fold)
    assert (entry.next_at, entry.runs, len(entry.running)) == (FIRST, 2, 2)
    assert outcomes(fold) == [("triggered", "manual")] * 2
    assert fire(fold, FIRST) == 1
    assert outcomes(fold)[0] == ("skipped", "overlap_skip"), "what runs by hand runs"


@HOMES
def test_a_refused_run_by_hand_is_the_clients_to_know_whichever_home_decides(homes: int) -> None:
    for lock_home in range(homes):
        fold = Fold(homes)
        register(fold, job_fields={"unique": unique_at(lock_home)})
        (made,) = jobs_of(ask(fold, TriggerCron))
        refused = ask(fold, TriggerCron)
        assert (refused.code, refused.details["existing_job_id"]) == ("duplicate", made["id"])
        assert entry_of(fold).runs == 1
        assert [each.id for each in entry_of(fold).running] == [made["id"]]


@HOMES
def test_a_repeated_run_by_hand_runs_once_and_a_refused_one_is_not_remembered(homes: int) -> None:
    for lock_home in range(homes):
        fold = Fold(homes)
        register(fold, job_fields={"unique": unique_at(lock_home)})
        (made,) = jobs_of(ask(fold, TriggerCron, replay="k", body="b"))
        (again,) = jobs_of(ask(fold, TriggerCron, replay="k", body="b"))
        assert (again["id"], entry_of(fold).runs) == (made["id"], 1)
        assert ask(fold, TriggerCron, replay="other", body="b").code == "duplicate"
        fold.do(command(Cancel, job_id=made["id"]))
        (second,) = jobs_of(ask(fold, TriggerCron, replay="other", body="b"))
        assert second["id"] != made["id"]


@HOMES
def test_a_run_by_hand_that_gives_way_to_a_unique_job_names_that_one(homes: int) -> None:
    for lock_home in range(homes):
        fold = Fold(homes)
        register(fold, job_fields={"unique": unique_at(lock_home, on_conflict="ignore")})
        (made,) = jobs_of(ask(fold, TriggerCron))
        again = ask(fold, TriggerCron)
        assert again.data["existing"] == {"0": made["id"]}
        assert entry_of(fold).runs == 1


def test_a_paused_entry_fires_by_hand_only_and_resumes_at_its_next_instant() -> None:
    fold = Fold()
    register(fold)
    version = entry_of(fold).version
    ask(fold, SwitchCron, enabled=False)
    assert fire(fold, FIRST, version=version) == 0
    assert fire(fold, FIRST) == 0
    assert "due:cron" not in fold.dump()
    assert not ask(fold, TriggerCron).refused
    assert ask(fold, SwitchCron, enabled=True, next_at=FIRST + MINUTE, version=version).code == "conflict"
    ask(fold, SwitchCron, enabled=True, next_at=FIRST + MINUTE, version=entry_of(fold).version)
    assert entry_of(fold).next_at == FIRST + MINUTE
    assert len(jobs_in(fold)) == 1


# -- bounds -------------------------------------------------------------------------------------------------


def test_history_and_running_jobs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ojs_stream.core.fold.cron.HISTORY_MAX", 3)
    monkeypatch.setattr("ojs_stream.core.fold.cron.RUNNING_MAX", 2)
    fold = Fold()
    register(fold, overlap="allow")
    for number in range(5):
        fire(fold, FIRST + number * MINUTE)
    entry = entry_of(fold)
    assert [run.due for run in entry.history] == [FIRST + n * MINUTE for n in (4, 3, 2)]
    assert len(entry.running) == 2


def test_a_reset_forgets_entries() -> None:
    fold = Fold()
    register(fold)
    fold.do(command(Reset), home=0)
    assert [name for name in fold.dump() if "cron" in name] == []


def test_the_stored_entry_is_readable_json() -> None:
    fold = Fold()
    register(fold, description="every night")
    fire(fold, FIRST)
    stored = json.loads(fold.dump()[f"cron:{NAME}"])
    assert stored["description"] == "every night"
    assert stored["template"]["type"] == "report.make"
    assert structs.asdict(entry_of(fold))["name"] == NAME
