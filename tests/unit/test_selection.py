"""Which jobs a bulk change is for: what is refused, what is resolved, and the walk over them while they change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, cast

import pytest
from msgspec import Raw

from ojs_stream.core.commands import Bulk
from ojs_stream.core.homes import home_of
from ojs_stream.core.records import stored_json
from ojs_stream.core.selection import Filter, parse_selection
from ojs_stream.errors import RefusedError
from ojs_stream.store.reads import Read, Reads
from ojs_stream.store.walks import WALK_PAGE, walk
from tests.support.builders import DAY, START, Fold, command, enqueue, job

NOW = START


def parsed(body: dict[str, Any], action: str = "cancel", *, confirm: bool = False) -> Any:
    return parse_selection(json.dumps(body).encode(), action, ids_max=3, confirm=confirm, now_ms=NOW)  # type: ignore[arg-type]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "job_ids"),
    ({"job_ids": ["a"], "filter": {"queue": "q"}}, "job_ids"),
    ({"job_ids": []}, "job_ids"),
    ({"job_ids": "a"}, "job_ids"),
    ({"job_ids": [1]}, "job_ids"),
    ({"job_ids": ["a"], "atomicity": "atomic"}, "atomicity"),
    ({"job_ids": ["a"], "reason": 1}, "reason"),
    ({"filter": {}}, "filter"),
    ({"filter": {"queue": None}}, "filter"),
    ({"filter": []}, "filter"),
    ({"filter": {"quue": "q"}}, "filter.quue"),
    ({"filter": {"queue": "Q!"}}, "filter.queue"),
    ({"filter": {"type": 5}}, "filter.type"),
    ({"filter": {"state": "completed"}}, "filter.state"),
    ({"filter": {"state": []}}, "filter.state"),
    ({"filter": {"state": ["available", "lost"]}}, "filter.state"),
    ({"filter": {"priority": 101}}, "filter.priority"),
    ({"filter": {"priority": True}}, "filter.priority"),
    ({"filter": {"meta": "x"}}, "filter.meta"),
    ({"filter": {"older_than": "soon"}}, "filter.older_than"),
    ({"filter": {"enqueued_before": "P1D"}}, "filter.enqueued_before"),
]


@pytest.mark.parametrize(("body", "field"), WRONG, ids=[f"{json.dumps(body)}" for body, _ in WRONG])
def test_what_is_not_clear_changes_nothing(body: dict[str, Any], field: str) -> None:
    with pytest.raises(RefusedError) as refused:
        parsed(body)
    assert (refused.value.code, refused.value.details["field"]) == ("invalid_request", field)


@pytest.mark.parametrize("confirm", [None, False, 1, "true"])
def test_an_operator_must_confirm(confirm: Any) -> None:
    with pytest.raises(RefusedError, match="confirm"):
        parsed({"filter": {"queue": "q"}, "confirm": confirm}, confirm=True)


def test_too_many_ids_are_told_how_many_may_be() -> None:
    with pytest.raises(RefusedError) as refused:
        parsed({"job_ids": ["a", "b", "c", "d"]})
    assert (refused.value.code, refused.value.details["max_batch_size"]) == ("BATCH_SIZE_EXCEEDED", 3)


def test_ids_count_once_and_a_reason_is_kept() -> None:
    found = parsed({"job_ids": ["a", "b", "a"], "reason": "incident", "confirm": True}, confirm=True)
    assert (found.job_ids, found.filter, found.reason) == (("a", "b"), None, "incident")


@pytest.mark.parametrize(
    ("action", "states"),
    [
        ("cancel", ("available", "scheduled")),
        ("retry", ("discarded",)),
        ("delete", ("completed", "cancelled", "discarded")),
    ],
)
def test_a_filter_without_states_means_the_usual_ones(action: str, states: tuple[str, ...]) -> None:
    assert parsed({"filter": {"queue": "q"}}, action).filter.states == states


@pytest.mark.parametrize("given", ["retryable,available", ["available", "retryable"]])
def test_states_are_a_list_or_words_with_commas(given: Any) -> None:
    assert parsed({"filter": {"state": given}}).filter.states == ("available", "retryable")


def test_the_earlier_of_two_instants_counts() -> None:
    given = {"older_than": "P1D", "enqueued_before": "2030-03-18T00:00:00Z"}
    assert parsed({"filter": given}).filter.before == NOW - DAY
    assert parsed({"filter": {"older_than": "2030-03-01T00:00:00Z"}}).filter.before == 1_898_553_600_000


FITS: list[tuple[dict[str, Any], bool]] = [
    ({"type": "email.send"}, True),
    ({"type": "email.*"}, True),
    ({"type": "email"}, False),
    ({"priority": 5}, True),
    ({"priority": 0}, False),
    ({"before": START + 1}, True),
    ({"before": START}, False),
    ({"meta": {"a": 1}}, True),
    ({"meta": {"a": 1, "b": None}}, False),
    ({"meta": {"a": 2}}, False),
]


@pytest.mark.parametrize(("wanted", "fits"), FITS, ids=[str(row) for row in FITS])
def test_every_condition_must_fit(wanted: dict[str, Any], fits: bool) -> None:
    fold = Fold()
    made = fold.put(priority=5, meta=Raw(b'{"a":1,"c":[]}'))
    given = Filter(states=("available",), **wanted)
    assert given.needs_records
    assert given.fits(fold.record(made)) is fits


# -- the walk -------------------------------------------------------------------------------------------------


class Indexes:
    """Answers the walk's reads from the records of a fold."""

    def __init__(self, fold: Fold) -> None:
        self.fold, self.homes, self.reads = fold, fold.homes, 0

    async def one(self, home: int, _command: str, key: tuple[str, ...], *arguments: Any) -> list[Any]:
        self.reads += 1
        low, _, _, _, start, count, _ = arguments
        index = self.fold.dump(home).get(":".join(key), {})
        entries = sorted((score, member) for member, score in index.items())
        page = [entry for entry in entries if low == "-inf" or entry[0] >= int(low)][start : start + count]
        return [part for score, member in page for part in (member.encode(), str(score).encode())]

    async def many(self, reads: Sequence[Read]) -> list[bytes]:
        return [stored_json(self.fold.record(key[1])) for _, _, key, _ in reads]


