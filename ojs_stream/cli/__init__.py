"""The command line: ``ojs-stream dev`` for one machine, ``ojs-stream worker`` for production."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import ojs_stream
from ojs_stream.cli import administer, config, recovery, snapshot

cli = typer.Typer(
    name="ojs-stream",
    help="An Open Job Spec server on Kafka and Redis.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)

Host = Annotated[str, typer.Option(envvar="OJS_HOST", help="Address to listen on.")]
Port = Annotated[int, typer.Option(envvar="OJS_PORT", min=1, max=65535, help="Port to listen on.")]


@cli.command()
def dev(
    host: Host = "127.0.0.1",
    port: Port = 8080,
    data: Annotated[Path, typer.Option(help="Folder for the data of the embedded servers.")] = Path(".ojs"),
    workers: Annotated[int, typer.Option(min=1, max=16, help="Workers, on ports from --port up.")] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Start workers again when the code changes.")] = False,
) -> None:
    """Run everything here; Kafka and Redis are started unless KAFKA_BROKERS and REDIS_URL are set."""
    from ojs_stream.dev.run import DevOptions, run_dev  # noqa: PLC0415 - `worker` needs none of it

    options = DevOptions(host=host, port=port, data=data, workers=workers, reload=reload)
    raise typer.Exit(run_dev(options))


@cli.command()
def worker(
    host: Host = "127.0.0.1",
    port: Port = 8080,
    datadir: Annotated[Path, typer.Option(envvar="OJS_DATADIR", help="Folder for Faust's own files.")] = Path(
        ".ojs/faust"
    ),
    loglevel: Annotated[str, typer.Option(help="crit, error, warn, info or debug.")] = "info",
) -> None:
    """Become one Faust worker; it needs KAFKA_BROKERS and REDIS_URL."""
    from ojs_stream.dev.worker import worker_argv, worker_env  # noqa: PLC0415 - keeps --help fast

    ours = worker_env(host=host, port=port, datadir=datadir)
    config.checked({**os.environ, **ours})
    os.environ.update(ours)
    argv = worker_argv(host=host, port=port, loglevel=loglevel)
    os.execv(sys.executable, argv)  # noqa: S606 - our own interpreter with our own arguments


@cli.command()
def version() -> None:
    """Print the version."""
    print(ojs_stream.__version__)


recovery.attach(cli)
snapshot.attach(cli)
config.attach(cli)
administer.attach(cli)


def main() -> None:
    """Run the command line."""
    cli()
