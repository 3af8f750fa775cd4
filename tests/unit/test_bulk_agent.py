"""The bulk agent: nothing it was given is skipped, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from ojs_stream.agents import bulk, holding
from ojs_stream.agents.bulk import PORTION_BYTES_MAX, PORTION_MAX, BulkAgent, Lookups, Ways
from ojs_stream.core.commands import Enqueue
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import ConfigRecord
from ojs_stream.core.validation import Rules
from ojs_stream.errors import RefusedError, UnavailableError
from ojs_stream.log.intake import BulkRecord
from ojs_stream.log.producer import Record
from ojs_stream.log.topics import Topics
from ojs_stream.store.queue_reads import Standing
from tests.support.builders import KEEP, client_id, server_id


class Bench:
    """A bulk agent whose world is made of lists."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bulk, "RETRY_S", 0.0)
        monkeypatch.setattr(bulk, "GATHER_S", 0.0)
        monkeypatch.setattr(holding, "LOOK_S", 0.0)
        self.depths: dict[str, int] = {}
        self.configs: dict[str, ConfigRecord] = {}
        self.looks = 0
        self.at_look: Callable[[int], None] = lambda _number: None
        self.troubles: list[BaseException] = []
        self.applied: list[int] = []
        self.dead: list[dict[str, Any]] = []
        self.acked: list[int] = []
        self.jobs: dict[str, Any] = {}
        self.too_large: set[int] = set()
        self.stuck: asyncio.Event | None = None
        self.views = 0
        self.packs: list[int] = []
        self.agent = BulkAgent(
            homes=1,
            rules=Rules(retention=KEEP),
            intake=self,
            ways=Ways(self._submit, lambda: self.views > 0, self),
            lookups=Lookups(self._find, self._standings),
            topics=Topics("t"),
        )
        self.waiting: list[BulkRecord] = []
        self._offset = 0

    async def take(self, count_max: int) -> list[BulkRecord]:
        await asyncio.sleep(0)
        taken, self.waiting = self.waiting[:count_max], self.waiting[count_max:]
        return taken

    async def done(self, records: Sequence[BulkRecord]) -> None:
        self.acked += [record.offset for record in records]

    async def _submit(self, _home: int, commands: Sequence[Enqueue]) -> list[Outcome]:
        if self.stuck is not None:
            await self.stuck.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        if self.too_large & {command.number for command in commands}:
            raise RefusedError("PayloadTooLarge", "too large for the log")
        self.packs.append(len(commands))
        self.applied += [command.number - 1 for command in commands]
        for command in commands:
            queue = command.jobs[0].queue
            self.depths[queue] = self.depths.get(queue, 0) + 1
        return [Outcome() for _ in commands]

    async def _standings(self, queues: Sequence[str]) -> dict[str, Standing]:
        self.looks += 1
        self.at_look(self.looks)
        return {name: Standing(self.depths.get(name, 0), self.configs.get(name)) for name in queues}

    async def _find(self, job_ids: list[str]) -> dict[str, Any]:
        return {job_id: (0, self.jobs[job_id]) for job_id in job_ids if job_id in self.jobs}

    async def send_many(self, _topic: str, _partition: int, records: Sequence[Record], *, timeout_s: float) -> int:
        assert timeout_s > 0
        self.dead += [json.loads(record.value) for record in records]
        return 0

    def give(self, *envelopes: dict[str, Any] | bytes) -> None:
        for envelope in envelopes:
            value = envelope if isinstance(envelope, bytes) else json.dumps(envelope).encode()
            offset = self._offset
            self._offset += 1
            self.waiting.append(BulkRecord(0, offset, 1_900_000_000_000, value))

    async def work(self) -> None:
        """Run until everything is acknowledged or nothing moves any more."""
        task = asyncio.create_task(self.agent.run())
        for _ in range(200):
            await asyncio.sleep(0)
            if len(self.acked) == self._offset:
                break
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def envelope(**more: Any) -> dict[str, Any]:
    return {"type": "bulk.job", "args": [1], **more}


async def test_what_is_applied_is_acknowledged_in_order(bench: Bench) -> None:
    bench.give(envelope(), envelope(), envelope())
    await bench.work()
    assert bench.applied == bench.acked == [0, 1, 2]


@pytest.mark.parametrize(
    "trouble", [UnavailableError("Kafka is away"), RuntimeError("a bug")], ids=["away", "bug"]
)
async def test_nothing_is_acknowledged_before_it_is_applied(bench: Bench, trouble: Exception) -> None:
    bench.troubles = [trouble, trouble]
    bench.give(envelope(), envelope())
    await bench.work()
    assert bench.troubles == []
    assert bench.applied == bench.acked == [0, 1]


