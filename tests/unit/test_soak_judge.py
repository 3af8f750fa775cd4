"""The judge of a long run: a leak of a megabyte a minute is seen, a sawtooth and a single pause are not."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tools.soak.judge import KEYS_GROWTH_MIN, Point, slope, trend
from tools.soak.load import Tally
from tools.soak.report import growth_of, judge
from tools.soak.run import Found
from tools.soak.sample import Kind, Sample, kind_of

MINUTES = 30


def series(value: Callable[[float], float]) -> list[Point]:
    """A sample every 10 s for half an hour, of a value that is a function of the minute."""
    return [(at, value(at / 60)) for at in range(0, MINUTES * 60 + 1, 10)]


def test_a_steady_leak_is_measured() -> None:
    assert trend(series(lambda minute: 100 + 1.5 * minute)).per_min == pytest.approx(1.5)


def test_a_leak_is_measured_under_noise() -> None:
    dice = random.Random(4)
    found = trend(series(lambda minute: 100 + 1.2 * minute + dice.gauss(0, 8)))
    assert found.per_min == pytest.approx(1.2, abs=0.3)


def test_what_grows_in_the_warm_up_and_rests_then_is_flat() -> None:
    found = trend(series(lambda minute: 60 + 20 * min(minute, 4)))
    assert found.per_min == 0
    assert found.level == 140


def test_a_sawtooth_and_a_few_wild_samples_are_flat() -> None:
    def memory(minute: float) -> float:
        return 100 + minute % 3 + (500 if 14 < minute < 15 else 0)

    assert abs(trend(series(memory)).per_min) < 0.1


def test_a_short_run_has_a_short_warm_up() -> None:
    found = trend([(float(at), 10.0 if at < 20 else 0.0) for at in range(0, 101, 10)])
    assert found.span_min == pytest.approx(70 / 60)


@pytest.mark.parametrize("points", [[], [(0.0, 5.0)]])
def test_nothing_and_a_single_sample_have_no_slope(points: list[Point]) -> None:
    assert slope(points) == 0
    assert trend(points).growth == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("{ojs:3}:job:0192f0c1-7d2a-7000-8000-000000000001", "job:*"),
        ("{a-b.c:11}:state:mail:eu:active", "state:*:active"),
        ("{ojs:0}:due:run", "due:run"),
        ("{ojs:0}:applied", "applied"),
        ("{ojs:0}:minute:mail:17", "minute:*"),
        ("{ojs:0}:outcome:ab12:77", "outcome:*"),
    ],
)
def test_ids_are_no_part_of_a_kind(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def samples(kind: str, keys: Callable[[float], float], largest: Callable[[float], float], of: str) -> list[Sample]:
    return [
        Sample(
            at_s=at,
            rss_mib={"worker 1": 80.0},
            fds={"worker 1": 40},
            loop_wait_ms={"worker 1": 1.0},
            redis_mib=10.0,
            kinds={kind: Kind(keys=int(keys(at / 60)), type=of, largest=int(largest(at / 60)))},
        )
        for at, _ in series(lambda _minute: 0.0)
    ]


def test_keys_that_are_never_removed_are_named() -> None:
    leak = samples("lock:*", lambda minute: 50 + 2 * minute, lambda _: 100, "string")
    assert growth_of("lock:*", leak).startswith("lock:*: +50 keys in 25.0 min")


def test_retained_jobs_vary_and_do_not_grow() -> None:
    dice = random.Random(7)
    jobs = samples("job:*", lambda _: 9_000 + dice.gauss(0, 400), lambda _: 800, "string")
    assert growth_of("job:*", jobs) == ""


def test_an_index_that_grows_in_itself_is_named() -> None:
    index = samples("due:reap", lambda _: 8, lambda minute: 100 + 5 * minute, "zset")
    assert growth_of("due:reap", index).startswith("due:reap: its largest +125 elements")


def test_a_record_that_grows_in_itself_is_named() -> None:
    record = samples("home", lambda _: 8, lambda minute: 300 + 40 * minute, "string")
    assert growth_of("home", record).startswith("home: its largest +1000 bytes")


def test_a_few_more_are_the_dice_of_the_load() -> None:
    few = samples("stage:*", lambda minute: KEYS_GROWTH_MIN * minute / MINUTES, lambda _: 100, "string")
    assert growth_of("stage:*", few) == ""


def test_a_ring_fills_up_to_its_ceiling() -> None:
    ring = samples("events", lambda _: 8, lambda minute: min(10_000, 500 * minute), "hash")
    assert growth_of("events", ring) == ""
    burst = samples("events", lambda _: 8, lambda minute: 500 * minute, "hash")
    assert growth_of("events", burst) != ""


def test_a_run_is_judged_by_all_it_shows() -> None:
    total = Tally()
    total.answers.update({("ack", 200): 10, ("ack", 503): 1})
    left = {"home": Kind(keys=8, type="string", largest=300), "slot:*": Kind(keys=2, type="string", largest=90)}
    flat = samples("home", lambda _: 8, lambda _: 300, "string")
    checks = judge(Found(samples=flat, total=total, left=left))
    assert checks.summary == "4 passed, 2 failed"
    assert [check.found for check in checks.made if not check.passed] == ["1 of 11 are not.", "2 x slot:*"]
