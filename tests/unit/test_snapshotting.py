"""Snapshot n+1 is the fold of snapshot n and the log: equal to the home, with all that is still to be sent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ojs_stream.agents.restore import LogSpan, Restore
from ojs_stream.core.records import STATE_VERSION
from ojs_stream.errors import LogRefusedError, NewerVersionError, UnavailableError
from ojs_stream.log.producer import Record
from ojs_stream.log.snapshots import Manifest, Origin, newest, publish
from ojs_stream.log.topics import Topics
from ojs_stream.replay.snapshotting import Snapshots, Stamps
from ojs_stream.store.commit import Acked
from ojs_stream.store.memory import MemoryStore
from ojs_stream.store.snapshot import chunks_of, parts_of
from ojs_stream.store.unsent import Unsent
from tests.support.builders import Fold, genesis, nack, queue_at
from tests.support.memory_topics import MemoryTopics, run

HOMES = 2
LOG_ID = "00ff00ff00ff00ff"
NAMESPACE = "t"
TOPICS = Topics(NAMESPACE)
QUEUES = [queue_at(home, HOMES) for home in range(HOMES)]


class Stack:
    """Live homes, their log in a topic, and who makes snapshots of them."""

    def __init__(self) -> None:
        self.fold = Fold(HOMES, deliver=False)
        self.topics = MemoryTopics()
        self.folded: list[int] = []
        self._written = [0] * HOMES
        self._tokens = 0

    def work(self, count: int = 30) -> None:
        for number in range(count):
            self.fold.put(QUEUES[number % HOMES], priority=number % 3)
        for job_id in self.fold.take(QUEUES[0], count=5)[:3]:
            self.fold.do(nack(job_id), home=0)

    def write_log(self) -> None:
        """Everything that was folded gets into the topic of commands."""
        for home in range(HOMES):
            new = self.fold.logs[home][self._written[home] :]
            self._written[home] += len(new)
            for at, value in new:
                self.topics.now = at
                run(self.topics.send_many(TOPICS.commands, home, [Record(b"k", value)]))

    def unsent(self, home: int = 0, **fields: Any) -> Unsent:
        applied, state = run(self.fold.store.position(home))
        assert applied is not None
        assert state is not None
        names = frozenset(run(self.fold.store.outbox(home)))
        given = {"applied": applied, "log_id": state.log_id, "acked": Acked(state.events), "outbox": names}
        return Unsent(**{**given, **fields})

    @property
    def maker(self) -> Snapshots:
        return Snapshots(
            reader=self.topics,
            sender=self.topics,
            topics=TOPICS,
            namespace=NAMESPACE,
            homes=HOMES,
            tell=lambda fold: self.folded.append(fold.records),
        )

    def make(self, home: int = 0, **fields: Any) -> Manifest | None:
        self.write_log()
        self._tokens += 1
        self.folded = []
        stamps = Stamps(token=f"t{self._tokens}", now_ms=self.topics.now, code="1")
        return run(self.maker.make(home, self.unsent(home, **fields), stamps))

    def loaded(self, *, begin: int = 0) -> MemoryStore:
        """What somebody has who begins with the newest snapshot."""
        store = MemoryStore(NAMESPACE)
        _, end = run(self.topics.bounds(TOPICS.commands, 0))
        span = LogSpan(topic=TOPICS.commands, home=0, homes=HOMES, begin=begin, end=end, log_id="")
        restore = Restore(store=store, namespace=NAMESPACE, topic=TOPICS.snapshots)
        assert run(restore.home(self.topics, span, expected=None, progress=lambda *_: None))
        return store

    def offsets(self) -> list[int]:
        return [found.manifest.offset for found in run(newest(self.topics, TOPICS.snapshots, 0, limit=9))]


@pytest.fixture
def stack() -> Stack:
    made = Stack()
    made.work()
    return made


def test_a_snapshot_is_the_home_and_the_next_one_folds_only_what_is_new(stack: Stack) -> None:
    first = stack.make()
    assert first is not None
    assert (first.log_id, first.homes, first.code) == (LOG_ID, HOMES, "1")
    assert run(stack.loaded().dump(0)) == stack.fold.dump(0)
    all_records = len(stack.fold.logs[0])
    assert stack.folded[-1] == first.offset + 1 == all_records
    stack.work(6)
    second = stack.make()
    assert second is not None
    assert stack.folded[-1] == second.offset - first.offset == len(stack.fold.logs[0]) - all_records
    assert run(stack.loaded().dump(0)) == stack.fold.dump(0)


def test_a_snapshot_is_of_what_redis_has_applied_however_long_the_log_is(stack: Stack) -> None:
    before, unsent = stack.fold.dump(0), stack.unsent()
    stack.work()
    stack.write_log()
    run(stack.maker.make(0, unsent, Stamps(token="t", now_ms=1, code="1")))
    assert run(stack.loaded().dump(0)) == before


def test_it_carries_what_is_not_sent_yet_and_nothing_else(stack: Stack) -> None:
    everything = run(stack.fold.store.outbox(0))
    assert {name[0] for name in everything} == {"e"}, "retries of the failed jobs"
    stack.make(outbox=frozenset(everything), acked=Acked(7))
    loaded = stack.loaded()
    assert run(loaded.outbox(0)) == everything
    assert run(loaded.acked(0)) == Acked(7)
    # Some of it is sent meanwhile, and more comes.
    stack.work(8)
    now = run(stack.fold.store.outbox(0))
    left = frozenset([*list(everything)[1:], *(now.keys() - everything.keys())])
    stack.make(outbox=left)
    assert run(stack.loaded().outbox(0)) == {name: now[name] for name in left}
    stack.work(8)
    stack.make(outbox=frozenset())
    assert run(stack.loaded().outbox(0)) == {}


def test_a_home_without_news_gets_no_second_snapshot(stack: Stack) -> None:
    assert stack.make() is not None
    assert stack.make() is None
    assert len(stack.offsets()) == 1


def test_two_are_kept_and_a_third_until_the_next_one(stack: Stack) -> None:
    made = []
    for _ in range(5):
        stack.work(4)
        manifest = stack.make()
        assert manifest is not None
        made.append(manifest.offset)
    assert stack.offsets() == made[:-4:-1]
    stack.topics.compact(TOPICS.snapshots, 0)
    assert stack.offsets() == made[:-4:-1]
    assert run(stack.loaded().dump(0)) == stack.fold.dump(0)


def test_the_log_is_superfluous_before_the_older_of_two_whole_snapshots(stack: Stack) -> None:
    def superfluous() -> int | None:
        return run(stack.maker.superfluous_before(0, LOG_ID))

    first = stack.make()
    assert first is not None
    assert superfluous() is None
    stack.work(4)
    second = stack.make()
    assert second is not None
    assert superfluous() == first.offset + 1
    assert run(stack.maker.superfluous_before(0, "another")) is None
    stack.topics.delete_before(TOPICS.commands, 0, first.offset + 1)
    stack.work(4)
    third = stack.make()
    assert third is not None
    assert run(stack.loaded(begin=first.offset + 1).dump(0)) == stack.fold.dump(0)
    assert superfluous() == second.offset + 1
    stack.topics.replace(TOPICS.snapshots, 0, second.first, b"rotten")
    assert superfluous() is None, "one of the two is damaged: the log is needed"


def test_a_damaged_snapshot_is_no_base_the_one_before_it_is(stack: Stack) -> None:
    first = stack.make()
    stack.work(4)
    second = stack.make()
    assert first is not None
    assert second is not None
    stack.topics.replace(TOPICS.snapshots, 0, second.first, b"rotten")
    stack.work(4)
    third = stack.make()
    assert third is not None
    assert stack.folded[-1] == third.offset - first.offset
    assert run(stack.loaded().dump(0)) == stack.fold.dump(0)


def test_without_a_base_a_log_without_its_beginning_is_refused(stack: Stack) -> None:
    stack.write_log()
    stack.topics.delete_before(TOPICS.commands, 0, 3)
    with pytest.raises(
        LogRefusedError, match=r"no longer has offsets 0 to 2, .* no whole snapshot reaches offset 2"
    ):
        stack.make()


def test_another_log_is_refused(stack: Stack) -> None:
    with pytest.raises(LogRefusedError, match=f"is log {LOG_ID}, Redis has records of log another"):
        stack.make(log_id="another")
    with pytest.raises(LogRefusedError, match="Redis has applied offset 9999"):
        stack.make(applied=9999)
    assert stack.offsets() == []


def test_snapshots_of_another_log_are_not_used(stack: Stack) -> None:
    stack.make()
    fresh = Fold(HOMES, deliver=False)
    fresh.append(0, [genesis("b" * 16)])
    for home in range(HOMES):
        fresh.logs[home] = [(at, value.replace(LOG_ID.encode(), b"b" * 16)) for at, value in fresh.logs[home]]
    other = Stack()
    other.topics = stack.topics
    stack.topics.partition(TOPICS.commands, 0).clear()
    for at, value in fresh.logs[0] * 60:
        stack.topics.now = at
        run(stack.topics.send_many(TOPICS.commands, 0, [Record(b"k", value)]))
    made = run(
        other.maker.make(0, other.unsent(applied=100, log_id="b" * 16), Stamps(token="t", now_ms=1, code="1"))
    )
    assert made is not None
    assert other.folded[-1] == 101, "from its first record"


def test_a_home_that_redis_does_not_have_is_not_made(stack: Stack) -> None:
    with pytest.raises(UnavailableError, match="Redis has no state of home 0"):
        run(stack.maker.make(0, None, Stamps(token="t", now_ms=1, code="1")))


def test_a_log_without_its_beginning_must_be_that_of_its_newest_snapshot(stack: Stack) -> None:
    restore = Restore(store=stack.fold.store, namespace=NAMESPACE, topic=TOPICS.snapshots)

    def check(log_id: str) -> None:
        span = LogSpan(topic=TOPICS.commands, home=0, homes=HOMES, begin=5, end=20, log_id=log_id)
        run(restore.check_identity(stack.topics, span))

    check("another")  # nobody knows
    stack.make()
    check(LOG_ID)
    with pytest.raises(LogRefusedError, match=r"is log 00ff00ff00ff00ff by its newest snapshot"):
        check("another")


def test_records_of_a_newer_release_are_not_folded_by_this_one(stack: Stack) -> None:
    stack.make()
    store = stack.loaded()
    state = msgspec.json.decode(store.data["{t:0}:home"])
    parts = {**run(store.dump(0)), "home": msgspec.json.encode({**state, "v": STATE_VERSION + 1})}
    stack.work(4)
    stack.write_log()
    origin = Origin(
        id="9-x", home=0, homes=HOMES, log_id=LOG_ID, offset=int(parts["applied"]), keys=1, code="9", made_ms=1
    )
    _, first = run(stack.topics.bounds(TOPICS.snapshots, 0))
    run(publish(stack.topics, TOPICS.snapshots, origin, first=first, content=chunks_of(parts_of(parts))))
    with pytest.raises(
        NewerVersionError, match=f"in version {STATE_VERSION + 1}, this release reads 1 to {STATE_VERSION}"
    ):
        stack.make()
