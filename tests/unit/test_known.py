"""What an owner keeps in mind between rounds: what is asked for again, and not more than a bound."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from msgspec import Raw

from ojs_stream.core import known as known_module
from ojs_stream.core.commands import Ack, Command
from ojs_stream.core.known import Known
from ojs_stream.core.records import HomeState, JobRecord
from ojs_stream.store.commit import commit_of
from ojs_stream.store.memory import MemoryStore
from ojs_stream.store.rounds import HomeRound, fold_rounds
from tests.support.builders import START, claim, command, enqueue, entry, genesis, job, nack, pack, run

SMALL_BYTES_MAX = 100_000


class Home:
    """An owner's rounds: fold on what is known, commit, learn."""

    def __init__(self) -> None:
        self.known = Known()
        self.store = MemoryStore()
        self._state = HomeState(home=0)
        self._applied: int | None = None
        self.round(genesis())

    def round(self, *commands: Command) -> HomeRound:
        offset = 0 if self._applied is None else self._applied + 1
        read = entry(offset, START + offset, pack(commands))
        done = HomeRound(self._state, [read], homes=1, expected=self._applied, known=self.known)
        run(fold_rounds(self.store, [done]))
        commit = commit_of(done.world, namespace=self.store.namespace, expected=self._applied, applied=offset)
        assert run(self.store.commit([commit])) == [None]
        self._state, self._applied = done.world.state(), offset
        self.known.learn(done.world)
        return done

    def claimed(self, queue: str) -> str:
        """A new job that is active."""
        new = job(queue)
        self.round(enqueue(new), claim(queue))
        return new.id


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setattr(known_module, "BYTES_MAX", SMALL_BYTES_MAX)
    return Home()


def test_many_queues_are_known_at_once() -> None:
    home = Home()
    names = [f"q{n}" for n in range(600)]
    for name in names:
        home.claimed(name)
    assert len(home.known.windows) == 600
    assert all(("queue", name) in home.known.records for name in names)


def test_a_round_touches_the_windows_of_its_own_queues_only() -> None:
    home = Home()
    for name in ("a", "b", "c"):
        home.claimed(name)
    done = home.round(enqueue(job("b")))
    assert [index for index in done.world.indexes if index[2:] == ("available",)] == [("state", "b", "available")]


def test_what_was_not_touched_for_longest_is_forgotten_first(small: Home) -> None:
    small.round(enqueue(job("busy")))
    jobs = []
    for _ in range(100):
        jobs.append(small.claimed("other"))
        small.round(enqueue(job("busy")))
    known = small.known
    assert known.bytes <= SMALL_BYTES_MAX
    assert ("queue", "busy") in known.records
    assert ("job", jobs[-1]) in known.records
    assert ("job", jobs[0]) not in known.records


def test_large_jobs_count_with_their_bytes(small: Home) -> None:
    for _ in range(20):
        large = job("a", args=Raw(b'["' + b"x" * 12_000 + b'"]'))
        small.round(enqueue(large), claim("a"))
    assert sum(isinstance(record, JobRecord) for record in small.known.records.values()) <= 8


def test_what_is_done_leaves_no_trace() -> None:
    home = Home()
    home.claimed("a")
    before = home.known.bytes
    for _ in range(5):
        done = home.claimed("a")
        assert home.known.bytes > before
        home.round(command(Ack, job_id=done))
        assert ("job", done) not in home.known.records
    assert home.known.bytes == before


def test_an_empty_window_that_knows_nothing_is_not_kept() -> None:
    home = Home()
    # The fold places the job in an index that nobody has read.
    home.round(enqueue(job("a")))
    assert home.known.windows == {}


def test_a_kept_job_does_not_keep_the_log_record_that_brought_it() -> None:
    home = Home()
    new = job("a", args=Raw(b"[1]"), meta=Raw(b'{"k":2}'), extra=Raw(b'{"x":3}'))
    home.round(enqueue(new, *[job("b") for _ in range(50)]), claim("a"))
    home.round(nack(new.id, requeue=True, details=Raw(b'{"why":4}'), backtrace=Raw(b'["at"]')))
    home.round(claim("a"))
    record = home.known.records["job", new.id]
    assert isinstance(record, JobRecord)
    (error,) = record.job.errors
    raws = (record.job.args, record.job.meta, record.extra, error.details, error.backtrace)
    # A copy of what owns its bytes is itself.
    assert all(isinstance(raw, Raw) and raw.copy() is raw for raw in raws)
    assert [msgspec.json.decode(raw) for raw in raws if isinstance(raw, Raw)] == [
        [1],
        {"k": 2},
        {"x": 3},
        {"why": 4},
        ["at"],
    ]
