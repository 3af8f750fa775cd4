"""The log, the store and the wires between them and the workers, with everything that can go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from random import Random

from msgspec import Struct
from redis.exceptions import ConnectionError as RedisConnectionError

from ojs_stream.core.records import HomeState
from ojs_stream.errors import UnavailableError
from ojs_stream.log.producer import Appended, Record
from ojs_stream.log.reader import LogRecord
from ojs_stream.store.base import Dump, LoadRequest
from ojs_stream.store.commit import Acked, Commit
from tests.simulation.loop import VirtualLoop
from tests.simulation.past import PastStore

NAMESPACE = "sim"
LATE_S = 4.0
VERY_LATE_S = 12.0
"""Long after its client has been told that the outcome is unknown."""


class Faults(Struct):
    """How often a step goes wrong; all 0 once the faults stop."""

    produce: float = 0.0
    commit: float = 0.0
    store: float = 0.0
    read: float = 0.0
    gap: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    reply_lost: float = 0.0
    slow: float = 0.0

    @classmethod
    def drawn(cls, rng: Random) -> Faults:
        """Some kinds of faults, each more or less often."""
        bounds = {
            "produce": 0.08,
            "commit": 0.06,
            "store": 0.03,
            "read": 0.05,
            "gap": 0.08,
            "duplicate": 0.15,
            "delay": 0.05,
            "reply_lost": 0.5,
            "slow": 0.1,
        }
        return cls(**{name: rng.random() * bound if rng.random() < 0.6 else 0.0 for name, bound in bounds.items()})


class Link:
    """One worker's wires. Every step takes time, may be its last, and nothing passes a dead one."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.dead = False
        self.frozen_until = 0.0
        self.steps_left = -1
        self.on_crash: Callable[[], None] = lambda: None

    async def step(self) -> None:
        """One hop over the wire."""
        if self.steps_left > 0:
            self.steps_left -= 1
            if self.steps_left == 0:
                self.on_crash()
        if self.dead:
            raise asyncio.CancelledError
        net = self.net
        wait = net.rng.random() * (0.2 if net.rng.random() < net.faults.slow else 0.002)
        await net.loop.after(wait)
        while self.frozen_until > net.loop.time():
            await asyncio.sleep(min(0.25, self.frozen_until - net.loop.time()))
        if self.dead:
            raise asyncio.CancelledError


