"""Recovery as a tool: connects, shows a bar, ends with one line of figures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace as replaced
from time import perf_counter

from rich.console import Console
from rich.progress import Progress

from ojs_stream.cli.connecting import FAILED as FAILED
from ojs_stream.cli.connecting import KAFKA_WAIT_S as KAFKA_WAIT_S
from ojs_stream.cli.connecting import finished, progress_on
from ojs_stream.cli.place import Place as Place
from ojs_stream.errors import SettingsError
from ojs_stream.log.reader import LogReader
from ojs_stream.log.topics import Topics, homes_of
from ojs_stream.replay.folding import HomeFold, fast_folding
from ojs_stream.replay.rebuilding import replay
from ojs_stream.replay.restarting import rebuild
from ojs_stream.replay.verifying import Difference, compare_stores, verify_home
from ojs_stream.store.connections import open_redis
from ojs_stream.store.redis import RedisStore

DIFFERENT = 1
"""Exit code: what was compared is not equal."""


def run(place: Place, work: Callable[[Tool], Awaitable[int]]) -> int:
    """The exit code of ``work``."""
    with fast_folding():
        return finished(place, lambda checked, console: _with_tool(checked, console, work))


async def _with_tool(place: Place, console: Console, work: Callable[[Tool], Awaitable[int]]) -> int:
    redis = open_redis(place.redis_url)
    try:
        async with LogReader.open(place.brokers) as reader:
            homes = await homes_of(place.brokers, Topics(place.namespace), wait_s=KAFKA_WAIT_S)
            return await work(Tool(place, console, reader, RedisStore(redis, place.namespace), homes))
    finally:
        await redis.aclose()


class Bar:
    """How far a tool is, by home."""

    def __init__(self, progress: Progress, what: str, totals: Mapping[int, int]) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=sum(totals.values()))
        self._totals = totals
        self._done = dict.fromkeys(totals, 0)
        self._commands = dict.fromkeys(totals, 0)
        self._began = perf_counter()

    def folded(self, fold: HomeFold) -> None:
        """A step of a fold is done."""
        self._commands[fold.home] = fold.commands
        self.reached(fold.home, fold.next)

    def reached(self, home: int, offset: int) -> None:
        """A home is as far as this."""
        self._done[home] = min(offset, self._totals[home])
        self._progress.update(self._task, completed=sum(self._done.values()))

    def figures(self) -> str:
        """What was done in which time."""
        seconds = perf_counter() - self._began
        commands = sum(self._commands.values())
        if not commands:
            return f"{seconds:.1f} s"
        records = sum(self._done.values())
        rate = commands / seconds
        return f"{commands:,} commands of {records:,} records in {seconds:.1f} s, {rate:,.0f} commands/s"


class Tool:
    """Connected to the log and to a Redis."""

    def __init__(self, place: Place, console: Console, reader: LogReader, store: RedisStore, homes: int) -> None:
        self._place = place
        self._console = console
        self._reader = reader
        self._store = store
        self._topics = Topics(place.namespace)
        self._homes = homes

    async def replay(self, partition: int | None) -> int:
        """Fill an empty Redis."""
        chosen = self._chosen(partition)
        with self._bar("replay", await self._ends(chosen)) as bar:
            await replay(self._reader, self._store, self._topics, chosen, homes=self._homes, tell=bar.folded)
        self._say(f"Rebuilt {_partitions(chosen)}: {bar.figures()}.")
        return 0

    async def verify(self, partition: int | None) -> int:
        """Compare with the log."""
        chosen = self._chosen(partition)
        with self._bar("verify", await self._ends(chosen)) as bar:

            async def look(home: int) -> Difference | None:
                return await verify_home(
                    self._reader, self._store, self._topics, home, homes=self._homes, tell=bar.folded
                )

            found = await _first(look, chosen)
        return self._judged(found, "the fold of the log", f"Equal, {_partitions(chosen)}: {bar.figures()}.")

    async def compare(self, other_url: str, partition: int | None) -> int:
        """Compare with another Redis."""
        chosen = self._chosen(partition)
        redis = open_redis(replaced(self._place, redis_url=other_url).checked().redis_url)
        other = RedisStore(redis, self._place.namespace)
        try:
            with self._bar("verify", dict.fromkeys(chosen, 1)) as bar:

                async def look(home: int) -> Difference | None:
                    found = await compare_stores(self._store, other, home)
                    bar.reached(home, 1)
                    return found

                found = await _first(look, chosen)
        finally:
            await redis.aclose()
        return self._judged(found, "the other Redis", f"Equal, {_partitions(chosen)}: {bar.figures()}.")

    async def rebuild(self, partition: int) -> int:
        """Let the owner fold a partition anew."""
        chosen = self._chosen(partition)
        with self._bar("rebuild", await self._ends(chosen)) as bar:
            applied = await rebuild(
                self._reader, self._store, self._topics, partition, homes=self._homes, tell=bar.reached
            )
        self._say(f"Partition {partition} is live again, offset {applied} is applied: {bar.figures()}.")
        return 0

    def _chosen(self, partition: int | None) -> list[int]:
        if partition is None:
            return list(range(self._homes))
        if partition >= self._homes:
            raise SettingsError(
                f"--partition is {partition}, but {self._topics.commands} has partitions 0 to {self._homes - 1}."
            )
        return [partition]

    async def _ends(self, chosen: Iterable[int]) -> dict[int, int]:
        return {home: (await self._reader.bounds(self._topics.commands, home))[1] for home in chosen}

    @contextmanager
    def _bar(self, what: str, totals: Mapping[int, int]) -> Iterator[Bar]:
        with progress_on(self._console) as progress:
            yield Bar(progress, what, totals)

    def _judged(self, found: Difference | None, other: str, equal: str) -> int:
        if found is None:
            self._say(equal)
            return 0
        field = f", field {found.field}" if found.field else ""
        self._say(
            f"Partition {found.home}, key {found.key}{field}:\n  Redis: {found.one}\n  {other}: {found.other}"
        )
        return DIFFERENT

    @staticmethod
    def _say(text: str) -> None:
        print(text)


async def _first(look: Callable[[int], Awaitable[Difference | None]], chosen: Iterable[int]) -> Difference | None:
    for home in chosen:
        found = await look(home)
        if found is not None:
            return found
    return None


def _partitions(chosen: Sequence[int]) -> str:
    return f"partition {chosen[0]}" if len(chosen) == 1 else f"{len(chosen)} partitions"
