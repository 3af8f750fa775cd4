"""Two hundred seeds of bad luck; ``python -m tests.simulation --seeds N`` runs as many as you like."""

from __future__ import annotations

import pytest

from tests.simulation.scenario import simulate

SEEDS = 200
CHUNK = 20


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_nothing_is_lost_and_nothing_happens_twice(start: int) -> None:
    failed = [result for seed in range(start, start + CHUNK) if (result := simulate(seed)).problems]
    assert not failed, "\n".join(f"make sim SEED={result.seed}: {result.problems[0]}" for result in failed)


@pytest.mark.parametrize("seed", [7, 151])
def test_the_same_seed_is_the_same_run(seed: int) -> None:
    first, second = simulate(seed), simulate(seed)
    assert (first.journal, first.records, first.requests) == (second.journal, second.records, second.requests)
