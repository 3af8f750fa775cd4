"""``ojs-stream snapshot``: what it is asked. The work is in ``snapshotting``."""

from __future__ import annotations

from typing import Annotated

import typer

from ojs_stream.cli.place import Place
from ojs_stream.cli.recovery import BROKERS_DEFAULT, REDIS_DEFAULT, Brokers, Namespace, Partition, RedisUrl


def snapshot(
    partition: Partition = None,
    trim: Annotated[
        bool,
        typer.Option(
            "--trim",
            help="Then delete the records of the log before the second newest whole snapshot: for ever.",
        ),
    ] = False,
    redis_url: RedisUrl = REDIS_DEFAULT,
    broker: Brokers = BROKERS_DEFAULT,
    namespace: Namespace = "ojs",
) -> None:
    """Write the state of each partition into the topic NAMESPACE.snapshots, from the last snapshot and the log.

    Workers may go on. They make snapshots by themselves, too (OJS_SNAPSHOT_EVERY, OJS_SNAPSHOT_COMMANDS), and trim
    the log with OJS_LOG_TRIM=1. A partition whose state Redis has lost begins at its newest whole snapshot.

    Two are kept: should the newest be damaged, the older one and the log after it are enough. Without --trim
    nothing is deleted. With it the log alone is no longer enough: a backup of it needs the topic of snapshots.

    A snapshot takes up to twice the memory that the partition has in Redis.

    Exit code 0: done, or nothing new. 2: a partition could not be done; the reason is printed.
    """
    from ojs_stream.cli import snapshotting  # noqa: PLC0415 - keeps --help fast

    raise typer.Exit(snapshotting.run(Place(broker, redis_url, namespace), partition, trim=trim))


def attach(cli: typer.Typer) -> None:
    """Make it a command of ``ojs-stream``."""
    cli.command()(snapshot)
