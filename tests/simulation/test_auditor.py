"""A simulation that cannot fail is worth nothing: broken products are found out within a few seeds."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.simulation import mutations
from tests.simulation.mutations import Mutation
from tests.simulation.scenario import Scenario, simulate

SEEDS_MAX = 100
"""Most are found out in the first five, none has ever needed more than forty."""
REPLAY = "a replay gives"
"""The replay runs the same broken code or finds the difference by itself: the auditor must not need it."""


class Silent(Scenario):
    """Nothing is wrong but that every reply is lost."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.gentle, self.newer_share, self.workers = True, 0.0, 3


class Upgrade(Scenario):
    """Half of the workers are of a newer release, whose records an older one would cut."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.gentle, self.newer_share = False, 0.5
        self.history.touches_are_stored = True


@pytest.mark.parametrize(
    ("broken", "said", "kind"),
    [
        (mutations.fence_off, "", Scenario),
        (mutations.mark_ignored, "", Scenario),
        (mutations.trimmed_too_early, "lacks positions|effects, the topics|messages to", Scenario),
        (mutations.record_applied_twice, "happened 2 times|and then|accepted twice|was told", Scenario),
        (mutations.event_not_sent, "lacks positions", Scenario),
        (mutations.event_not_made, "its events end at", Scenario),
        (mutations.event_made_anew, "two different records", Scenario),
        (mutations.leased_twice, "was active and then job.started", Scenario),
        (mutations.false_success, "accepted and is nowhere", Scenario),
        (mutations.asked_again, "the events say|has started", Scenario),
        (mutations.counter_off, "counts", Scenario),
        (mutations.second_first, "started before", Scenario),
        (mutations.limit_open, "limit .* allows", Scenario),
        (mutations.cron_twice, "was triggered 2 times", Scenario),
        (mutations.bulk_too_early, "bulk record .* is nowhere", Scenario),
        (mutations.extension_forgotten, "was extended at .* and lost at", Scenario),
        (mutations.pause_forgotten, "its events say True|has paused", Scenario),
        (mutations.nobody_ticks, "is stuck", Scenario),
        (mutations.nobody_polls, "was not answered", Silent),
        (mutations.newer_command_buried, "put a command aside: .*version 3", Upgrade),
        (mutations.newer_records_rewritten, "was touched . times, its record knows of", Upgrade),
    ],
)
def test_a_broken_product_is_found_out(broken: Mutation, said: str, kind: type[Scenario]) -> None:
    with broken():
        for seed in range(SEEDS_MAX):
            problems = [text for text in simulate(seed, kind).problems if REPLAY not in text]
            if any(re.search(said, text) for text in problems):
                return
    pytest.fail(f"{broken.__name__}: nothing was found in {SEEDS_MAX} seeds")


def test_the_auditor_uses_no_code_of_the_product() -> None:
    code = (
        "import sys, tests.simulation.auditor\n"
        "sys.exit(' '.join(name for name in sys.modules if name.startswith('ojs_stream')) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
