"""Backoff: strategies, jitter and caps (OJS.md 3.1, 3.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ojs_stream.core.retry import RetryPolicy, delay_ms, matches_non_retryable
from tests.support.builders import MINUTE, SECOND, policy

STRATEGIES = ("exponential", "linear", "constant", "polynomial")
policies = st.builds(
    policy,
    initial_ms=st.integers(1, 10 * MINUTE),
    coefficient=st.floats(1.0, 100.0),
    max_ms=st.integers(10 * MINUTE, 600 * MINUTE),
    strategy=st.sampled_from(STRATEGIES),
    jitter=st.booleans(),
)
dices = st.floats(0.0, 1.0, exclude_max=True)


@pytest.mark.parametrize(
    ("strategy", "coefficient", "delays"),
    [
        ("exponential", 2.0, [1000, 2000, 4000, 8000]),
        ("exponential", 10.0, [1000, 10_000, 60_000, 60_000]),
        ("linear", 1.0, [1000, 2000, 3000, 4000]),
        ("constant", 1.0, [1000, 1000, 1000, 1000]),
        ("polynomial", 2.0, [1000, 4000, 9000, 16_000]),
    ],
)
def test_delays(strategy: str, coefficient: float, delays: list[int]) -> None:
    given_policy = policy(strategy=strategy, coefficient=coefficient, initial_ms=SECOND, max_ms=MINUTE)
    assert [delay_ms(given_policy, attempt, 0.9) for attempt in (1, 2, 3, 4)] == delays


@pytest.mark.parametrize(("dice", "delay"), [(0.0, 500), (0.5, 1000), (0.999, 1499)])
def test_jitter_is_half_to_one_and_a_half(dice: float, delay: int) -> None:
    assert delay_ms(policy(jitter=True), 1, dice) == delay


@given(policies, st.integers(-5, 10**6), dices)
def test_a_delay_is_never_negative_and_never_above_its_cap(given_policy: RetryPolicy, n: int, dice: float) -> None:
    assert 0 <= delay_ms(given_policy, n, dice) <= given_policy.max_ms


@given(policies, st.integers(1, 1_000), dices)
def test_without_jitter_delays_never_shrink_and_dice_do_not_matter(
    given_policy: RetryPolicy, n: int, dice: float
) -> None:
    if not given_policy.jitter:
        assert delay_ms(given_policy, n, dice) == delay_ms(given_policy, n, 0.0)
        assert delay_ms(given_policy, n, dice) <= delay_ms(given_policy, n + 1, dice)


@given(policies, st.integers(1, 1_000), dices)
def test_jitter_stays_within_half_of_the_plain_delay(given_policy: RetryPolicy, n: int, dice: float) -> None:
    plain = delay_ms(policy(**{**_fields(given_policy), "jitter": False}), n, dice)
    shaken = delay_ms(policy(**{**_fields(given_policy), "jitter": True}), n, dice)
    assert plain * 0.5 - 1 <= shaken <= plain * 1.5 + 1


def _fields(given_policy: RetryPolicy) -> dict[str, object]:
    names = ("initial_ms", "coefficient", "max_ms", "strategy")
    return {name: getattr(given_policy, name) for name in names}


@pytest.mark.parametrize(
    ("listed", "name", "matches"),
    [
        ("Fatal", "Fatal", True),
        ("Fatal", "FatalError", False),
        ("Auth.*", "Auth.Expired", True),
        ("Auth.*", "Auth.", True),
        ("Auth.*", "Auth", False),
        ("Auth.*", "Authority.X", False),
        ("*", "Anything", False),
        ("Fatal", None, False),
    ],
)
def test_names_on_the_list(listed: str, name: str | None, matches: bool) -> None:
    assert matches_non_retryable(policy(non_retryable=(listed,)), name, None) is matches
