"""Maintenance: nothing starts at any home, deadlines and clients go on."""

from __future__ import annotations

import json
from typing import Any

from msgspec import Raw

from ojs_stream.core.commands import Fire, Maintain, Promote, PutCron, Reset
from ojs_stream.core.homes import home_of
from ojs_stream.core.names import MAINTENANCE
from tests.support.builders import SECOND, START, Fold, client_id, command, job, nack, policy, queue_at, tick
from tests.support.recount import recount_all

HOMES = 4


def maintain(fold: Fold, *, enabled: bool = True, **fields: Any) -> dict[str, Any]:
    told = fold.do(command(Maintain, enabled=enabled, **fields), home=home_of(MAINTENANCE, fold.homes))
    return told.data


def told_by(fold: Fold, home: int) -> Any:
    return json.loads(fold.dump(home)["home"]).get("maintenance")


def test_every_home_knows_of_it_and_of_its_end() -> None:
    fold = Fold(HOMES)
    assert maintain(fold, reason="upgrade", length_ms=9 * SECOND) == {"since": START, "ends": START + 9 * SECOND}
    for home in range(HOMES):
        assert told_by(fold, home) == {"since": START, "reason": "upgrade", "ends": START + 9 * SECOND}
    fold.now += SECOND
    assert maintain(fold, reason="longer")["since"] == START
    assert told_by(fold, 3) == {"since": START, "reason": "longer"}
    maintain(fold, enabled=False)
    assert [told_by(fold, home) for home in range(HOMES)] == [None] * HOMES
    kinds = [event.type for event in fold.events if event.subject == "system"]
    assert kinds == ["system.maintenance_started", "system.maintenance_ended"]


def test_nothing_starts_but_clients_may_enqueue() -> None:
    fold = Fold(HOMES)
    queues = [queue_at(home, HOMES) for home in range(HOMES)]
    maintain(fold)
    made = [fold.put(queue) for queue in queues]
    made.append(fold.put(queues[0], id=client_id(HOMES, 2)))
    assert [fold.take(queue) for queue in queues] == [[]] * HOMES
    maintain(fold, enabled=False)
    assert sorted(job_id for queue in queues for job_id in fold.take(queue, count=2)) == sorted(made)
    assert recount_all(fold.dumps()) == []


def test_what_was_due_is_promoted_after_it() -> None:
    fold = Fold()
    later = fold.put(delay_ms=SECOND)
    failed = fold.active("other", retry=policy())
    fold.do(nack(failed))
    maintain(fold)
    fold.now += 2 * SECOND
    assert fold.do(tick("run")).data["moved"] == 0
    assert fold.do(command(Promote, job_id=failed, attempt=1)).data == {"moved": 0}
    assert (fold.state(later), fold.state(failed)) == ("scheduled", "retryable")
    maintain(fold, enabled=False)
    assert fold.do(tick("run")).data["moved"] == 2
    assert (fold.state(later), fold.state(failed)) == ("available", "available")


def test_leases_end_and_jobs_expire_meanwhile() -> None:
    fold = Fold()
    leased = fold.active(visibility_timeout_ms=SECOND)
    short = fold.put("other", delay_ms=SECOND, expires_in_ms=2 * SECOND)
    maintain(fold)
    fold.ticks(after=3 * SECOND)
    assert (fold.state(leased), fold.state(short)) == ("available", "discarded")


def test_an_instant_of_a_cron_entry_is_skipped() -> None:
    fold = Fold()
    entry = command(
        PutCron,
        name="hourly",
        expression="@every 1s",
        timezone="UTC",
        overlap="allow",
        job=job("reports", id="", client_id=False),
        template=Raw(b'{"type":"email.send","args":[]}'),
        anchor=START,
        next_at=START + SECOND,
    )
    fold.do(entry)
    maintain(fold)
    fire = command(Fire, name="hourly", tick=START + SECOND, next_at=START + 2 * SECOND, version=1)
    assert fold.do(fire, after=SECOND).data["moved"] == 1
    (run,) = json.loads(fold.dump()["cron:hourly"])["history"]
    assert (run["outcome"], run["reason"]) == ("skipped", "maintenance")
    assert fold.counts("reports") == {}


def test_a_reset_ends_it() -> None:
    fold = Fold()
    maintain(fold)
    fold.do(command(Reset))
    assert told_by(fold, 0) is None
