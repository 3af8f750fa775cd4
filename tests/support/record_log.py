"""Record a log and the state that it gave: ``python -m tests.support.record_log COMMIT`` (from the root, by hand).

A worker of the code of COMMIT serves ``Everything`` on a Kafka and a Redis of its own. Written to
``tests/data/log-COMMIT/``: ``log.jsonl.gz`` (partition, offset, time, value of every record of ``commands``),
``state.jsonl.gz`` (all that Redis holds of each home) and ``code.tar.xz``. ``test_upgrade.py`` reads them with the
code of today. A recording is never made again: it is what a release has written.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import lzma
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio import Redis

from tests.support.client import Client
from tests.support.everything import QUEUES, Everything, by_hand, pack
from tests.support.recorded import DATA, unpack_code
from tests.support.replay import stored_dumps
from tests.support.servers import ServerHandle, Worker, make_broker, make_redis
from tests.support.stranger import producer_to, read_topic

ROOT = Path(__file__).parents[2]
NAMESPACE = "rec"
PARTITIONS = 3
Note = Callable[[str], None]
Server = TypeVar("Server", bound=ServerHandle)


def pack_code(commit: str, path: Path) -> None:
    """The package as it was at ``commit``, kept with the log: no test depends on a clone's history."""
    argv = ["git", "-C", str(ROOT), "archive", commit, "ojs_stream"]
    path.write_bytes(lzma.compress(subprocess.run(argv, capture_output=True, check=True).stdout, preset=9))


async def record(commit: str, out: Path, note: Note) -> None:
    """Run the code of ``commit``, and write what it leaves."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out.mkdir(parents=True, exist_ok=True)
        pack_code(commit, out / "code.tar.xz")
        code = unpack_code(out, folder / "code")
        async with _running(make_broker(folder)) as broker, _running(make_redis(folder)) as redis:
            worker = Worker(
                folder / "worker",
                brokers=broker.bootstrap,
                redis_url=redis.url,
                namespace=NAMESPACE,
                partitions=PARTITIONS,
                code=code,
            )
            await worker.start()
            note(f"a worker of {commit} serves at {worker.url}")
            await _live_through(worker, broker.bootstrap)
            await worker.terminate()
            await stored_dumps(broker.bootstrap, redis.url, NAMESPACE)
            await _write(out, broker.bootstrap, redis.url, note)


@asynccontextmanager
async def _running(server: Server) -> AsyncIterator[Server]:
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def _live_through(worker: Worker, bootstrap: str) -> None:
    async with Client() as client:
        await Everything(client, worker.url).run()
        waiting = await client.enqueue(worker.url, QUEUES[0])
        async with producer_to(bootstrap) as producer:
            for partition in range(PARTITIONS):
                await producer.send_and_wait(
                    f"{NAMESPACE}.commands", pack(*by_hand(waiting["id"])), partition=partition
                )
            envelope = {"type": "every.bulk", "args": [], "queue": QUEUES[1]}
            await producer.send_and_wait(f"{NAMESPACE}.commands.bulk", json.dumps(envelope).encode(), partition=0)
        await asyncio.sleep(2)


async def _write(out: Path, bootstrap: str, redis_url: str, note: Note) -> None:
    topic = await read_topic(bootstrap, f"{NAMESPACE}.commands")
    lines = [
        {"partition": p, "offset": r.offset, "time": r.timestamp, "value": r.value.decode()}
        for p, records in sorted(topic.items())
        for r in records
    ]
    async with Redis.from_url(redis_url) as redis:
        state = [await _content(redis, home) for home in range(PARTITIONS)]
    _pack_lines(out / "log.jsonl.gz", lines)
    _pack_lines(out / "state.jsonl.gz", state)
    kinds = {c["kind"] for line in lines for c in json.loads(line["value"])["commands"]}
    sizes = ", ".join(f"{path.name} {path.stat().st_size} bytes" for path in sorted(out.iterdir()))
    note(f"{len(lines)} records, {len(kinds)} kinds of commands, {sizes}")


async def _content(redis: Redis, home: int) -> dict[str, Any]:
    """Every key of a home but outcomes (these expire), by name without its prefix."""
    prefix = f"{{{NAMESPACE}:{home}}}:"
    found: dict[str, Any] = {}
    async for name in redis.scan_iter(match=prefix + "*"):
        short = name.decode().removeprefix(prefix)
        if not short.startswith("outcome:"):
            found[short] = await _value(redis, name)
    return dict(sorted(found.items()))


async def _value(redis: Any, name: bytes) -> Any:
    kind = await redis.type(name)
    if kind == b"string":
        return (await redis.get(name)).decode()
    if kind == b"hash":
        return {"hash": {k.decode(): v.decode() for k, v in sorted((await redis.hgetall(name)).items())}}
    return {"zset": {m.decode(): int(s) for m, s in await redis.zrange(name, 0, -1, withscores=True)}}


def _pack_lines(path: Path, lines: Iterable[Any]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit")
    commit = parser.parse_args().commit
    out = DATA / f"log-{commit}"
    asyncio.run(record(commit, out, lambda text: sys.stdout.write(text + "\n")))


if __name__ == "__main__":
    main()
