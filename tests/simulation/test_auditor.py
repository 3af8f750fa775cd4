"""A simulation that cannot fail is worth nothing: broken products are found out within a few seeds."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.simulation import mutations
from tests.simulation.mutations import Mutation
from tests.simulation.scenario import simulate

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
        (mutations.counter_off, "counts", 60),
        (mutations.second_first, "started before", 5),
        (mutations.limit_open, "limit .* allows", 40),
        (mutations.cron_twice, "was triggered 2 times", 20),
        (mutations.bulk_too_early, "bulk record .* is nowhere", 80),
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
