"""The next round is folded while the commit of the last one is under way, and falls with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from ojs_stream.agents.engine import Engine
from ojs_stream.agents.owner import Owner
from ojs_stream.core.commands import Enqueue
from ojs_stream.core.records import HomeState
from ojs_stream.errors import UnavailableError
from ojs_stream.log.codec import encode_pack
from ojs_stream.log.reader import LogRecord
from ojs_stream.store.base import LoadRequest
from ojs_stream.store.commit import Acked, Commit, Trim
from ojs_stream.store.memory import MemoryStore
from tests.support.builders import NAMESPACE, command, job

TURNS = 20


class SlowStore(MemoryStore):
    """Commits wait for a sign; what is done with the store is noted in order."""

    def __init__(self) -> None:
        super().__init__(NAMESPACE)
        self.done: list[str] = []
        self.go = asyncio.Semaphore(0)
        self.answers_lost = False

    async def load(self, requests: Sequence[LoadRequest]) -> None:
        self.done.append("load")
        await super().load(requests)

    async def commit(self, commits: Sequence[Commit]) -> list[Exception | None]:
        self.done.append(f"sent {commits[0].expected}")
        await self.go.acquire()
        self.done.append(f"written {commits[0].expected}")
        found = await super().commit(commits)
        return [UnavailableError("lost", unknown=True) for _ in commits] if self.answers_lost else found


class Rig:
    """One live home, its engine, and what the views were told."""

    def __init__(self) -> None:
        self.store = SlowStore()
        self.told: list[str] = []
        gateway = SimpleNamespace(
            is_own=lambda _submit: True,
            resolve=lambda submit, _outcome: self.told.append(submit),
            applied=lambda _home, _offset: None,
            is_flying=lambda _home: False,
        )
        wiring = SimpleNamespace(
            store=self.store,
            namespace=NAMESPACE,
            homes=1,
            gateway=gateway,
            positions=SimpleNamespace(raise_to=lambda _home, _applied: None),
            on_commit=lambda _owner, _world: None,
            wake=self._wake,
        )
        self.engine = Engine(cast("Any", wiring), cast("Any", None))
        self.owner = self.engine.owners[0] = Owner(0, cast("Any", wiring))
        self.owner.state = HomeState(home=0)
        cast("Any", self.owner)._outbox = SimpleNamespace(
            events=(),
            trim=lambda: Trim(Acked(), []),
            add=lambda *_more, **_kinds: None,
            give_back_trimmed=lambda _fields: None,
        )
        self.owner.go_live()
        self.folding = asyncio.create_task(self._fold())

    def _wake(self) -> None:
        self.engine.wake()

    async def _fold(self) -> None:
        while True:
            await self.engine._fold_when_woken()

    async def write(self, offset: int, queue: str) -> None:
        """A record with one enqueue comes; then everything has time to happen."""
        asked = msgspec.json.encode(command(Enqueue, jobs=(job(queue),), submit=f"view:{offset}"))
        self.owner.foresee(LogRecord(offset, 1_000 + offset, None, encode_pack([asked]), ()))
        await self.turn()

    async def turn(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def end(self) -> None:
        self.folding.cancel()
        await asyncio.gather(self.folding, return_exceptions=True)


async def test_a_round_is_folded_on_one_whose_commit_is_under_way_and_is_sent_after_it() -> None:
    rig = Rig()
    await rig.write(0, "mail")
    await rig.write(1, "mail")
    assert rig.store.done == ["load", "sent None"]
    assert rig.told == []
    rig.store.go.release()
    await rig.turn()
    assert rig.store.done == ["load", "sent None", "written None", "sent 0"]
    assert rig.told == ["view:0"]
    rig.store.go.release()
    await rig.turn()
    assert rig.told == ["view:0", "view:1"]
    queue = json.loads((await rig.store.dump(0))["queue:mail"])
    assert queue["counts"]["available"] == 2
    await rig.end()


async def test_what_must_be_read_is_read_after_the_commit() -> None:
    rig = Rig()
    await rig.write(0, "mail")
    await rig.write(1, "post")
    assert rig.store.done == ["load", "sent None"]
    rig.store.go.release()
    await rig.turn()
    assert rig.store.done == ["load", "sent None", "written None", "load", "sent 0"]
    await rig.end()


async def test_a_round_on_a_commit_that_nobody_knows_of_is_given_up() -> None:
    rig = Rig()
    await rig.write(0, "mail")
    await rig.write(1, "mail")
    rig.store.answers_lost = True
    rig.store.go.release()
    await rig.turn()
    assert rig.owner.phase == "catching_up"
    assert rig.store.done == ["load", "sent None", "written None"]
    assert rig.told == []
    await rig.end()
