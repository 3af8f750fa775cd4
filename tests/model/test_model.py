"""The same commands on Redis and in memory: equal outcomes, equal worlds, after every round."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from ojs_stream.agents.owner import DUE_INDEXES
from ojs_stream.core.commands import Ack, Reset
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import HomeState
from ojs_stream.errors import FencedError, UnavailableError
from ojs_stream.store import redis as redis_module
from ojs_stream.store.base import Store
from ojs_stream.store.commit import Acked, Commit, Trim, commit_of
from ojs_stream.store.memory import MemoryStore
from ojs_stream.store.redis import RedisStore
from tests.support.builders import Fold, Record, claim, command, enqueue, entry, fold_round, job, pack
from tests.support.commands import Step, histories, play
from tests.support.recount import recount
from tests.support.servers import RedisHandle

HOMES = 2
EXAMPLES = 40


@asynccontextmanager
async def redis_store(server: RedisHandle, namespace: str) -> AsyncIterator[tuple[Redis, RedisStore]]:
    """A store in a database that is empty before and after."""
    redis = Redis.from_url(server.url)
    await redis.flushdb()
    try:
        yield redis, RedisStore(redis, namespace)
    finally:
        await redis.flushdb()
        await redis.aclose()


class Twin:
    """One home of one log, folded into two stores round by round."""

    def __init__(self, redis: RedisStore, namespace: str, home: int) -> None:
        self.home = home
        self.stores: tuple[Store, Store] = (MemoryStore(namespace), redis)
        self.applied: int | None = None
        self.state = HomeState(home=home)

    async def round(self, records: list[Record]) -> list[tuple[str, Outcome]]:
        """Fold records into both stores and compare everything."""
        start = 0 if self.applied is None else self.applied + 1
        entries = [entry(start + i, now, value) for i, (now, value) in enumerate(records)]
        rounds = []
        for store in self.stores:
            done, commit = await fold_round(store, self.state, entries, homes=HOMES, expected=self.applied)
            assert await store.commit([commit]) == [None]
            rounds.append(done.world)
        ours, theirs = rounds
        assert (ours.replies, ours.events) == (theirs.replies, theirs.events)
        assert (ours.effects, ours.messages) == (theirs.effects, theirs.messages)
        self.applied, self.state = start + len(records) - 1, ours.state()
        await self.compare()
        return ours.replies

    async def compare(self) -> None:
        """Dumps, position, outbox, ring, deadlines; and the recount of what is stored."""
        memory, redis = self.stores
        dump = await redis.dump(self.home)
        assert dump == await memory.dump(self.home)
        assert recount(dump) == []
        assert await redis.position(self.home) == await memory.position(self.home) == (self.applied, self.state)
        assert await redis.outbox(self.home) == await memory.outbox(self.home)
        last = self.state.events
        assert await redis.ring(self.home, last - 5, last) == await memory.ring(self.home, last - 5, last)
        for index in DUE_INDEXES:
            assert await redis.earliest(self.home, index) == await memory.earliest(self.home, index)


@pytest.mark.parametrize("chunk", range(2))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(history=histories(HOMES), sizes=st.lists(st.integers(1, 25), min_size=1, max_size=9))
def test_redis_and_memory_hold_the_same(
    redis_server: RedisHandle, namespace: str, chunk: int, history: list[Step], sizes: list[int]
) -> None:
    fold = Fold(HOMES)
    for step in history:
        play(fold, step)

    async def check() -> None:
        async with redis_store(redis_server, namespace) as (_, store):
            for home in range(HOMES):
                twin, log, at = Twin(store, namespace, home), fold.logs[home], 0
                for size in sizes * len(log):
                    if at < len(log):
                        await twin.round(log[at : at + size])
                        at += size

    asyncio.run(check())


# -- the commit ---------------------------------------------------------------------------------------------

WithStore = Callable[[Redis, RedisStore], Awaitable[None]]


@pytest.fixture
async def store(redis_server: RedisHandle, namespace: str) -> AsyncIterator[tuple[Redis, RedisStore]]:
    async with redis_store(redis_server, namespace) as pair:
        yield pair


async def _commits(store: Store, *values: bytes) -> list[Commit]:
    """A commit a record; each is applied, so that the next stands on it."""
    state, expected, made = HomeState(home=0), None, []
    for offset, value in enumerate(values):
        done, commit = await fold_round(store, state, [entry(offset, 1_000, value)], homes=1, expected=expected)
        assert await store.commit([commit]) == [None]
        state, expected = done.world.state(), offset
        made.append(commit)
    return made


async def test_a_commit_with_a_wrong_expectation_changes_nothing(store: tuple[Redis, RedisStore]) -> None:
    first, second = await _commits(store[1], pack([enqueue(job())]), pack([enqueue(job()), claim()]))
    before = await store[1].dump(0)
    for expected in (None, 0, 2, 99):
        second.expected = expected
        (error,) = await store[1].commit([second])
        assert isinstance(error, FencedError)
        assert await store[1].dump(0) == before
    first.expected = 1
    assert await store[1].commit([first]) == [None]


async def test_a_commit_of_one_home_does_not_suffer_from_the_fence_of_another(
    store: tuple[Redis, RedisStore],
) -> None:
    (good,) = await _commits(store[1], pack([enqueue(job())]))
    await store[1].clear(0, 0)
    bad = Commit(home=1, expected=7, strings={f"{{{store[1].namespace}:1}}:applied": b"8"})
    errors = await store[1].commit([bad, good])
    assert [type(error) for error in errors] == [FencedError, type(None)]
    assert await store[1].applied([0, 1]) == [0, None]


async def test_a_commit_repeated_after_an_unknown_outcome_is_the_same_as_once(
    store: tuple[Redis, RedisStore],
) -> None:
    _, second = await _commits(store[1], pack([enqueue(job(), job())]), pack([claim(count=2), claim()]))
    before = await store[1].dump(0)
    await store[0].set(f"{{{store[1].namespace}:0}}:applied", b"0")
    assert await store[1].commit([second]) == [None]
    assert await store[1].dump(0) == before


async def test_a_flushed_script_cache_is_filled_again(store: tuple[Redis, RedisStore]) -> None:
    (first,) = await _commits(store[1], pack([enqueue(job())]))
    await store[0].script_flush()
    first.expected = 0
    assert await store[1].commit([first, first]) == [None, None]


async def test_a_home_is_empty_after_it_was_cleared_and_others_are_not(store: tuple[Redis, RedisStore]) -> None:
    await _commits(store[1], pack([enqueue(job())]))
    await store[0].set(f"{{{store[1].namespace}:10}}:applied", b"3")
    await store[1].clear(0, 0)
    assert await store[1].dump(0) == {}
    assert await store[1].position(0) == (None, None)
    assert await store[1].applied([0, 10]) == [None, 3]


async def test_a_home_that_another_owner_writes_is_not_cleared(store: tuple[Redis, RedisStore]) -> None:
    for each in (store[1], MemoryStore("other")):
        await _commits(each, pack([enqueue(job())]), pack([claim()]))
        before = await each.dump(0)
        for seen in (None, 0):
            with pytest.raises(FencedError):
                await each.clear(0, seen)
        assert await each.dump(0) == before


async def test_how_far_is_acked_is_stored_beside_the_compared_state(store: tuple[Redis, RedisStore]) -> None:
    for each in (store[1], MemoryStore("other")):
        assert await each.acked(0) == Acked()
        done, _ = await fold_round(
            each, HomeState(home=0), [entry(0, 1_000, pack([enqueue(job())]))], homes=1, expected=None
        )
        trim = Trim(Acked(events=7), [])
        commit = commit_of(done.world, namespace=each.namespace, expected=None, applied=0, trim=trim)
        assert await each.commit([commit]) == [None]
        assert await each.acked(0) == trim.acked
        assert "acked" not in await each.dump(0)
        done, commit = await fold_round(
            each, done.world.state(), [entry(1, 1_000, pack([command(Reset)]))], homes=1, expected=0
        )
        assert await each.commit([commit]) == [None]
        assert await each.acked(0) == trim.acked
        await each.clear(0, 1)
        assert await each.acked(0) == Acked()


async def test_a_torn_home_is_cleared_to_the_last_key(
    store: tuple[Redis, RedisStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "ARGUMENTS_MAX", 2)
    await _commits(store[1], pack([enqueue(job(), job())]))
    await store[0].delete(f"{{{store[1].namespace}:0}}:home")
    assert await store[1].position(0) == (0, None)
    await store[1].clear(0, 0)
    assert await store[0].keys("*") == []


async def test_thousands_of_records_fit_into_one_commit(store: tuple[Redis, RedisStore]) -> None:
    twin = Twin(store[1], store[1].namespace, 0)
    jobs = [job("q" + str(number % 3)) for number in range(6_000)]
    await twin.round([(1_000, pack([enqueue(*jobs[start : start + 1_000]) for start in range(0, 6_000, 1_000)]))])
    await twin.round([(1_000, pack([claim("q0", "q1", "q2", count=2_500), command(Ack, job_id=jobs[0].id)]))])
    await twin.round([(1_000, pack([command(Reset)]))])
    assert set(await store[1].dump(0)) == {"applied", "home"}


async def test_a_round_knows_that_another_owner_wrote_while_it_read(store: tuple[Redis, RedisStore]) -> None:
    for each in (store[1], MemoryStore("other")):
        await _commits(each, pack([enqueue(job())]), pack([claim()]))
        state = (await each.position(0))[1]
        assert state is not None
        stale, _ = await fold_round(each, state, [entry(1, 1_000, pack([claim()]))], homes=1, expected=0)
        fresh, _ = await fold_round(each, state, [entry(2, 1_000, pack([claim()]))], homes=1, expected=1)
        assert (stale.sound, fresh.sound) == (False, True)


async def test_outcomes_for_others_expire(store: tuple[Redis, RedisStore]) -> None:
    asked: Any = command(Ack, job_id="nobody", submit="w9:1")
    await _commits(store[1], pack([asked]))
    name = f"{{{store[1].namespace}:0}}:outcome:w9:1"
    assert 0 < await store[0].ttl(name) <= 60
    assert "outcome:w9:1" not in await store[1].dump(0)


async def test_a_commit_that_redis_breaks_off_is_unknown_and_does_not_look_applied(
    store: tuple[Redis, RedisStore],
) -> None:
    _, second = await _commits(store[1], pack([enqueue(job())]), pack([claim()]))
    await store[0].set(f"{{{store[1].namespace}:0}}:applied", b"0")
    second.hashes[f"{{{store[1].namespace}:0}}:home"] = {"a": b"1"}
    (error,) = await store[1].commit([second])
    assert isinstance(error, UnavailableError)
    assert error.unknown
    assert await store[1].applied([0]) == [0]
