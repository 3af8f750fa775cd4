"""What was exported from a log with some homes is the same in a log with another number of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec import Raw, structs

from ojs_stream.core.commands import (
    Ack,
    CancelWorkflow,
    Entry,
    ImportEnd,
    ImportPart,
    Maintain,
    NewJob,
    PutCron,
    RetryDead,
)
from ojs_stream.core.homes import home_in_id, home_of
from ojs_stream.core.names import MAINTENANCE
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import JobRecord, Key, QueueRecord, Record, decode_record, key_of_name, stored_json
from ojs_stream.core.rehoming import Move, is_own
from ojs_stream.core.validation import Rules, parse_job
from ojs_stream.store.base import is_record
from ojs_stream.transfer.archive import (
    FORMAT,
    KINDS,
    VERSION,
    ArchiveError,
    ArchiveWriter,
    Header,
    archive_lines,
    read_archive,
)
from tests.support.builders import (
    KEEP,
    START,
    Fold,
    client_id,
    command,
    enqueue,
    job,
    jobs_of,
    nack,
    policy,
    queue_at,
    server_id,
    tick,
)
from tests.support.commands import QUEUES, Step, histories, play
from tests.support.flows import Play, leaf
from tests.support.recount import jobs, recount_all

DIGEST = "d1"
PART = 7


def exported(fold: Fold) -> list[tuple[Key, Record]]:
    """All records in the order of an export."""
    found: list[tuple[str, int, Key, bytes]] = []
    for home, dump in enumerate(fold.dumps()):
        for name in dump:
            key = key_of_name(name)
            if key[0] in KINDS and is_own(key, home, fold.homes):
                found.append((name, home, key, dump[name]))
    found.sort(key=lambda each: (KINDS.index(each[2][0]), each[1], each[0]))
    return [(key, decode_record(key, data)) for _, _, key, data in found]


def moved(fold: Fold, homes: int) -> Fold:
    """A new log with ``homes`` homes that has what ``fold`` has."""
    target, move, records = Fold(homes), Move(fold.homes, homes), exported(fold)
    target.now = fold.now
    move.queues = [record.name for _, record in records if isinstance(record, QueueRecord)]
    for _, record in records:
        if isinstance(record, JobRecord):
            move.seats[record.job.id] = move.seat_of(record)
    placed: list[list[Entry]] = [[] for _ in range(homes)]
    for key, record in records:
        for home, its_key, its_record in move.records(key, record):
            placed[home].append(Entry(its_key, Raw(stored_json(its_record))))
    parts = [[entries[i : i + PART] for i in range(0, len(entries), PART)] for entries in placed]
    sequence = max(json.loads(dump["home"])["sequence"] for dump in fold.dumps())
    for home in range(homes):
        for number, part in enumerate(parts[home]):
            asked = command(ImportPart, id=DIGEST, part=number, entries=tuple(part), sequence=sequence)
            assert target.do(asked, home=home) == Outcome()
    for home in range(homes):
        assert target.do(command(ImportEnd, id=DIGEST, parts=len(parts[home])), home=home) == Outcome()
    return target


def seen(fold: Fold) -> dict[str, Any]:
    """What a client sees of jobs and queues, wherever they are."""
    found: dict[str, Any] = {}
    for dump in fold.dumps():
        found.update({job_id: record["job"] for job_id, record in jobs(dump).items()})
        for name in dump:
            if name.startswith(("queue:", "minute:", "day:", "cron:", "workflow:", "limit:", "checkpoint:")):
                found[name] = decode_record(key_of_name(name), dump[name])
            if name.startswith(("held:", "state:", "waiting:", "granted:")):
                found[name] = sorted(dump[name].items(), key=lambda each: (each[1], each[0]))
    return found


@settings(max_examples=40, deadline=None)
@given(histories(2), st.sampled_from((1, 3, 5)))
def test_everything_is_the_same_in_a_log_with_another_number_of_homes(history: list[Step], homes: int) -> None:
    fold = Fold(2)
    for step in history:
        play(fold, step)
    # It is of the servers, not of the jobs: a new cluster begins without.
    fold.do(command(Maintain, enabled=False), home=home_of(MAINTENANCE, 2))
    assume(not any(name.startswith("stage:") for dump in fold.dumps() for name in dump))
    other = moved(fold, homes)
    assert recount_all(other.dumps()) == []
    assert seen(other) == seen(fold)
    assert [other.take(queue, count=50) for queue in QUEUES] == [fold.take(queue, count=50) for queue in QUEUES]
    assert recount_all(other.dumps()) == []
    back = moved(other, 2)
    assert seen(back) == seen(other)
    other.ticks(after=60_000)
    assert recount_all(other.dumps()) == []


# -- what names a home ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("homes", [1, 2, 3, 8])
def test_old_ids_lead_to_their_jobs(homes: int) -> None:
    fold = Fold(4)
    ids = [fold.put(queue_at(home, 4)) for home in range(4)]
    ids += [fold.put(queue_at(home, 4), id=client_id(4), client_id=True) for home in range(4)]
    other = moved(fold, homes)
    for job_id in ids:
        bits, home = home_in_id(job_id), other.where(job_id)
        notes = [other.dump(bits).get(f"job:{job_id}")] if bits < homes else []
        notes.append(other.dump(home_of(job_id, homes)).get(f"id:{job_id}"))
        held = [json.loads(note) for note in notes if note]
        assert held, "by its bits or by hash(id)"
        assert {note.get("moved", note.get("home", home)) for note in held} == {home}
    for job_id in ids[4:]:
        again = other.do(enqueue(job(queue_at(0, homes), homes=homes, id=job_id, client_id=True)))
        assert again.code == "duplicate"


UNIQUES: list[dict[str, Any]] = [
    {},
    {"key": "my own"},
    {"keys": ["type", "args"]},
    {"keys": ["type", "queue"]},
    {"keys": ["type", "queue", "args"]},
    {"keys": ["queue"], "args_keys": ["b"], "meta_keys": ["m"]},
]


def _unique_job(homes: int, given: dict[str, Any], number: int = 0) -> NewJob:
    body = {"type": "a.b", "args": [{"a": number, "b": number}], "meta": {"m": number}, "queue": "mail"}
    text = json.dumps({**body, "options": {"unique": given, "queue": "mail"}}).encode()
    return parse_job(text, Rules(retention=KEEP, homes=homes), lambda queue: server_id(home_of(queue, homes)))


def _key_of(made: NewJob) -> str:
    assert made.unique is not None
    return made.unique.key


@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize("homes", [1, 3, 8])
@pytest.mark.parametrize("given", UNIQUES, ids=json.dumps)
def test_locks_still_refuse(before: int, homes: int, given: dict[str, Any]) -> None:
    for number in range(6):
        fold = Fold(before)
        held = str(jobs_of(fold.do(enqueue(_unique_job(before, given, number))))[0]["id"])
        other = moved(fold, homes)
        refused = other.do(enqueue(_unique_job(homes, given, number)))
        assert (refused.code, refused.details["existing_job_id"]) == ("duplicate", held)
        assert other.take("mail") == [held]
        other.do(command(Ack, job_id=held), home=other.where(held))
        assert not other.do(enqueue(_unique_job(homes, given, number))).refused


@pytest.mark.parametrize("homes", [1, 3, 8])
def test_a_lock_stays_with_the_queue_that_its_fingerprint_names(homes: int) -> None:
    fold, given = Fold(4), {"keys": ["queue", "args"], "states": ["available", "discarded"]}
    number = next(n for n in range(99) if home_of(_key_of(_unique_job(4, given, n)), 4) != home_of("mail", 4))
    made = _unique_job(4, given, number)
    fold.do(enqueue(structs.replace(made, retry=policy(max_attempts=1, on_exhaustion="dead_letter"))))
    fold.do(nack(*fold.take("mail")))
    fold.put("else")
    fold.do(command(RetryDead, job_id=made.id, queue="else"))
    other = moved(fold, homes)
    assert other.record(made.id).job.queue == "else"
    assert other.do(enqueue(_unique_job(homes, given, number))).code == "duplicate"


@pytest.mark.parametrize("homes", [1, 3, 8])
def test_workflows_go_on(homes: int) -> None:
    one, two = leaf("one", queue_at(3, 4)), leaf("two", queue_at(1, 4))
    fold = Fold(4)
    first = Play(fold, {"type": "chain", "steps": [one, two]})
    ended = Play(fold, {"type": "group", "jobs": [one, two]})
    other = moved(fold, homes)
    first.fold = ended.fold = other
    (job_id,) = other.take(one["options"]["queue"])
    other.do(command(Ack, job_id=job_id, result=Raw(b"7")), home=other.where(job_id))
    taken = other.take(two["options"]["queue"], count=5)
    assert len(taken) == 2, "the second step of the chain, and the one of the group"
    home = home_in_id(ended.id) % homes
    said = other.do(command(CancelWorkflow, id=ended.id), home=home)
    assert len(said.data["cancelled"]) == 2
    assert sorted(other.state(job_id) for job_id in taken) == ["active", "cancelled"]
    assert recount_all(other.dumps()) == []


# -- an import that is not over -------------------------------------------------------------------------------


def _part(number: int = 0, digest: str = DIGEST) -> ImportPart:
    entry = Entry(("queue", "mail"), Raw(b'{"name":"mail","created_at":"now"}'))
    asked: ImportPart = command(ImportPart, id=digest, part=number, entries=(entry,) if not number else ())
    return asked


def test_nothing_else_happens_before_the_end() -> None:
    fold = Fold()
    fold.do(_part())
    assert fold.do(enqueue(job("mail"))).code == fold.do(tick("run")).code == "backend_error"
    assert fold.do(command(ImportEnd, id=DIGEST, parts=2)).code == "conflict"
    assert fold.do(command(ImportEnd, id=DIGEST, parts=1)) == Outcome()
    assert not fold.do(enqueue(job("mail"))).refused


def test_parts_come_in_order_and_once() -> None:
    fold = Fold()
    assert fold.do(_part(1)).code == "conflict"
    assert [fold.do(_part(number)) for number in (0, 0, 1)] == [
        Outcome(),
        Outcome(data={"repeated": True}),
        Outcome(),
    ]
    assert fold.do(_part(2, "another")).code == "conflict"
    fold.do(command(ImportEnd, id=DIGEST, parts=2))
    assert fold.do(_part(2)).code == "conflict"


def test_a_home_that_has_anything_is_not_filled() -> None:
    fold = Fold()
    entry = {"name": "hourly", "expression": "@every 1s", "timezone": "UTC", "overlap": "skip"}
    later = {"job": job("mail", id=""), "template": Raw(b"{}"), "anchor": START, "next_at": START + 1}
    fold.do(command(PutCron, **entry, **later))
    before = fold.dump()
    assert fold.do(_part()).code == "conflict"
    assert fold.do_all([enqueue(job("mail")), _part()])[1].code == "conflict"
    assert {name for name in fold.dump() if is_record(name)} > {name for name in before if is_record(name)}


# -- the file -------------------------------------------------------------------------------------------------


def _written(path: Path, *, end: bool = True, version: int = VERSION) -> Path:
    header = Header(
        format=FORMAT, version=version, namespace="n", homes=2, applied=[1, 2], log_ids=["a", "b"], sequence=9
    )
    with ArchiveWriter(path, header) as writer:
        writer.add(("queue", "a:b"), b'{"n":18446744073709551616}')
        writer.add(("minute", "a:b", "7"), b"{}")
        if end:
            writer.end()
    return path


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = _written(tmp_path / "x")
    header, footer = read_archive(path)
    assert (header.homes, header.sequence, footer.records) == (2, 9, 2)
    lines = [(line.key, bytes(line.record)) for line in archive_lines(path)]
    assert lines == [(("queue", "a:b"), b'{"n":18446744073709551616}'), (("minute", "a:b", "7"), b"{}")]
    assert [key_of_name(":".join(key)) for key, _ in lines] == [key for key, _ in lines]


def test_a_file_that_cannot_be_trusted_is_refused(tmp_path: Path) -> None:
    whole = _written(tmp_path / "x").read_bytes()
    cases = {
        "ends too early": _written(tmp_path / "a", end=False).read_bytes(),
        "of version 2": _written(tmp_path / "b", version=2).read_bytes(),
        "no export": b"hello",
        "is damaged": whole[:-9],
        "damaged": whole[:40] + bytes([whole[40] ^ 1]) + whole[41:],
    }
    for what, data in cases.items():
        (tmp_path / "y").write_bytes(data)
        with pytest.raises(ArchiveError, match=what):
            read_archive(tmp_path / "y")
