"""The log that an earlier state of the code has written gives the state that it gave then."""

from __future__ import annotations

import json

import pytest

from ojs_stream.core.fold import HANDLERS
from tests.support.recorded import RECORDINGS, Recording, in_todays_words
from tests.support.recount import recount_all
from tests.support.replay import first_difference, fold_log


@pytest.fixture(scope="module", params=RECORDINGS)
def recording(request: pytest.FixtureRequest) -> Recording:
    return Recording.read(request.param)


async def test_it_gives_the_same_state_as_then(recording: Recording) -> None:
    homes = len(recording.logs)
    folded = [await fold_log(log, home=home, homes=homes) for home, log in enumerate(recording.logs)]
    stored = [recording.dump(home) for home in range(homes)]
    assert first_difference([*map(in_todays_words, stored)], [*map(in_todays_words, folded)]) == ""


def test_every_kind_of_command_that_it_has_is_known(recording: Recording) -> None:
    asked = [c for log in recording.logs for r in log for c in json.loads(r.value)["commands"]]
    kinds = {command["kind"] for command in asked}
    assert kinds <= {str(kind.__struct_config__.tag) for kind in HANDLERS}
    assert len(kinds) >= 51, "it has all kinds that there were then"


def test_its_indexes_and_counters_add_up(recording: Recording) -> None:
    assert recount_all([recording.dump(home) for home in range(len(recording.logs))]) == []