def walked(fold: Fold, wanted: Filter, queue: str, *, change: Any = None) -> list[str]:
    async def run() -> list[str]:
        found: list[str] = []
        async for home, ids in walk(cast("Reads", Indexes(fold)), wanted, [queue]):
            assert home == home_of(queue, fold.homes)
            found.extend(ids)
            if change is not None:
                change(ids)
        return found

    return asyncio.run(run())


def filled(fold: Fold, count: int) -> list[str]:
    jobs = [job("walk", homes=fold.homes, type=f"kind.k{n % 2}", delay_ms=1_000) for n in range(count)]
    fold.do(enqueue(*jobs))
    return [each.id for each in jobs]


def test_the_walk_meets_every_job_once_although_all_have_the_same_score() -> None:
    fold = Fold(4)
    ids = filled(fold, 2 * WALK_PAGE + 50)
    found = walked(fold, Filter(states=("scheduled",)), "walk")
    assert (sorted(found), len(found)) == (sorted(ids), len(ids))


@pytest.mark.parametrize("wanted", [{}, {"type": "kind.k1"}])
def test_the_walk_skips_nobody_while_the_jobs_that_fit_leave_the_index(wanted: dict[str, Any]) -> None:
    fold = Fold(4)
    ids = filled(fold, 2 * WALK_PAGE + 50)

    def cancel(found: list[str]) -> None:
        home = home_of("walk", 4)
        fold.do(command(Bulk, action="cancel", job_ids=tuple(found), states=("scheduled",)), home=home)

    found = walked(fold, Filter(states=("scheduled",), **wanted), "walk", change=cancel)
    meant = ids if not wanted else ids[1::2]
    assert sorted(found) == sorted(meant)
    assert fold.counts("walk").get("cancelled") == len(meant)
