"""Which records an owner folds: each offset once and in order, whoever brings it first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from ojs_stream.agents.owner import Owner
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
