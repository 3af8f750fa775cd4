"""The retry agent: in time, in packs, and nothing that somebody else does already."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import msgspec

from ojs_stream import stamp
from ojs_stream.agents.retry import OVERDUE_MS_MAX, PACK_COMMANDS_MAX, RetryAgent
from ojs_stream.core.commands import Promote
from ojs_stream.core.outcomes import Outcome

MINUTE_MS = 60_000


class Log:
    """Takes packs as the gateway does, one turn of the loop each."""

    def __init__(self) -> None:
        self.packs: list[tuple[int, list[str]]] = []
        self.flying: dict[int, int] = {}
        self.together_max = 0
        self.failures: list[Exception] = []

    async def submit_pack(self, home: int, commands: Sequence[Promote]) -> list[Outcome]:
        self.flying[home] = self.flying.get(home, 0) + 1
        self.together_max = max(self.together_max, *self.flying.values())
        await asyncio.sleep(0)
        self.flying[home] -= 1
        if self.failures:
            raise self.failures.pop()
        self.packs.append((home, [command.job_id for command in commands]))
        return [Outcome() for _ in commands]

    def jobs(self, home: int) -> list[str]:
        return [job_id for at, pack in self.packs if at == home for job_id in pack]


def offer(agent: RetryAgent, home: int, names: Iterable[str], due: int) -> None:
    for name in names:
        record = {"job_id": name, "attempt": 1, "not_before_ms": due}
        agent.offer(home, msgspec.json.encode(record))


async def run_until(agent: RetryAgent, done: Callable[[], bool]) -> None:
    running = asyncio.create_task(agent.run())
    async with asyncio.timeout(10):
        while not done():
            await asyncio.sleep(0.001)
    running.cancel()


async def test_what_is_due_at_once_goes_out_in_packs_one_at_a_time() -> None:
    log = Log()
    agent = RetryAgent(log.submit_pack)
    names = [f"j{n:04}" for n in range(1_000)]
    for home in (0, 1):
        offer(agent, home, names, stamp.now_ms())
    await run_until(agent, lambda: len(log.jobs(0)) + len(log.jobs(1)) == 2_000)
    assert log.jobs(0) == log.jobs(1) == names
    assert max(len(pack) for _, pack in log.packs) == PACK_COMMANDS_MAX
    assert len(log.packs) == 2 * 4
    assert log.together_max == 1


async def test_long_overdue_records_are_left_to_the_scheduler() -> None:
    log = Log()
    agent = RetryAgent(log.submit_pack)
    now = stamp.now_ms()
    offer(agent, 0, [f"old{n}" for n in range(1_000)], now - MINUTE_MS)
    offer(agent, 0, ["late"], now - OVERDUE_MS_MAX // 2)
    await run_until(agent, lambda: bool(log.packs))
    assert log.jobs(0) == ["late"]
    assert agent.skipped == 1_000


async def test_a_failing_pack_stops_neither_the_next_nor_other_homes() -> None:
    log = Log()
    log.failures = [ValueError("a bug")]
    agent = RetryAgent(log.submit_pack)
    offer(agent, 0, [f"j{n:04}" for n in range(PACK_COMMANDS_MAX + 1)], stamp.now_ms())
    offer(agent, 1, ["other"], stamp.now_ms())
    await run_until(agent, lambda: len(log.packs) == 2)
    assert log.jobs(0) == [f"j{PACK_COMMANDS_MAX:04}"]
    assert log.jobs(1) == ["other"]


async def test_nothing_is_promoted_before_it_is_due() -> None:
    log = Log()
    agent = RetryAgent(log.submit_pack)
    offer(agent, 0, ["later"], stamp.now_ms() + MINUTE_MS)
    offer(agent, 0, ["soon"], due := stamp.now_ms() + 20)
    await run_until(agent, lambda: bool(log.packs))
    assert stamp.now_ms() >= due
    assert log.jobs(0) == ["soon"]
