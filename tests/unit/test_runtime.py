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
