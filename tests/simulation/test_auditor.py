"""A simulation that cannot fail is worth nothing: broken products are found out within a few seeds."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.simulation import mutations
from tests.simulation.mutations import Mutation
from tests.simulation.scenario import Scenario, simulate

UPGRADES = 25
REPLAY = "a replay gives"
"""The replay runs the same broken code or finds the difference by itself: the auditor must not need it."""


@pytest.mark.parametrize(
    ("broken", "said", "seeds"),
    [
        (mutations.fence_off, "", 20),
        (mutations.mark_ignored, "", 40),
        (mutations.trimmed_too_early, "lacks positions|effects, the topics|messages to", 20),
        (mutations.record_applied_twice, "happened 2 times|and then|accepted twice|was told", 20),
        (mutations.event_not_sent, "lacks positions", 5),
        (mutations.event_not_made, "its events end at", 5),
        (mutations.event_made_anew, "two different records", 20),
        (mutations.leased_twice, "was active and then job.started", 5),
        (mutations.false_success, "accepted and is nowhere", 40),
        (mutations.asked_again, "the events say|has started", 40),
        (mutations.counter_off, "counts", 20),
        (mutations.second_first, "started before", 5),
        (mutations.limit_open, "limit .* allows", 40),
        (mutations.cron_twice, "was triggered 2 times", 20),
        (mutations.bulk_too_early, "bulk record .* is nowhere", 40),
        (mutations.nobody_polls, "was not answered", 30),
        (mutations.nobody_ticks, "is stuck", 5),
    ],
)
def test_a_broken_product_is_found_out(broken: Mutation, said: str, seeds: int) -> None:
    with broken():
        for seed in range(seeds):
            problems = [text for text in simulate(seed).problems if REPLAY not in text]
            if any(re.search(said, text) for text in problems):
                return
    pytest.fail(f"{broken.__name__}: nothing was found in {seeds} seeds")


def test_the_auditor_uses_no_code_of_the_product() -> None:
    code = (
        "import sys, tests.simulation.auditor\n"
        "sys.exit(' '.join(name for name in sys.modules if name.startswith('ojs_stream')) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


class Upgrade(Scenario):
    """Half of the workers are of a newer release, whose records an older one would cut."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.newer_share = 0.5
        self.history.touches_are_stored = True


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (mutations.newer_command_buried, "put a command aside: .*version 2"),
        (mutations.newer_records_rewritten, "was touched . times, its record knows of"),
    ],
)
def test_an_older_release_that_does_not_stop_is_found_out(broken: Mutation, said: str) -> None:
    with broken():
        found = [text for seed in range(UPGRADES) for text in Upgrade(seed).run().problems]
    assert any(re.search(said, text) for text in found)
