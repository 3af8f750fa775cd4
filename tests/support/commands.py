"""Hypothesis strategies: whole histories of commands, as (milliseconds since the one before, home, command)."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from hypothesis import strategies as st
from msgspec import Raw, structs

from ojs_stream.core.commands import (
    Ack,
    Activate,
    Beat,
    Bulk,
    Cancel,
    CancelWorkflow,
    Command,
    Configure,
    DeleteCron,
    DeleteDead,
    DeleteQueue,
    Direct,
    Drain,
    DropCheckpoint,
    Enqueue,
    Extend,
    Fire,
    GiveBack,
    LimitOverride,
    Maintain,
    NewJob,
    Pause,
    Promote,
    Purge,
    PutCron,
    RemoveWorker,
    Report,
    Reprioritize,
    Reset,
    Resume,
    RetryDead,
    RetryJob,
    SaveCheckpoint,
    StartWorkflow,
    SwitchCron,
    Tick,
    TriggerCron,
)
from ojs_stream.core.config_body import parse_config_body
from ojs_stream.core.homes import home_of
from ojs_stream.core.names import DEFAULT_CONFIG
from ojs_stream.core.records import LimitRule, Override, Retention, UniqueRule
from ojs_stream.core.states import STATES
from tests.support.builders import (
    MINUTE,
    SECOND,
    START,
    Fold,
    claim,
    command,
    enqueue,
    job,
    nack,
    policy,
    tick,
    unique,
)
from tests.support.flows import leaf, start_of
from tests.support.limits import rule

Step = tuple[int, int | None, Command]
QUEUES = ("alpha", "beta", "gamma")
WORKERS = ("w1", "w2", "wö:3")
CRONS = ("hourly", "night.ly")
KEYS = ("key 1", "key 2")
IDS = 16
SHORT = Retention(10 * SECOND, 20 * SECOND, 30 * SECOND, 40 * SECOND)


def _by_client(number: int) -> bool:
    return number % 2 == 1


def job_ids(homes: int) -> list[str]:
    """The few ids that a history uses: most commands shall meet a job. Some are a client's."""
    made = []
    for number in range(IDS):
        home = home_of(QUEUES[number % 3], homes)
        client = _by_client(number)
        made.append(f"0197f0a0-0000-7000-{8 + client}000-{number:09x}{0 if client else home:03x}")
    return made


@lru_cache(maxsize=8)
def workflows(homes: int) -> list[StartWorkflow]:
    """The few workflows of a history, over all queues."""
    one, two, three = (leaf("flow.job", queue) for queue in QUEUES)
    bodies = [
        {"type": "chain", "steps": [one, {"type": "group", "jobs": [two, three]}, one]},
        {"type": "batch", "jobs": [two, one], "callbacks": {"on_failure": three, "on_success": one}},
        {"steps": [{"id": "a", **one}, {"id": "b", **two}, {"id": "c", **three, "depends_on": ["a", "b"]}]},
    ]
    return [structs.replace(start_of(body, homes), retention=SHORT) for body in bodies]


def _workflow_jobs(homes: int) -> list[str]:
    return [step.job.id for start in workflows(homes) for step in start.steps if step.job is not None]


def _workflow_commands(homes: int) -> st.SearchStrategy[Command]:
    ids = st.sampled_from(_workflow_jobs(homes))
    starts = st.sampled_from(workflows(homes))
    return st.one_of(
        starts,
        st.builds(lambda one: command(Ack, job_id=one, result=Raw(b"[1e400]")), ids),
        st.builds(lambda one: command(Ack, job_id=one), ids),
        st.builds(nack, ids),
        st.builds(lambda start: command(CancelWorkflow, id=start.id), starts),
    )


