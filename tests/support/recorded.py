"""What earlier states of the code have left under ``tests/data``: their logs, what Redis held, and themselves."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import Struct

from ojs_stream.core.records import HomeState, decode_record, stored_json
from ojs_stream.log.reader import LogRecord
from ojs_stream.replay.verifying import without_statistics
from ojs_stream.store import keys
from ojs_stream.store.base import Dump, is_state

if TYPE_CHECKING:
    from redis.asyncio import Redis

DATA = Path(__file__).parents[1] / "data"
RECORDINGS = sorted(path.name for path in DATA.glob("log-*"))


class Recording(Struct):
    """A log and the state that it gave, by home."""

    logs: list[list[LogRecord]]
    states: list[dict[str, Any]]
    """Key without its prefix -> text, or ``{"hash": {...}}``, or ``{"zset": {...}}``."""

    @classmethod
    def read(cls, name: str) -> Recording:
        """The recording in the folder ``name``."""
        states = _lines(DATA / name / "state.jsonl.gz")
        logs: list[list[LogRecord]] = [[] for _ in states]
        for line in _lines(DATA / name / "log.jsonl.gz"):
            record = LogRecord(line["offset"], line["time"], None, line["value"].encode(), ())
            logs[line["partition"]].append(record)
        return cls(logs, states)

    def dump(self, home: int) -> Dump:
        """The state of a home as ``Store.dump`` gives it."""
        return {name: _content(value) for name, value in self.states[home].items() if is_state(name)}


async def load(redis: Redis, namespace: str, recording: Recording) -> None:
    """Put the recorded state of every home into Redis, as it was but for the namespace."""
    for home, state in enumerate(recording.states):
        for name, value in state.items():
            key = keys.home_prefix(namespace, home) + name
            if isinstance(value, str):
                await redis.set(key, value)
            elif "zset" in value:
                await redis.zadd(key, value["zset"])
            else:
                await cast("Awaitable[int]", redis.hset(key, mapping=value["hash"]))


def unpack_code(recording: Path, folder: Path) -> Path:
    """The package as it was then, in ``folder``."""
    with tarfile.open(recording / "code.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def in_todays_words(dump: Dump) -> Dump:
    """The same content as today's code writes it: how a record is encoded may change, what it says may not.

    Without statistics: each release may count more than the one before.
    """
    return {name: _in_todays_words(name, content) for name, content in without_statistics(dump).items()}


def _in_todays_words(name: str, content: Any) -> Any:
    if isinstance(content, dict):
        return {key: json.loads(value) if isinstance(value, bytes) else value for key, value in content.items()}
    if name == "applied":
        return int(content)
    if name == "home":
        return msgspec.json.decode(content, type=HomeState)
    return stored_json(decode_record(tuple(name.split(":", 1)), content))


def _content(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode()
    if "zset" in value:
        return value["zset"]
    return {field: text.encode() for field, text in value["hash"].items()}


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().split("\n") if line]
