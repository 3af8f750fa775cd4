"""Long-lived tasks survive what nobody has thought of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from ojs_stream import forever as forever_module
from ojs_stream.agents import engine as engine_module
from ojs_stream.agents.engine import Engine
from ojs_stream.core.world import NumberedEvent
from ojs_stream.forever import forever
from ojs_stream.log import gateway as gateway_module
from ojs_stream.log.gateway import Gateway
from ojs_stream.log.outbox import Lane, Outbox
from ojs_stream.log.producer import Record
from ojs_stream.log.topics import Topics
from ojs_stream.runtime import Runtime
from ojs_stream.settings import Settings

NO_TAILS = dict.fromkeys(("events", "retry", "dead", "commands.dead"), 0)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forever_module, "PAUSE_S", 0.0)


class Step:
    """A step that fails at first; ``done`` is set at its third turn."""

    def __init__(self) -> None:
        self.turns = 0
        self.done = asyncio.Event()

    async def __call__(self, *_: Any) -> Any:
        await asyncio.sleep(0)
        self.turns += 1
        if self.turns < 3:
            raise ZeroDivisionError("boom")
        self.done.set()


@asynccontextmanager
async def _running(task: asyncio.Task[Any]) -> AsyncIterator[None]:
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _survives(step: Step) -> None:
    async with asyncio.timeout(5):
        await step.done.wait()


async def test_what_a_step_raises_is_logged_and_the_next_follows() -> None:
    step = Step()
    with capture_logs() as logs:
        async with _running(asyncio.create_task(forever("some task", step))):
            await _survives(step)
    assert [(entry["task"], entry["log_level"]) for entry in logs] == [("some task", "error")] * 2


async def test_a_cancellation_ends_it() -> None:
    task = asyncio.create_task(forever("some task", asyncio.Event().wait))
    await asyncio.sleep(0)
    task.cancel()
    (ended,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError)


async def test_the_watchdog_and_the_rounds_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "WATCH_S", 0.0)
    engine: Any = Engine(None, None)  # type: ignore[arg-type]
    engine._look, engine._fold_all = Step(), Step()
    engine.owners[0] = type("Live", (), {"live": True, "alarm": lambda *_: engine.wake()})()
    engine.wake()
    engine.start()
    await _survives(engine._look)
    await _survives(engine._fold_all)
    engine.owners.clear()
    await engine.stop()


async def test_the_sweeper_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "SWEEP_S", 0.0)
    gateway: Any = Gateway(instance="w", homes=1, topic="c", producer=None, host=None)  # type: ignore[arg-type]
    gateway._poll = Step()
    future = asyncio.get_running_loop().create_future()
    gateway._submits["w:1"] = gateway_module._Waiting(future, 0, gateway_module.monotonic())
    gateway.start()
    await _survives(gateway._poll)
    gateway.close()


async def test_the_tasks_of_a_worker_go_on() -> None:
    runtime: Any = Runtime(Settings())
    step = Step()
    runtime._spawn_forever(step, "retry-agent")
    await _survives(step)
    for task in list(runtime._tasks):
        task.cancel()


async def test_a_lane_sends_again_what_an_unexpected_error_has_kept_from_the_topic() -> None:
    sent: list[list[int]] = []
    step = Step()

    async def send(batch: list[int]) -> None:
        sent.append(batch)
        await step()

    lane: Lane[int] = Lane("lane", send, lambda _: None)
    lane.start()
    lane.put([1, 2])
    await _survives(step)
    lane.put([3])
    async with asyncio.timeout(5):
        while len(lane):
            await asyncio.sleep(0)
    lane.close()
    assert sent == [[1, 2], [1, 2], [1, 2], [3]]


async def test_a_listener_that_fails_stops_no_events() -> None:
    class Sender:
        def __init__(self) -> None:
            self.sent: list[Sequence[Record]] = []

        async def send_many(
            self, topic: str, partition: int, records: Sequence[Record], *, timeout_s: float
        ) -> int:
            self.sent.append(records)
            return 0

    heard: list[int] = []

    def listen(event: NumberedEvent) -> None:
        heard.append(event.number)
        raise ZeroDivisionError("boom")

    sender = Sender()
    box = Outbox(0, sender=sender, produce=Step(), topics=Topics("ns"), tails=NO_TAILS, on_event=listen)
    box.start()
    box.add([NumberedEvent(number, "job.enqueued", "j", "q", None, b"{}") for number in (1, 2)])
    async with asyncio.timeout(5):
        while len(box.events):
            await asyncio.sleep(0.001)
    box.close()
    assert heard == [1, 2]
    assert [len(records) for records in sender.sent] == [2]
