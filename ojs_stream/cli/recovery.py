"""``ojs-stream replay``, ``verify`` and ``rebuild``: what they are asked. The work is in ``recovering``."""

from __future__ import annotations

from typing import Annotated

import typer

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

    place = recovering.Place(broker, into, namespace)
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

    place = recovering.Place(broker, redis_url, namespace)
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

    place = recovering.Place(broker, redis_url, namespace)
    raise typer.Exit(recovering.run(place, lambda tool: tool.rebuild(partition)))


def attach(cli: typer.Typer) -> None:
    """Make them commands of ``ojs-stream``."""
    for command in (replay, verify, rebuild):
        cli.command()(command)
