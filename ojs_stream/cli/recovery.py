"""``ojs-stream replay``, ``verify``, ``rebuild``, ``export`` and ``import``: what they are asked.

The work is in ``recovering`` and ``moving``, which are imported when they are needed: ``--help`` stays fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ojs_stream.cli.place import Place

Brokers = Annotated[
    str, typer.Option("--broker", envvar="KAFKA_BROKERS", help="Kafka brokers, host:port,host:port.")
]
Namespace = Annotated[str, typer.Option(envvar="OJS_NAMESPACE", help="Prefix of topics and keys.")]
Partition = Annotated[
    int | None, typer.Option("--partition", "-p", min=0, help="This partition alone; all of them by default.")
]
RedisUrl = Annotated[str, typer.Argument(envvar="REDIS_URL", help="The Redis with the state.")]
BROKERS_DEFAULT = "localhost:9092"
REDIS_DEFAULT = "redis://localhost:6379/0"


def replay(
    into: Annotated[str, typer.Option("--into", help="URL of the Redis to fill; it must be empty.")],
    partition: Partition = None,
    broker: Brokers = BROKERS_DEFAULT,
    namespace: Namespace = "ojs",
) -> None:
    """Fold the log into an empty Redis: the state of now, without any worker."""
    from ojs_stream.cli import recovering  # noqa: PLC0415 - keeps --help fast

    place = Place(broker, into, namespace)
    raise typer.Exit(recovering.run(place, lambda tool: tool.replay(partition)))


def verify(
    redis_url: RedisUrl = REDIS_DEFAULT,
    other_redis_url: Annotated[str, typer.Argument(help="Compare with this Redis instead of the log.")] = "",
    partition: Partition = None,
    broker: Brokers = BROKERS_DEFAULT,
    namespace: Namespace = "ojs",
) -> None:
    """Compare Redis with the fold of its log (workers may go on), or with another Redis at the same offsets.

    Exit code 0: equal. 1: the first difference is printed. 2: they could not be compared.
    """
    from ojs_stream.cli import recovering  # noqa: PLC0415 - keeps --help fast

    place = Place(broker, redis_url, namespace)
    if other_redis_url:
        raise typer.Exit(recovering.run(place, lambda tool: tool.compare(other_redis_url, partition)))
    raise typer.Exit(recovering.run(place, lambda tool: tool.verify(partition)))


def rebuild(
    partition: Annotated[int, typer.Option("--partition", "-p", min=0, help="Whose state is suspected.")],
    redis_url: RedisUrl = REDIS_DEFAULT,
    broker: Brokers = BROKERS_DEFAULT,
    namespace: Namespace = "ojs",
) -> None:
    """Have a running worker drop a partition's state and fold it again; the others go on, this one answers 503."""
    from ojs_stream.cli import recovering  # noqa: PLC0415 - keeps --help fast

    place = Place(broker, redis_url, namespace)
    raise typer.Exit(recovering.run(place, lambda tool: tool.rebuild(partition)))


def export(
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    redis_url: Annotated[str, typer.Option("--redis", envvar="REDIS_URL", help="The Redis with the state.")] = (
        REDIS_DEFAULT
    ),
    broker: Brokers = BROKERS_DEFAULT,
    namespace: Namespace = "ojs",
) -> None:
    """Write the whole state of a namespace that is at rest into a file: stop its workers first."""
    from ojs_stream.cli import moving  # noqa: PLC0415 - keeps --help fast

    raise typer.Exit(moving.run_export(Place(broker, redis_url, namespace), file))


def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file of `ojs-stream export`.")],
    partitions: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Partitions of the new log; 8 if it is to be made.")
    ] = None,
    broker: Brokers = BROKERS_DEFAULT,
    namespace: Namespace = "ojs",
) -> None:
    """Bring an exported state into an empty namespace, whatever its number of partitions, through its log."""
    from ojs_stream.cli import moving  # noqa: PLC0415 - keeps --help fast

    raise typer.Exit(moving.run_import(Place(broker, REDIS_DEFAULT, namespace), file, partitions))


def attach(cli: typer.Typer) -> None:
    """Make them commands of ``ojs-stream``."""
    for command in (replay, verify, rebuild, export):
        cli.command()(command)
    cli.command("import")(import_)