async def test_a_worker_that_stops_acknowledges_nothing_it_has_not_ended(bench: Bench) -> None:
    bench.stuck = asyncio.Event()
    bench.give(envelope(), envelope())
    await bench.work()
    assert bench.applied == bench.acked == []


async def test_a_backlog_goes_in_small_portions(bench: Bench) -> None:
    bench.give(*[envelope()] * (2 * PORTION_MAX + 1))
    await bench.work()
    assert bench.packs == [PORTION_MAX, PORTION_MAX, 1]
    assert bench.applied == bench.acked == list(range(2 * PORTION_MAX + 1))


async def test_large_envelopes_make_smaller_portions(bench: Bench) -> None:
    bench.give(*[envelope(args=["x" * (PORTION_BYTES_MAX // 3)])] * 3)
    await bench.work()
    assert bench.packs == [2, 1]


async def test_views_that_wait_go_first_but_not_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "GIVE_WAY_POLL_S", 0.0)
    monkeypatch.setattr(bulk, "GIVE_WAY_S", 3_600.0)
    bench.views = 1
    bench.give(envelope())
    await bench.work()
    assert bench.applied == []
    monkeypatch.setattr(bulk, "GIVE_WAY_S", 0.0)
    bench.give(envelope())
    await bench.work()
    assert bench.applied == [1], "the first was taken by the run that was stopped: Kafka has it still"


async def test_what_is_no_job_is_buried_and_acknowledged(bench: Bench) -> None:
    bench.give(b"not json", envelope())
    await bench.work()
    assert bench.applied == [1]
    assert bench.acked == [0, 1]
    assert [dead["offset"] for dead in bench.dead] == [0]


async def test_only_what_is_too_large_by_itself_is_buried(bench: Bench) -> None:
    bench.too_large = {2}
    bench.give(envelope(), envelope(), envelope())
    await bench.work()
    assert bench.applied == [0, 2]
    assert bench.acked == [0, 1, 2]
    assert [dead["reason"] for dead in bench.dead] == ["PayloadTooLarge: too large for the log"]


async def test_the_id_of_a_server_made_job_is_refused(bench: Bench) -> None:
    taken, mine = server_id(0), client_id()
    bench.jobs = {
        taken: SimpleNamespace(ctl=SimpleNamespace(origins=())),
        # Applied before a crash: the fold knows it as repeated, it must not be buried.
        mine: SimpleNamespace(ctl=SimpleNamespace(origins=(0,))),
    }
    bench.give(envelope(id=taken), envelope(id=mine))
    await bench.work()
    assert bench.applied == [1]
    assert [dead["reason"].partition(":")[0] for dead in bench.dead] == ["duplicate"]


async def test_a_full_queue_holds_what_comes_and_all_behind_it(bench: Bench) -> None:
    bench.configs["mail"] = ConfigRecord(name="mail", max_size=2)
    seen: list[list[int]] = []

    def worker(number: int) -> None:
        seen.append(list(bench.applied))
        if number == 4:
            bench.depths["mail"] = 1

    bench.at_look = worker
    bench.give(*[envelope(queue="mail")] * 3, envelope(queue="other"))
    await bench.work()
    assert seen[1:4] == [[0, 1]] * 3, "two find room, the third waits, and so does another queue's"
    assert bench.applied == bench.acked == [0, 1, 2, 3]
    assert bench.dead == []


async def test_a_draining_queue_holds_until_it_is_resumed(bench: Bench) -> None:
    bench.configs["mail"] = ConfigRecord(name="mail", draining=True)
    bench.give(envelope(queue="mail"))
    await bench.work()
    assert bench.applied == bench.acked == bench.dead == []
    assert bench.looks > 3

    def resume(_number: int) -> None:
        bench.configs.clear()

    bench.at_look = resume
    bench.give(envelope(queue="mail"))
    await bench.work()
    assert bench.applied == [1], "the first was taken by the run that was stopped: Kafka has it still"


async def test_reads_that_fail_hold_as_well(bench: Bench) -> None:
    def fail(number: int) -> None:
        if number < 3:
            raise UnavailableError("Redis is away")

    bench.at_look = fail
    bench.give(envelope())
    await bench.work()
    assert bench.applied == bench.acked == [0]


async def test_a_type_that_the_queue_never_takes_is_buried(bench: Bench) -> None:
    bench.configs["mail"] = ConfigRecord(name="mail", allowed_job_types=("email.*",))
    bench.give(envelope(queue="mail"), envelope(queue="mail", type="email.send"))
    await bench.work()
    assert bench.applied == [1]
    assert bench.acked == [0, 1]
    assert [dead["reason"].partition(":")[0] for dead in bench.dead] == ["JOB_TYPE_NOT_ALLOWED"]