def _jobs(homes: int) -> st.SearchStrategy[Any]:
    ids = job_ids(homes)

    def build(number: int, options: dict[str, Any]) -> Any:
        options = {"retry": policy(max_attempts=2, on_exhaustion="dead_letter", jitter=True), **options}
        return job(
            QUEUES[number % 3],
            homes=homes,
            id=ids[number],
            client_id=_by_client(number),
            retention=SHORT,
            **options,
        )

    options = st.sampled_from(
        [
            {},
            {"pending": True},
            {"delay_ms": 1_500},
            {"expires_in_ms": 2_000},
            {"priority": 50, "timeout_ms": 4 * SECOND},
            {"visibility_timeout_ms": 3 * SECOND},
            {"total_timeout_ms": 6 * SECOND, "timeout_ms": SECOND},
            {"args": Raw(b'[18446744073709551616, "\xc3\xa9"]'), "extra": Raw(b'{"x_a":1e400}')},
            {"retry": policy(max_attempts=1)},
            *({"unique": rule} for rule in _rules(homes)),
            {"unique": _rules(homes)[0], "delay_ms": 1_500},
            *({"limit": limit} for limit in _limits(homes)),
            {"limit": _limits(homes)[0], "priority": 50, "visibility_timeout_ms": 3 * SECOND},
        ]
    )
    return st.builds(build, st.integers(0, IDS - 1), options)


def _repeatable(jobs: list[NewJob], key: str, partial: bool) -> Enqueue:
    """An enqueue under a key that others of the history use too, with the same or with another body."""
    return structs.replace(enqueue(*jobs), replay=key, body=str(len(jobs)), partial=partial)


def _limits(homes: int) -> list[LimitRule]:
    """Of one key shared by all queues, of one that lives with a queue, and for jobs that do not wait."""
    return [
        rule("shared", homes=homes, concurrency=1),
        rule("queue:alpha", homes=homes, rate=(1, 2 * SECOND)),
        rule("busy", homes=homes, throttle=(1, SECOND), on_limit="reschedule"),
        rule("busy", homes=homes, concurrency=1, on_limit="drop"),
    ]


def _rules(homes: int) -> list[UniqueRule]:
    """Two fingerprints under rules of every kind."""
    kinds: list[dict[str, Any]] = [
        {"on_conflict": "replace_except_schedule"},
        {"on_conflict": "replace"},
        {"on_conflict": "ignore", "states": ("available", "discarded")},
        {"period_ms": 2 * SECOND},
    ]
    return [unique(key, homes=homes, **kind) for key, kind in zip("aabb", kinds, strict=True)]


_CONFIGS: list[dict[str, Any]] = [
    {"max_size": 3},
    {"default_timeout": 4, "retention": "5s", "default_retry": {"max_attempts": 3}},
    {"max_size": None, "allowed_job_types": ["email.*"]},
]


def _configure(queue: str, fields: dict[str, Any]) -> Command:
    body = parse_config_body(queue, json.dumps(fields).encode())
    return command(Configure, queue=queue, config=body.config, names=body.names)


def _delete(queue: str, target: str) -> Command:
    """Moved to another queue, or discarded where both are the same."""
    if queue == target:
        return command(DeleteQueue, queue=queue, strategy="discard")
    return command(DeleteQueue, queue=queue, strategy="move", target=target)


