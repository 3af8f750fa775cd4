"""A home's content as a stream of bytes, and back into a store.

Parts (a key, or some members of a large one) are framed, compressed, and cut into chunks of bounded size: neither
a large job nor a large index makes a large record. What comes back is written in bounded commits, ``applied``
last.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from ojs_stream.errors import SnapshotDamagedError
from ojs_stream.store import keys
from ojs_stream.store.base import Dump, Store
from ojs_stream.store.commit import Commit

CHUNK_BYTES_MAX = 256 * 1024
"""Unpacking a chunk holds up the other homes of a worker for about 10 ms."""
PART_MEMBERS_MAX = 1_000
"""Members of an index or fields of a hash in one part."""
INFLATE_BYTES_MAX = 1024 * 1024
"""So much is unpacked at a time, however well it was compressed."""
LOAD_BYTES_MAX = 512 * 1024
LOAD_VALUES_MAX = 2_000
"""A commit of a load holds up Redis for about 2 ms."""
COMPRESSION = 1
_LENGTH_BYTES = 4


class Text(Struct, frozen=True, array_like=True, tag=0):
    """A string key."""

    name: str
    value: bytes


class Fields(Struct, frozen=True, array_like=True, tag=1):
    """Fields of a hash."""

    name: str
    values: dict[str, bytes]


class Scores(Struct, frozen=True, array_like=True, tag=2):
    """Members of an index."""

    name: str
    values: dict[str, int]


Part = Text | Fields | Scores
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Part] = msgspec.msgpack.Decoder(Part)


# -- a dump as chunks -------------------------------------------------------------------------------------


def parts_of(content: Dump) -> Iterator[Part]:
    """The content in bounded parts."""
    for name, value in content.items():
        if isinstance(value, dict):
            kind: type[Fields | Scores] = Scores if isinstance(next(iter(value.values())), int) else Fields
            for some in _portions(value):
                yield kind(name, some)
        else:
            yield Text(name, value)


def _portions(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    pairs = iter(values.items())
    while some := dict(itertools.islice(pairs, PART_MEMBERS_MAX)):
        yield some


def chunks_of(parts: Iterable[Part], *, chunk_bytes: int = CHUNK_BYTES_MAX) -> Iterator[bytes]:
    """The parts as one compressed stream, cut into chunks of ``chunk_bytes`` (the last one is shorter)."""
    deflate = zlib.compressobj(COMPRESSION)
    waiting = bytearray()
    for part in parts:
        waiting += deflate.compress(_framed(part))
        while len(waiting) >= chunk_bytes:
            yield bytes(waiting[:chunk_bytes])
            del waiting[:chunk_bytes]
    waiting += deflate.flush()
    for start in range(0, len(waiting), chunk_bytes):
        yield bytes(waiting[start : start + chunk_bytes])


def _framed(part: Part) -> bytes:
    data = _encoder.encode(part)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


# -- chunks as parts --------------------------------------------------------------------------------------


class Unpacking:
    """Chunks in order, parts out. What cannot be unpacked raises ``SnapshotDamagedError``."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj()
        self._waiting = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Part]:
        """The parts that are complete with this chunk."""
        while chunk:
            try:
                self._waiting += self._inflate.decompress(chunk, INFLATE_BYTES_MAX)
            except zlib.error as error:
                raise SnapshotDamagedError(f"a chunk cannot be unpacked: {error}") from error
            chunk = self._inflate.unconsumed_tail
            yield from self._complete()

    def _complete(self) -> Iterator[Part]:
        start, waiting = 0, memoryview(self._waiting)
        try:
            while (end := _end_of_frame(waiting, start)) <= len(waiting):
                yield _decoded(waiting[start + _LENGTH_BYTES : end])
                start = end
        finally:
            waiting.release()
            del self._waiting[:start]

    def finish(self) -> None:
        """All chunks were fed: nothing may be left, and the stream must have ended."""
        if self._waiting or not self._inflate.eof:
            raise SnapshotDamagedError("the stream of its chunks does not end where it should")


def _end_of_frame(waiting: memoryview, start: int) -> int:
    """Where the frame ends that begins at ``start``; beyond the end when that is not known yet."""
    body = start + _LENGTH_BYTES
    if body > len(waiting):
        return body
    return body + int.from_bytes(waiting[start:body], "big")


def _decoded(frame: memoryview) -> Part:
    try:
        return _decoder.decode(frame)
    except msgspec.MsgspecError as error:
        raise SnapshotDamagedError(f"a part of it cannot be read: {error}") from error


# -- into a store -----------------------------------------------------------------------------------------


def claim_of(dice: int) -> int:
    """What stands for ``applied`` while a home is loaded: below every offset, and different every time."""
    return -2 - dice


async def load_parts(
    store: Store, home: int, parts: AsyncIterator[Part], *, namespace: str, expected: int | None, claim: int
) -> None:
    """Replace all of a home by ``parts``; ``FencedError`` when somebody else writes it.

    While it lasts ``applied`` is the ``claim``: readers see a home that is behind, another loader is fenced, and
    who finds it after a crash knows that the content is not whole. The last write has state and position.
    """
    await store.clear(home, expected)
    applied = keys.applied(namespace, home)
    await _insist(store, Commit(home=home, expected=None, strings={applied: b"%d" % claim}))
    load = _Load(home, namespace, claim)
    async for part in parts:
        if commit := load.add(part):
            await _insist(store, commit)
    await _insist(store, load.last())


async def _insist(store: Store, commit: Commit) -> None:
    (error,) = await store.commit([commit])
    if error is not None:
        raise error


class _Load:
    """Parts on their way into commits of bounded size."""

    def __init__(self, home: int, namespace: str, claim: int) -> None:
        self._home = home
        self._prefix = keys.home_prefix(namespace, home)
        self._claim = claim
        self._last: dict[str, bytes | None] = {}
        self._renew()

    def _renew(self) -> None:
        self._commit = Commit(home=self._home, expected=self._claim)
        self._bytes = self._values = 0

    def add(self, part: Part) -> Commit | None:
        """Take a part; a commit when there is enough for one."""
        name = self._prefix + part.name
        if isinstance(part, Text):
            # State and position say that the rest is there.
            target = self._last if part.name in ("home", "applied") else self._commit.strings
            target[name] = part.value
            self._count(1, len(part.value))
        elif isinstance(part, Fields):
            self._commit.hashes.setdefault(name, {}).update(part.values)
            self._count(len(part.values), sum(map(len, part.values.values())))
        else:
            self._commit.zsets.setdefault(name, {}).update(part.values)
            self._count(len(part.values), 0)
        return self._full() if self._bytes > LOAD_BYTES_MAX or self._values > LOAD_VALUES_MAX else None

    def _count(self, values: int, size: int) -> None:
        self._values += values
        self._bytes += size

    def _full(self) -> Commit:
        commit = self._commit
        self._renew()
        return commit

    def last(self) -> Commit:
        """What is left, with what makes the home whole."""
        if len(self._last) != len(("home", "applied")):
            raise SnapshotDamagedError("it has no state or no position")
        commit = self._full()
        commit.strings.update(sorted(self._last.items(), key=lambda item: item[0].endswith(":applied")))
        return commit
