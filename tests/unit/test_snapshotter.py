"""When a snapshot is due, and that its making cannot hurt the worker."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ojs_stream import stamp
from ojs_stream.agents.snapshotter import Last, Rule, Snapshotter, make_by, snapshot_argv
from ojs_stream.errors import UnavailableError
from tests.support.client import until

HOUR_MS = 3_600_000
RULE = Rule(every_ms=6 * HOUR_MS, commands=1_000)


@pytest.mark.parametrize(
    ("rule", "applied", "hours", "commands", "due"),
    [
        (RULE, 150, 1, 999, False),
        (RULE, 150, 1, 1_000, True),
        (RULE, 1_100, 1, 0, True),
        (RULE, 150, 6, 0, True),
        (RULE, 100, 60, 0, False),
        (Rule(0, 1_000), 150, 60, 10, False),
        (Rule(6 * HOUR_MS, 0), 150_000, 1, 150_000, False),
        (Rule(0, 0), 150_000, 60, 150_000, False),
    ],
    ids=["not yet", "commands", "at least one a record", "time", "no news", "no time", "no number", "off"],
)
def test_due(rule: Rule, applied: int, hours: int, commands: int, due: bool) -> None:
    assert rule.is_due(Last(100, 0), now_ms=hours * HOUR_MS, applied=applied, commands=commands) is due


@dataclass
class Home:
    """What is looked at of an owner."""

    home: int
    applied: int | None = 50
    commands: int = 0
    live: bool = True


class Scene:
    """Homes, their last snapshots, and what was made of them."""

    def __init__(self, *homes: Home) -> None:
        self.homes = list(homes)
        self.last = {home.home: Last(50, stamp.now_ms()) for home in homes}
        self.made: list[int] = []
        self.looked_up: list[int] = []
        self.works = True
        owners: Any = lambda: self.homes  # noqa: E731
        self.snapshotter = Snapshotter(owners, RULE, self._look_up, self._make)

    async def _look_up(self, home: int) -> Last:
        self.looked_up.append(home)
        if home not in self.last:
            raise UnavailableError("Kafka is away")
        return self.last[home]

    async def _make(self, home: int) -> bool:
        self.made.append(home)
        if self.works:
            self.last[home] = Last(self.homes[0].applied or 0, stamp.now_ms())
        return self.works


async def test_only_what_is_due_is_made_and_the_topic_is_asked_once() -> None:
    one, two = Home(1), Home(2)
    scene = Scene(one, two)
    for _ in range(3):
        await scene.snapshotter.look()
    assert (scene.made, scene.looked_up) == ([], [1, 2])
    one.applied, one.commands = 60, 1_000
    for _ in range(3):
        await scene.snapshotter.look()
    assert (scene.made, scene.looked_up) == ([1], [1, 2, 1])
    one.applied, one.commands = 70, 1_999
    await scene.snapshotter.look()
    assert scene.made == [1]
    one.commands = 2_000
    await scene.snapshotter.look()
    assert scene.made == [1, 1]


async def test_what_was_folded_before_the_first_look_counts() -> None:
    scene = Scene(Home(1, applied=55, commands=1_000))
    await scene.snapshotter.look()
    assert scene.made == [1]


async def test_a_home_that_is_not_live_waits() -> None:
    scene = Scene(Home(1, applied=5_000, live=False))
    await scene.snapshotter.look()
    assert scene.made == []


async def test_a_failure_is_not_repeated_at_once_and_stops_nobody_else() -> None:
    scene = Scene(Home(1, applied=5_000), Home(2, applied=5_000))
    scene.works = False
    for _ in range(3):
        await scene.snapshotter.look()
    assert scene.made == [1, 2]


async def test_a_topic_that_cannot_be_read_is_looked_at_again() -> None:
    scene = Scene(Home(1, applied=5_000))
    del scene.last[1]
    await scene.snapshotter.look()
    assert scene.made == []
    scene.last[1] = Last(50, 0)
    await scene.snapshotter.look()
    assert scene.made == [1]


async def test_the_process_is_the_command_line_and_its_code_tells_how_it_went() -> None:
    argv = snapshot_argv(3, trim=True)
    assert argv[1:] == ["-m", "ojs_stream.cli", "snapshot", "--partition", "3", "--trim"]
    assert snapshot_argv(3, trim=False)[-1] == "3"
    assert await make_by([sys.executable, "-c", "print('done')"])
    assert not await make_by([sys.executable, "-c", "raise SystemExit(2)"])
    assert not await make_by(["/nowhere/at/all"])


async def test_the_process_ends_with_the_worker(tmp_path: Path) -> None:
    script = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    making = asyncio.create_task(make_by([sys.executable, "-c", script]))

    async def begun() -> str:
        pid = tmp_path / "pid"
        return pid.read_text() if pid.exists() else ""

    pid = int(await until(begun, "the process runs"))
    making.cancel()
    await asyncio.gather(making, return_exceptions=True)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
