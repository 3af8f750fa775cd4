"""A namespace into a file and out of it: connects, shows a bar, ends with one line of figures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from time import perf_counter

from rich.console import Console

from ojs_stream import stamp
from ojs_stream.cli.connecting import KAFKA_WAIT_S, finished, progress_on
from ojs_stream.cli.place import Place
from ojs_stream.log.producer import LogProducer
from ojs_stream.log.reader import LogReader
from ojs_stream.log.topics import Topics, declare, homes_of
from ojs_stream.replay.folding import fast_folding
from ojs_stream.store.connections import open_redis
from ojs_stream.store.redis import RedisStore
from ojs_stream.transfer.exporting import Source, export
from ojs_stream.transfer.importing import Target, import_file

STOP_S = 5.0


def run_export(place: Place, path: Path) -> int:
    """The exit code of an export to ``path``."""
    return finished(place, partial(_export, path=path))


async def _export(place: Place, console: Console, *, path: Path) -> int:
    began, redis, topics = perf_counter(), open_redis(place.redis_url), Topics(place.namespace)
    try:
        async with LogReader.open(place.brokers) as reader:
            homes = await homes_of(place.brokers, topics, wait_s=KAFKA_WAIT_S)
            source = Source(RedisStore(redis, place.namespace), reader, topics.commands, homes)
            with progress_on(console) as bar:
                task = bar.add_task("export", total=None)
                records, header = await export(
                    source, path, tell=lambda done, total: bar.update(task, completed=done, total=total)
                )
    finally:
        await redis.aclose()
    print(f"Exported {records:,} records of {header.homes} partitions to {path}: {_pace(records, began)}.")
    return 0


def run_import(place: Place, path: Path, partitions: int | None) -> int:
    """The exit code of an import from ``path``."""
    with fast_folding():
        return finished(place, partial(_import, path=path, partitions=partitions))


async def _import(place: Place, console: Console, *, path: Path, partitions: int | None) -> int:
    began, topics = perf_counter(), Topics(place.namespace)
    homes = await declare(place.brokers, topics, partitions=partitions, wait_s=KAFKA_WAIT_S)
    producer = LogProducer(place.brokers, client_id=f"{place.namespace}-import-{stamp.new_token()}")
    await producer.start()
    try:
        async with LogReader.open(place.brokers) as reader:
            target = Target(producer, reader, topics.commands, homes)
            with progress_on(console) as bar:
                task = bar.add_task("import", total=None)
                done = await import_file(
                    path, target, tell=lambda count, total: bar.update(task, completed=count, total=total)
                )
    finally:
        await producer.stop(STOP_S)
    print(
        f"Imported {done.records:,} records of {done.header.homes} partitions into {homes} as {done.written:,}: "
        f"{_pace(done.records, began)}."
    )
    return 0


def _pace(records: int, began: float) -> str:
    seconds = perf_counter() - began
    return f"{seconds:.1f} s, {records / seconds:,.0f} records/s"