def _commands(homes: int) -> st.SearchStrategy[Command]:
    ids = st.sampled_from(job_ids(homes))
    queues = st.sampled_from(QUEUES)
    workers = st.sampled_from(WORKERS)
    some_ids = st.lists(ids, min_size=1, max_size=3, unique=True).map(tuple)
    new = st.lists(_jobs(homes), min_size=1, max_size=3, unique_by=lambda each: each.id)
    claims = st.builds(
        lambda names, count, worker: claim(*names, count=count, worker=worker),
        st.lists(queues, min_size=1, max_size=2, unique=True),
        st.integers(1, 4),
        workers,
    )
    failures = st.sampled_from(
        [
            {},
            {"requeue": True},
            {"code": "DEAD_LETTER"},
            {"retryable": False},
            {"limit_until": START + 4 * SECOND},
            {"details": Raw(b"[1]")},
        ]
    )
    return st.one_of(
        st.builds(lambda jobs: enqueue(*jobs), new),
        st.builds(lambda jobs: enqueue(*jobs), new),
        st.builds(_repeatable, new, st.sampled_from(KEYS), st.booleans()),
        claims,
        claims,
        st.builds(lambda one: command(Ack, job_id=one, result=Raw(b'{"ok":1}')), ids),
        st.builds(lambda one, fields: nack(one, **fields), ids, failures),
        st.builds(lambda one: command(Cancel, job_id=one), ids),
        st.builds(lambda one: command(Activate, job_id=one), ids),
        st.builds(lambda one: command(RetryJob, job_id=one), ids),
        st.builds(
            lambda one, level: command(Reprioritize, job_id=one, priority=level), ids, st.sampled_from((-9, 7))
        ),
        st.builds(
            lambda action, some: command(Bulk, action=action, job_ids=some, states=STATES),
            st.sampled_from(("cancel", "retry", "delete")),
            some_ids,
        ),
        st.builds(lambda one: command(Promote, job_id=one, attempt=1), ids),
        st.builds(
            lambda one, queue: command(RetryDead, job_id=one, queue=queue), ids, st.sampled_from(("", *QUEUES))
        ),
        st.builds(lambda one: command(DeleteDead, job_id=one), ids),
        st.builds(lambda some, worker: command(Extend, worker_id=worker, job_ids=some), some_ids, workers),
        st.builds(lambda some, worker: command(GiveBack, worker_id=worker, job_ids=some), some_ids, workers),
        _said_commands(ids),
        st.builds(lambda queue: command(Pause, queue=queue), queues),
        st.builds(lambda queue: command(Resume, queue=queue), queues),
        st.builds(lambda queue: command(Drain, queue=queue), queues),
        st.builds(_configure, st.sampled_from((DEFAULT_CONFIG, *QUEUES)), st.sampled_from(_CONFIGS)),
        st.builds(lambda queue, state: command(Purge, queue=queue, state=state), queues, st.sampled_from(STATES)),
        st.builds(_delete, queues, queues),
        st.builds(
            lambda worker, state: command(Beat, worker_id=worker, state=state, dead_after_ms=3_000, keep_ms=9_000),
            workers,
            st.sampled_from(("", "quiet", "terminate")),
        ),
        st.builds(lambda worker: command(Direct, worker_id=worker, directive="running"), workers),
        st.builds(lambda worker: command(RemoveWorker, worker_id=worker), workers),
        st.builds(
            lambda given: command(LimitOverride, key="shared", override=given),
            st.sampled_from((None, Override(concurrency=0), Override(concurrency=3, until=START + 9 * SECOND))),
        ),
        st.builds(tick, st.sampled_from(("run", "reap"))),
        st.builds(tick, st.sampled_from(("run", "reap"))),
        _cron_commands(homes),
        _cron_commands(homes),
    )


def _said_commands(ids: st.SearchStrategy[str]) -> st.SearchStrategy[Command]:
    """What a worker says of its job while it runs."""
    states = st.sampled_from((Raw(b'{"row":1}'), Raw(b"[1e400]")))
    return st.one_of(
        st.builds(
            lambda one, part: command(Report, job_id=one, fraction=part, data=Raw(b'{"of":9}')),
            ids,
            st.sampled_from((None, 0.25, 1.0)),
        ),
        st.builds(lambda one, kept: command(SaveCheckpoint, job_id=one, state=kept, worker_id="w1"), ids, states),
        st.builds(lambda one, kept: command(SaveCheckpoint, job_id=one, state=kept), ids, states),
        st.builds(lambda one: command(DropCheckpoint, job_id=one), ids),
    )


