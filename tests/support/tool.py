"""The command line of the server, in processes of its own."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

from tests.support.servers import BrokerHandle, RedisHandle, clean_env


@dataclass(frozen=True)
class Ended:
    """What a command has said; lines of a terminal are joined."""

    code: int | None
    out: str
    err: str


class Tool:
    def __init__(self, kafka: BrokerHandle, namespace: str) -> None:
        self._env = {**clean_env(), "KAFKA_BROKERS": kafka.bootstrap, "OJS_NAMESPACE": namespace}

    async def __call__(self, *words: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ojs_stream.cli",
            *words,
            env=self._env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return Ended(process.returncode, out.decode(), " ".join(err.decode().split()))


def database(server: RedisHandle, number: int) -> str:
    """One of the databases of a Redis."""
    return f"{server.url.rpartition('/')[0]}/{number}" if server.url.count("/") > 2 else f"{server.url}/{number}"
