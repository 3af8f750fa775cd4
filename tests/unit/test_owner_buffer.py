"""Which records an owner folds: each offset once and in order, whoever brings it first."""

from __future__ import annotations

from time import monotonic
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from ojs_stream.agents.owner import RECOVER_WAIT_S, Owner, Progress
from ojs_stream.core.records import HomeState
from ojs_stream.core.world import Message
from ojs_stream.log.reader import LogRecord


class _Sent:
    """An outbox with nothing in it."""

    events = ()


def live_owner(applied: int) -> Owner:
    owner = Owner(0, cast("Any", SimpleNamespace(wake=lambda: None)))
    owner.applied = applied
    cast("Any", owner)._outbox = _Sent()
    owner.go_live()
    return owner


def record(offset: int) -> LogRecord:
    return LogRecord(offset, 1_000 + offset, None, b"pack %d" % offset, ())


def offsets(owner: Owner) -> list[int]:
    return [each.offset for each in owner.take()]


def test_a_written_pack_is_folded_before_its_delivery_and_only_once() -> None:
    owner = live_owner(applied=4)
    owner.foresee(record(5))
    assert owner.has_records
    assert offsets(owner) == [5]
    owner.offer(record(5))
    assert not owner.has_records
    assert offsets(owner) == []
    assert owner.live


def test_a_written_pack_waits_for_what_others_wrote_before_it() -> None:
    owner = live_owner(applied=4)
    owner.foresee(record(7))
    assert offsets(owner) == []
    assert owner.live
    owner.offer(record(5))
    owner.offer(record(6))
    assert offsets(owner) == [5, 6, 7]
    owner.offer(record(7))
    owner.offer(record(8))
    assert offsets(owner) == [8]


def test_deliveries_of_what_is_folded_are_nothing_new() -> None:
    owner = live_owner(applied=4)
    for offset in (2, 3, 4, 5, 5):
        owner.offer(record(offset))
    assert offsets(owner) == [5]


def test_what_a_delivery_skips_is_a_gap() -> None:
    owner = live_owner(applied=4)
    owner.foresee(record(6))
    owner.offer(record(6))
    assert offsets(owner) == []
    assert owner.phase == "catching_up"


class _Marks:
    """Homes whose marks of home 0 are known."""

    def __init__(self, marks: dict[int, int]) -> None:
        self._marks = marks

    async def position(self, home: int) -> tuple[int | None, HomeState | None]:
        return 7, HomeState(home=home, marks={"0": self._marks[home]}) if home in self._marks else None


async def test_a_catch_up_lets_go_of_messages_that_their_destinations_have_folded() -> None:
    owner = live_owner(applied=4)
    inside = cast("Any", owner)
    inside._wiring.store = _Marks({1: 2})
    inside.state = HomeState(home=0, marks={"0": 1})
    trimmed: list[str] = []
    inside._outbox = SimpleNamespace(give_back_trimmed=trimmed.extend)
    inside._held = [Message(home, number, b"{}") for home in (0, 1, 2) for number in (1, 2, 3)]
    await inside._let_go()
    assert [(m.destination, m.number) for m in inside._held] == [(0, 2), (0, 3), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert trimmed == ["m:0:1", "m:1:1", "m:1:2"]
    assert inside._held_floor == 6


def test_a_catch_up_says_how_long_it_will_take_at_the_rate_it_has() -> None:
    progress = Progress(total=8, begun=monotonic() - 2.0)
    unknown = {"commands_per_s": None, "seconds_left": None}
    assert progress.shown() == {"done": 0, "total": 8, "commands_left": None, **unknown}
    progress.folded(cast("Any", SimpleNamespace(entries=[SimpleNamespace(commands=[1] * 50)] * 2)))
    shown = progress.shown()
    assert (shown["done"], shown["commands_left"]) == (2, 300)
    assert 40 <= shown["commands_per_s"] <= 50
    assert 6.0 <= shown["seconds_left"] <= 7.5
    progress.done = 8
    assert progress.shown() == {"done": 8, "total": 8, "commands_left": 0, **unknown}


class _NoRedis:
    """A store whose Redis is away."""

    async def applied(self, _homes: list[int]) -> list[int | None]:
        raise RedisConnectionError("refused")


async def test_without_redis_a_recovery_ends_before_it_opens_a_reader_of_the_log() -> None:
    opened: list[int] = []
    owner = live_owner(applied=4)
    inside = cast("Any", owner)
    inside._outbox = None
    inside._wiring = SimpleNamespace(store=_NoRedis(), open_reader=lambda: opened.append(1))
    with pytest.raises(RedisConnectionError):
        await inside._recover()
    assert opened == []
    assert max(RECOVER_WAIT_S) <= 0.5, "Redis is back: who waits for it must try soon"
