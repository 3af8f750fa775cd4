"""Snapshots on demand: connects, shows a bar, ends each partition with one line of figures."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from rich.console import Console
from rich.progress import Progress

import ojs_stream
from ojs_stream import stamp
from ojs_stream.cli.connecting import FAILED, KAFKA_WAIT_S, finished, progress_on
from ojs_stream.cli.place import Place
from ojs_stream.cli.recovering import Bar
from ojs_stream.errors import OjsError, SettingsError
from ojs_stream.log.producer import LogProducer
from ojs_stream.log.reader import LogReader
from ojs_stream.log.snapshots import Manifest
from ojs_stream.log.topics import Topics, declare, delete_before, homes_of
from ojs_stream.replay.folding import HomeFold, Tell, fast_folding, tell_nobody
from ojs_stream.replay.snapshotting import Snapshots, Stamps
from ojs_stream.store.connections import open_redis
from ojs_stream.store.unsent import Unsent, unsent_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

NICENESS = 10
"""Everybody else on this machine goes first."""
FLUSH_S = 5.0
MIB = 1024 * 1024


def run(place: Place, partition: int | None, *, trim: bool) -> int:
    """The exit code."""
    os.nice(NICENESS)
    with fast_folding():
        return finished(place, lambda checked, console: _all(checked, console, partition, trim=trim))


async def _all(place: Place, console: Console, partition: int | None, *, trim: bool) -> int:
    async with _connected(place) as tool:
        code = 0
        with progress_on(console) as progress:
            for home in tool.chosen(partition):
                try:
                    print(await tool.make(home, progress))
                    if trim:
                        print(await tool.trim(home))
                except (OjsError, RedisError, OSError, TimeoutError) as error:
                    reason = str(error) or type(error).__name__
                    console.print(
                        f"Partition {home}: {reason}", style="red", markup=False, highlight=False, soft_wrap=True
                    )
                    code = FAILED
    return code


@asynccontextmanager
async def _connected(place: Place) -> AsyncIterator[_Tool]:
    topics = Topics(place.namespace)
    homes = await homes_of(place.brokers, topics, wait_s=KAFKA_WAIT_S)
    # A log of an earlier release has no topic of snapshots yet.
    await declare(place.brokers, topics, partitions=homes, wait_s=KAFKA_WAIT_S)
    redis = open_redis(place.redis_url)
    producer = LogProducer(place.brokers, client_id=f"{place.namespace}-snapshot-{stamp.new_token()}")
    await producer.start()
    try:
        async with LogReader.open(place.brokers) as reader:
            yield _Tool(place, topics, homes, redis, reader, producer)
    finally:
        await producer.stop(FLUSH_S)
        await redis.aclose()


@dataclass(frozen=True, slots=True)
class _Tool:
    """Connected to the log and to Redis."""

    place: Place
    topics: Topics
    homes: int
    redis: Redis
    reader: LogReader
    producer: LogProducer

    def chosen(self, partition: int | None) -> Iterable[int]:
        """The partitions that are meant."""
        if partition is None:
            return range(self.homes)
        if partition >= self.homes:
            raise SettingsError(
                f"--partition is {partition}, but {self.topics.commands} has partitions 0 to {self.homes - 1}."
            )
        return [partition]

    async def make(self, home: int, progress: Progress) -> str:
        """Make a snapshot; what there is to say."""
        began, folded = perf_counter(), 0
        unsent = await self._unsent(home)
        bar = Bar(progress, f"partition {home}", {home: 1 if unsent is None else unsent.applied + 1})

        def tell(fold: HomeFold) -> None:
            nonlocal folded
            folded = fold.commands
            bar.folded(fold)

        made = await self._maker(tell).make(home, unsent, self._stamps())
        if made is None:
            return f"Partition {home}: nothing new since its last snapshot."
        return _figures(made, folded, perf_counter() - began)

    async def trim(self, home: int) -> str:
        """Delete what nobody needs; what there is to say."""
        unsent = await self._unsent(home)
        log_id = "" if unsent is None else unsent.log_id
        offset = await self._maker().superfluous_before(home, log_id)
        if offset is None:
            return f"Partition {home}: nothing was trimmed, two whole snapshots are needed for it."
        topic = self.topics.commands
        begin, _ = await self.reader.bounds(topic, home)
        if offset <= begin:
            return f"Partition {home}: nothing to trim, the log begins at offset {begin}."
        await delete_before(self.place.brokers, topic, home, offset, wait_s=KAFKA_WAIT_S)
        return (
            f"Partition {home}: trimmed, the log begins at offset {offset} now ({offset - begin:,} records less)."
        )

    def _maker(self, tell: Tell = tell_nobody) -> Snapshots:
        return Snapshots(
            reader=self.reader,
            sender=self.producer,
            topics=self.topics,
            namespace=self.place.namespace,
            homes=self.homes,
            tell=tell,
        )

    async def _unsent(self, home: int) -> Unsent | None:
        return await unsent_of(self.redis, self.place.namespace, home)

    @staticmethod
    def _stamps() -> Stamps:
        return Stamps(token=stamp.new_token(4), now_ms=stamp.now_ms(), code=ojs_stream.__version__)


def _figures(made: Manifest, folded: int, seconds: float) -> str:
    return (
        f"Partition {made.home}: snapshot of offset {made.offset}, {made.keys:,} keys, "
        f"{made.bytes / MIB:.1f} MiB in {made.chunks} chunks, {folded:,} commands folded, {seconds:.1f} s."
    )
