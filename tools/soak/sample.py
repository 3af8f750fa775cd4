"""What is looked at every few seconds: memory and files of the workers, and what Redis holds, by kind of key."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio

from tools.bench.asker import Asker

SCAN_COUNT = 1_000
SIZED_KEYS_MAX = 200
"""Keys of a kind whose size is asked for: of indexes these are all, of records some."""
LOOKS = 3
RING = "events"
RING_SAMPLES = 50
"""Events of a ring whose size is taken for that of all of them."""
MIB = 1024 * 1024
_NAMED = frozenset({"due", "state"})
_HOME = re.compile(r"\{[^}]*\}:")
_SIZE_OF = {"string": "STRLEN", "zset": "ZCARD", "hash": "HLEN", "set": "SCARD", "list": "LLEN"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Keys whose names differ in ids only."""

    keys: int
    type: str
    largest: int
    """Bytes of a string, elements of anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look."""

    at_s: float
    rss_mib: dict[str, float]
    fds: dict[str, int]
    loop_wait_ms: dict[str, float]
    """The slowest of a few answers that ask nothing of Kafka and Redis: how long a worker's loop is busy."""
    redis_mib: float
    """Without the rings of events, which fill up to their 10,000 events a home and stay so."""
    kinds: dict[str, Kind]
    load: dict[str, Any] = field(default_factory=dict)


def kind_of(name: str) -> str:
    """The name without namespace, home and ids: ``{ojs:3}:state:mail:active`` is ``state:*:active``."""
    words = _HOME.sub("", name).split(":")
    if words[0] == "state":
        return f"state:*:{words[-1]}"
    if words[0] in _NAMED or len(words) == 1:
        return ":".join(words)
    return f"{words[0]}:*"


def rss_mib(pid: int) -> float:
    """Resident memory of a process (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def open_files(pid: int) -> int:
    """File descriptors of a process (Linux)."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


class Looker:
    """Looks at the same processes and the same Redis again and again."""

    def __init__(self, pids: dict[str, int], ports: dict[str, int], redis_url: str) -> None:
        self._pids = pids
        self._askers = {name: Asker(port) for name, port in ports.items()}
        self._redis = redis.asyncio.Redis.from_url(redis_url)
        self._types: dict[str, str] = {}
        self._rings: list[bytes] = []

    async def look(self, at_s: float, load: dict[str, Any]) -> Sample:
        """One sample."""
        return Sample(
            at_s=at_s,
            rss_mib={name: rss_mib(pid) for name, pid in self._pids.items()},
            fds={name: open_files(pid) for name, pid in self._pids.items()},
            loop_wait_ms={name: await self._loop_wait_ms(asker) for name, asker in self._askers.items()},
            kinds=await self.kinds(),
            redis_mib=await self._used_mib(),
            load=load,
        )

    async def close(self) -> None:
        """Disconnect."""
        for asker in self._askers.values():
            asker.close()
        await self._redis.aclose()

    async def kinds(self) -> dict[str, Kind]:
        """All keys, by kind."""
        counts: Counter[str] = Counter()
        some: defaultdict[str, list[bytes]] = defaultdict(list)
        async for key in self._redis.scan_iter(count=SCAN_COUNT):
            kind = kind_of(key.decode())
            counts[kind] += 1
            if len(some[kind]) < SIZED_KEYS_MAX:
                some[kind].append(key)
        self._rings = some.get(RING, [])
        return {kind: await self._kind(kind, counts[kind], keys) for kind, keys in sorted(some.items())}

    async def _kind(self, kind: str, count: int, keys: Sequence[bytes]) -> Kind:
        if kind not in self._types or self._types[kind] == "none":
            found: Any = await self._redis.type(keys[0])
            self._types[kind] = found.decode()
        pipe = self._redis.pipeline(transaction=False)
        for key in keys:
            pipe.execute_command(_SIZE_OF.get(self._types[kind], "STRLEN"), key)
        sizes = await pipe.execute(raise_on_error=False)
        largest = max((size for size in sizes if isinstance(size, int)), default=0)
        return Kind(keys=count, type=self._types[kind], largest=largest)

    async def _used_mib(self) -> float:
        info: dict[str, Any] = await self._redis.info("memory")
        rings = [await self._redis.memory_usage(key, samples=RING_SAMPLES) for key in self._rings]
        return (float(info["used_memory"]) - sum(size or 0 for size in rings)) / MIB

    @staticmethod
    async def _loop_wait_ms(asker: Asker) -> float:
        longest = 0.0
        for _ in range(LOOKS):
            said = await asker.get("/livez")
            longest = max(longest, said.took_s * 1000)
            await asyncio.sleep(0.01)
        return longest
