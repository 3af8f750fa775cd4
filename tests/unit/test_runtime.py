"""What a worker does when the group gives or takes homes."""

from __future__ import annotations

from typing import Any

from ojs_stream.agents.work import Work
from ojs_stream.core.records import HomeState
from ojs_stream.core.world import World
from ojs_stream.runtime import Runtime
from ojs_stream.settings import Settings


class Engine:
    """Owners without tasks."""

    def __init__(self) -> None:
        self.owners: dict[int, Any] = {}

    def assign(self, homes: set[int]) -> None:
        self.owners.update((home, type("Owner", (), {"home": home})()) for home in homes)

    def revoke(self, homes: set[int]) -> None:
        for home in homes:
            self.owners.pop(home)


def test_a_home_that_is_assigned_no_more_is_forgotten_as_if_it_was_revoked() -> None:
    runtime: Any = Runtime(Settings())
    runtime.engine = Engine()
    runtime.work = Work(2, runtime.engine.owners.get)
    runtime.assigned({0, 1})
    for owner in runtime.engine.owners.values():
        runtime.work.committed(owner, World(HomeState(home=owner.home), homes=2))
    runtime.assigned({1})
    assert set(runtime.engine.owners) == set(runtime.work._queues) == {1}


class Pipe:
    """A pipeline that finds an outcome for every view, and notes what it was asked for."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def get(self, name: str) -> None:
        self.names.append(name)

    async def execute(self) -> list[bytes | None]:
        return [b'{"code":"found"}' if ":outcome:" in name else None for name in self.names]


async def test_a_home_that_is_live_here_is_not_asked_for_outcomes() -> None:
    """What it commits it tells itself; only homes of other workers leave outcomes in Redis."""
    runtime: Any = Runtime(Settings())
    runtime.engine = Engine()
    for home, live in ((0, True), (1, False)):
        runtime.engine.owners[home] = type("Owner", (), {"live": live})()
    pipe = Pipe()
    runtime.redis = type("Redis", (), {"pipeline": lambda _self, transaction: pipe})()
    found = await runtime.outcomes([(0, "a:1"), (1, "a:2"), (2, "a:3"), (0, "a:4")])
    assert [outcome and outcome.code for outcome in found] == [None, "found", "found", None]
    assert not any("ojs:0}" in name for name in pipe.names)