def _cron_commands(homes: int) -> st.SearchStrategy[Command]:
    names = st.sampled_from(CRONS)
    versions = st.integers(1, 3)
    instants = st.integers(0, 20).map(lambda seconds: START + seconds * SECOND)

    def put(name: str, number: int, next_at: int, changes: int) -> Command:
        return command(
            PutCron,
            name=name,
            expression=f"@every {1 + number % 2}s",
            timezone="UTC",
            overlap=("skip", "allow", "cancel_previous", "enqueue")[number % 4],
            job=job(QUEUES[number % 3], homes=homes, id="", client_id=False, retention=SHORT),
            template=Raw(b'{"type":"email.send","args":[]}'),
            anchor=START,
            next_at=next_at,
            changes=changes,
            enabled=(None, True, False)[number % 3],
        )

    def fire(name: str, due: int, version: int) -> Command:
        return command(Fire, name=name, tick=due, next_at=due + SECOND, version=version)

    def switch(name: str, enabled: bool, next_at: int, version: int) -> Command:
        return command(SwitchCron, name=name, enabled=enabled, next_at=next_at, version=version)

    return st.one_of(
        st.builds(put, names, st.integers(0, 11), instants, st.sampled_from((0, 0, 0, 1))),
        st.builds(fire, names, instants, versions),
        st.builds(fire, names, instants, versions),
        st.builds(fire, names, instants, versions),
        st.builds(switch, names, st.booleans(), instants, versions),
        st.builds(lambda name: command(TriggerCron, name=name), names),
        st.builds(lambda name: command(DeleteCron, name=name), names),
    )


@lru_cache(maxsize=8)
def _steps(homes: int) -> st.SearchStrategy[Step]:
    pauses = st.sampled_from([0, 0, 0, 1, 500, 2_000, 4_000, 7_000, MINUTE, -3_000])
    numbers = st.integers(0, homes - 1)
    reset = st.tuples(st.just(0), st.none(), st.builds(lambda: command(Reset)))

    def place(pause: int, home: int, asked: Command) -> Step:
        return pause, home if isinstance(asked, Tick) else None, asked

    usual = st.builds(place, pauses, numbers, _commands(homes))
    flows = st.builds(place, pauses, numbers, _workflow_commands(homes))
    # Off more often than on: while it is on nothing starts.
    switches = st.builds(lambda on: command(Maintain, enabled=on), st.sampled_from((True, False, False)))
    maintain = st.tuples(pauses, st.none(), switches)
    return st.one_of(*[usual] * 20, *[flows] * 5, reset, maintain)


def histories(homes: int, *, size: int = 50) -> st.SearchStrategy[list[Step]]:
    """Commands with pauses between them; ticks go to any home, the clock may step back."""
    return st.lists(_steps(homes), min_size=20, max_size=size).map(_server_ids_once)


def _server_ids_once(history: list[Step]) -> list[Step]:
    """The server never makes an id twice, and the fold relies on it."""
    used: set[str] = set()
    kept: list[Step] = []
    for pause, home, asked in history:
        if isinstance(asked, StartWorkflow):
            if asked.id not in used:
                used.add(asked.id)
                kept.append((pause, home, asked))
        elif isinstance(asked, Enqueue):
            fresh = [new for new in asked.jobs if new.client_id or new.id not in used]
            # A client may repeat its id within one command, the server does not.
            fresh = [
                new for n, new in enumerate(fresh) if new.client_id or new.id not in {o.id for o in fresh[:n]}
            ]
            used.update(new.id for new in fresh)
            if fresh:
                kept.append((pause, home, structs.replace(asked, jobs=tuple(fresh))))
        else:
            kept.append((pause, home, asked))
    return kept


def play(fold: Fold, step: Step) -> None:
    """One step; a reset is for all homes."""
    pause, home, asked = step
    fold.now += pause
    if isinstance(asked, Reset):
        for each in range(fold.homes):
            fold.do(asked, home=each)
    else:
        fold.do(asked, home=home)