class Network:
    """What all workers share: the topics, the store's content, the faults."""

    def __init__(self, rng: Random, loop: VirtualLoop, broker_now: Callable[[], int]) -> None:
        self.rng = rng
        self.loop = loop
        self.faults = Faults()
        self.topics: dict[tuple[str, int], list[LogRecord]] = {}
        self.store = PastStore(NAMESPACE)
        self.outage_until = 0.0
        self.expired: dict[tuple[str, int], int] = {}
        """How many records of a partition its retention has deleted; the audit still sees them."""
        self.committed: dict[int, int] = {}
        """Partition of the bulk topic -> the offset up to which the group has committed it."""
        self.landing_until = 0.0
        """When the last of what lands late has landed."""
        self._broker_now = broker_now
        self._appended: dict[tuple[str, int], asyncio.Event] = {}

    # -- log ----------------------------------------------------------------------------------------------

    def partition(self, topic: str, partition: int) -> list[LogRecord]:
        """All records of a partition."""
        return self.topics.setdefault((topic, partition), [])

    def land(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """The broker has the records; gives the offset of the first."""
        log = self.partition(topic, partition)
        first = len(log)
        for record in records:
            log.append(LogRecord(len(log), self._broker_now(), record.key, record.value, tuple(record.headers)))
        self.appended(topic, partition).set()
        return first

    def land_later(self, wait_s: float, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Nobody knows of it: the broker has the records after a while."""
        self.landing_until = max(self.landing_until, self.loop.time() + wait_s)
        self.loop.call_later(wait_s, self.land, topic, partition, list(records))

    def commit_later(self, wait_s: float, commit: Commit) -> None:
        """Nobody knows of it: Redis gets the commit after a while."""
        self.landing_until = max(self.landing_until, self.loop.time() + wait_s)
        self.loop.call_later(wait_s, self.store.land, commit)

    def expire(self) -> None:
        """The retention of every topic but the commands' has passed."""
        for (topic, partition), log in self.topics.items():
            if topic != f"{NAMESPACE}.commands":
                self.expired[topic, partition] = len(log)

    def appended(self, topic: str, partition: int) -> asyncio.Event:
        """Set when there may be something new."""
        return self._appended.setdefault((topic, partition), asyncio.Event())

    async def produce(self, link: Link, topic: str, partition: int, records: Sequence[Record]) -> int:
        """Append with the fate that the dice say."""
        await link.step()
        if self.outage_until > self.loop.time():
            await self._wait_for_broker(topic, partition, records)
        if self.rng.random() >= self.faults.produce:
            first = self.land(topic, partition, records)
            await link.step()
            return first
        fate = self.rng.choice(("landed", "lost", "late", "part"))
        if fate == "landed":
            self.land(topic, partition, records)
        elif fate == "part":
            self.land(topic, partition, records[: self.rng.randrange(len(records) + 1)])
        elif fate == "late":
            longest = self.rng.choice((LATE_S, LATE_S, VERY_LATE_S))
            self.land_later(self.rng.uniform(0.01, longest), topic, partition, records)
        await asyncio.sleep(self.rng.uniform(0.05, 2.0))
        await link.step()
        raise UnavailableError(f"simulated: the produce {fate}", unknown=True)

    async def _wait_for_broker(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        left = self.outage_until - self.loop.time()
        if self.rng.random() < 0.5:
            await asyncio.sleep(left)
            return
        if self.rng.random() < 0.5:
            self.land_later(left + self.rng.random(), topic, partition, records)
        await asyncio.sleep(left * self.rng.random())
        raise UnavailableError("simulated: the broker is away", unknown=True)

    def bulk_is_done(self) -> bool:
        """Whether the group has committed every record of the bulk topic."""
        logs = ((p, log) for (topic, p), log in self.topics.items() if topic == f"{NAMESPACE}.commands.bulk")
        return all(self.committed.get(partition, 0) == len(log) for partition, log in logs)

    # -- store --------------------------------------------------------------------------------------------

    def wipe(self) -> None:
        """FLUSHALL."""
        self.store.wipe({partition for _, partition in self.topics})

    def roll_back(self, homes: Sequence[int]) -> None:
        """An older state of some homes is restored: often a little older, or any commit there ever was."""
        there = len(self.store.past)
        back = int(there * self.rng.random() ** self.rng.choice((1, 4)))
        self.store.set_back(there - back, homes)


class SimSender:
    """The producer of one worker."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._since: dict[int, float] = {}
        self._numbers = 0

    async def send(
        self,
        topic: str,
        partition: int,
        value: bytes,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        timeout_s: float = 10.0,
    ) -> Appended:
        """See ``Producer``."""
        offset = await self._timed(topic, partition, [Record(key, value, list(headers))])
        return Appended(offset, self._link.net.partition(topic, partition)[offset].timestamp_ms)

    async def send_many(self, topic: str, partition: int, records: Sequence[Record], *, timeout_s: float) -> int:
        """See ``Sender``."""
        return await self._timed(topic, partition, list(records))

    async def _timed(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        self._numbers += 1
        number = self._numbers
        self._since[number] = self._link.net.loop.time()
        try:
            return await self._link.net.produce(self._link, topic, partition, records)
        finally:
            del self._since[number]

    def stalled_s(self) -> float:
        """See ``Producer``."""
        return self._link.net.loop.time() - min(self._since.values(), default=self._link.net.loop.time())


class SimReader:
    """A reader of the log for one worker."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._net = link.net

    @asynccontextmanager
    async def open(self) -> AsyncIterator[SimReader]:
        """See ``LogReader.open``."""
        await self._step()
        yield self

    async def _step(self) -> None:
        await self._link.step()
        if self._net.outage_until > self._net.loop.time() or self._net.rng.random() < self._net.faults.read:
            raise UnavailableError("simulated: the log cannot be read")

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """See ``Reader``."""
        await self._step()
        return 0, len(self._net.partition(topic, partition))

    async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncIterator[list[LogRecord]]:
        """See ``Reader``: in chunks of any size."""
        while start < stop:
            await self._step()
            end = min(stop, start + self._net.rng.randint(1, 40))
            chunk = self._net.partition(topic, partition)[start:end]
            if not chunk:
                return
            yield chunk
            start += len(chunk)

    async def tail_position(self, topic: str, partition: int) -> int:
        """See ``Reader``."""
        await self._step()
        kept = self._net.partition(topic, partition)[self._net.expired.get((topic, partition), 0) :]
        tail = kept[-500:]
        return max((int(dict(record.headers).get("ojs-position", b"0")) for record in tail), default=0)

    async def end_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """See ``EndOffsets``."""
        await self._step()
        return {p: len(self._net.partition(f"{NAMESPACE}.commands", p)) for p in partitions}


class SimStore:
    """The store as one worker reaches it."""

    namespace = NAMESPACE

    def __init__(self, link: Link) -> None:
        self._link = link
        self._net = link.net

    async def _step(self) -> None:
        await self._link.step()
        if self._net.rng.random() < self._net.faults.store:
            raise RedisConnectionError("simulated: Redis does not answer")

    async def position(self, home: int) -> tuple[int | None, HomeState | None]:
        await self._step()
        return await self._net.store.position(home)

    async def applied(self, homes: Sequence[int]) -> list[int | None]:
        await self._step()
        return await self._net.store.applied(homes)

    async def load(self, requests: Sequence[LoadRequest]) -> None:
        await self._step()
        await self._net.store.load(requests)

    async def commit(self, commits: Sequence[Commit]) -> list[Exception | None]:
        await self._link.step()
        if self._net.rng.random() >= self._net.faults.commit:
            results = await self._net.store.commit(commits)
            await self._link.step()
            return results
        for commit in commits:
            fate = self._net.rng.choice(("landed", "lost", "late"))
            if fate == "landed":
                await self._net.store.commit([commit])
            elif fate == "late":
                self._net.commit_later(self._net.rng.uniform(0.01, LATE_S), commit)
        await self._link.step()
        return [UnavailableError("simulated: no answer to the commit", unknown=True) for _ in commits]

    async def clear(self, home: int, expected: int | None) -> None:
        await self._step()
        await self._net.store.clear(home, expected)

    async def acked(self, home: int) -> Acked:
        await self._step()
        return await self._net.store.acked(home)

    async def outbox(self, home: int) -> dict[str, bytes]:
        await self._step()
        return await self._net.store.outbox(home)

    async def ring(self, home: int, first: int, last: int) -> list[tuple[int, bytes]]:
        await self._step()
        return await self._net.store.ring(home, first, last)

    async def earliest(self, home: int, index: str) -> int | None:
        await self._step()
        return await self._net.store.earliest(home, index)

    async def dump(self, home: int) -> Dump:
        return await self._net.store.dump(home)
