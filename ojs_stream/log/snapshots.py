"""The topic of snapshots: partition = home, chunks first, a manifest last (ADR 13).

A snapshot counts from its manifest on. Every chunk has a checksum, the manifest has their number and the checksum
of all. Keys are ``<id>:<chunk number>`` and ``<id>:manifest``: a superseded snapshot leaves by tombstones for each
of them, and compaction takes the rest. Two writers cannot mix: an id is made of offset and dice.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct, field

from ojs_stream.errors import LogRefusedError, SnapshotDamagedError
from ojs_stream.log.producer import Record
from ojs_stream.log.reader import LogRecord

SNAPSHOT_VERSION = 1
KEPT = 2
"""So many whole snapshots of a home stay: the older one is for when the newer one turns out damaged."""
UNFINISHED_KEEP_MS = 3_600_000
"""Chunks without a manifest may be of a snapshot that is being written; after so long they are not."""
SEND_TIMEOUT_S = 30.0
TOMBSTONES_MAX = 1_000
"""Tombstones sent at once."""
LOOK_FIRST_RECORDS = 1
LOOK_RECORDS_MAX = 512
LOOK_GROWTH = 8
"""The last record is a manifest, as a rule; the windows of a look backwards grow up to so many."""
CHECKSUM_HEADER = "ojs-checksum"
_MANIFEST = b"manifest"
_encoder = msgspec.json.Encoder()


class Manifest(Struct, frozen=True, kw_only=True):
    """What a snapshot is. It is written last: without it there is none."""

    v: int = SNAPSHOT_VERSION
    id: str
    home: int
    homes: int
    log_id: str
    """Of which log it is the fold: also the identity of a log whose beginning is gone."""
    offset: int
    """The last offset that it has folded."""
    first: int
    """No chunk stands before this offset of the snapshot topic."""
    chunks: int
    bytes: int
    keys: int
    checksum: str
    """SHA-256 of all chunks."""
    code: str
    """The version of ojs-stream that made it."""
    made_ms: int


class Found(Struct, frozen=True):
    """A manifest and its place in the topic."""

    manifest: Manifest
    place: int


_decoder = msgspec.json.Decoder(Manifest)


class Sender(Protocol):
    """The part of the producer that a writer needs."""

    async def send_many(self, topic: str, partition: int, records: Sequence[Record], *, timeout_s: float) -> int:
        """Append in order and wait for the acknowledgements."""


class Reader(Protocol):
    """The part of the log reader that is needed here."""

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset still there, and the offset after the last."""

    def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncIterator[list[LogRecord]]:
        """Records from ``start`` up to ``stop`` (exclusive)."""


# -- looking ----------------------------------------------------------------------------------------------


async def newest(reader: Reader, topic: str, home: int, *, limit: int) -> list[Found]:
    """The manifests of the newest snapshots, the newest first; hardly any chunks are read.

    ``limit`` is how many are enough. Snapshots that were buried and manifests of later releases are left out.
    """
    begin, stop = await reader.bounds(topic, home)
    found: list[Found] = []
    buried: set[bytes] = set()
    window = LOOK_FIRST_RECORDS
    while stop > begin and len(found) < limit:
        start = max(begin, stop - window)
        seen = await _manifests_in(reader, topic, home, start, stop, buried)
        found += seen
        stop = min([start, *(max(begin, each.manifest.first) for each in seen)])
        window = LOOK_FIRST_RECORDS if seen else min(window * LOOK_GROWTH, LOOK_RECORDS_MAX)
    return sorted(found, key=lambda each: (each.manifest.offset, each.place), reverse=True)[:limit]


async def _manifests_in(
    reader: Reader, topic: str, home: int, start: int, stop: int, buried: set[bytes]
) -> list[Found]:
    records = [
        record
        async for step in reader.read(topic, home, start, stop)
        for record in step
        if record.key is not None and record.key.endswith(_MANIFEST)
    ]
    found: list[Found] = []
    for record in reversed(records):
        if not record.value:
            buried.add(record.key or b"")
        elif record.key not in buried and (manifest := manifest_in(record)) is not None:
            found.append(Found(manifest, record.offset))
    return found


def manifest_in(record: LogRecord) -> Manifest | None:
    """The manifest, if this release understands it."""
    try:
        manifest = _decoder.decode(record.value)
    except msgspec.MsgspecError:
        return None
    return manifest if manifest.v <= SNAPSHOT_VERSION else None


# -- reading ----------------------------------------------------------------------------------------------


async def chunks(reader: Reader, topic: str, found: Found) -> AsyncIterator[bytes]:
    """The chunks in order, each proved; ``SnapshotDamagedError`` as soon as something is wrong with one."""
    manifest, prefix = found.manifest, f"{found.manifest.id}:".encode()
    total, number = hashlib.sha256(), 0
    begin, _ = await reader.bounds(topic, manifest.home)
    start = max(begin, manifest.first)
    async for step in reader.read(topic, manifest.home, start, found.place):
        for record in step:
            # A producer may have repeated itself: what is not the next chunk is no news.
            if record.key == prefix + b"%d" % number:
                _check_chunk(manifest, number, record)
                total.update(record.value)
                number += 1
                yield record.value
    if number != manifest.chunks:
        raise SnapshotDamagedError(f"snapshot {manifest.id} has {number} of its {manifest.chunks} chunks")
    if total.hexdigest() != manifest.checksum:
        raise SnapshotDamagedError(f"the checksum of snapshot {manifest.id} is wrong")


def _check_chunk(manifest: Manifest, number: int, record: LogRecord) -> None:
    if dict(record.headers).get(CHECKSUM_HEADER) != _crc(record.value):
        raise SnapshotDamagedError(f"the checksum of chunk {number} of snapshot {manifest.id} is wrong")


def _crc(chunk: bytes) -> bytes:
    return b"%d" % zlib.crc32(chunk)


# -- writing ----------------------------------------------------------------------------------------------


class Origin(Struct, frozen=True, kw_only=True):
    """What a snapshot is made of and by whom."""

    id: str
    home: int
    homes: int
    log_id: str
    offset: int
    keys: int
    code: str
    made_ms: int


async def publish(sender: Sender, topic: str, origin: Origin, *, first: int, content: Iterable[bytes]) -> Manifest:
    """Write the chunks, one record each, and then the manifest. ``first``: where the topic ends now."""
    total, number, size = hashlib.sha256(), 0, 0
    for chunk in content:
        record = Record(f"{origin.id}:{number}".encode(), chunk, ((CHECKSUM_HEADER, _crc(chunk)),))
        await sender.send_many(topic, origin.home, [record], timeout_s=SEND_TIMEOUT_S)
        total.update(chunk)
        number, size = number + 1, size + len(chunk)
    manifest = Manifest(
        **msgspec.structs.asdict(origin), first=first, chunks=number, bytes=size, checksum=total.hexdigest()
    )
    record = Record(f"{origin.id}:".encode() + _MANIFEST, _encoder.encode(manifest))
    await sender.send_many(topic, origin.home, [record], timeout_s=SEND_TIMEOUT_S)
    return manifest


class _Kept(Struct):
    """What the topic holds of one snapshot."""

    keys: set[bytes] = field(default_factory=set)
    last_ms: int = 0
    finished: bool = False


async def superseded(reader: Reader, topic: str, home: int, *, kept: Iterable[str], now_ms: int) -> list[bytes]:
    """The keys of all snapshots but the ``kept`` ones, manifests last; those being written are left alone."""
    held: dict[str, _Kept] = {}
    async for step in reader.read(topic, home, *await reader.bounds(topic, home)):
        for record in step:
            _note(held, record)
    gone = held.keys() - set(kept)
    keys = [
        key
        for snapshot in sorted(gone)
        if held[snapshot].finished or held[snapshot].last_ms < now_ms - UNFINISHED_KEEP_MS
        for key in held[snapshot].keys
    ]
    # A burial that breaks off must be found again: by the manifest that is still there.
    return sorted(keys, key=lambda key: (key.endswith(_MANIFEST), key))


def _note(held: dict[str, _Kept], record: LogRecord) -> None:
    key = record.key or b""
    snapshot = held.setdefault(key.partition(b":")[0].decode(errors="replace"), _Kept())
    snapshot.last_ms = max(snapshot.last_ms, record.timestamp_ms)
    if not record.value:
        snapshot.keys.discard(key)
        return
    snapshot.keys.add(key)
    snapshot.finished |= key.endswith(_MANIFEST)


async def bury(sender: Sender, topic: str, home: int, keys: Sequence[bytes]) -> None:
    """Write a tombstone for each key: compaction removes what it had."""
    for start in range(0, len(keys), TOMBSTONES_MAX):
        records = [Record(key, None) for key in keys[start : start + TOMBSTONES_MAX]]
        await sender.send_many(topic, home, records, timeout_s=SEND_TIMEOUT_S)


def covers(manifest: Manifest, *, begin: int, end: int, homes: int, log_id: str) -> bool:
    """Whether the log, which has offsets ``begin`` to ``end - 1``, goes on where the snapshot ends.

    ``log_id`` is empty when nothing is known of it.
    """
    same = manifest.homes == homes and log_id in ("", manifest.log_id)
    return same and begin - 1 <= manifest.offset < end


def refuse_other_log(topic: str, manifest: Manifest, log_id: str) -> None:
    """The beginning of the log is gone: the newest snapshot says which log it is."""
    if manifest.log_id != log_id:
        raise LogRefusedError(
            f"Partition {manifest.home} of {topic} is log {manifest.log_id} by its newest snapshot, Redis has "
            f"records of log {log_id}: the topic was recreated or the cluster is another one. Start with an empty "
            "Redis or another OJS_NAMESPACE."
        )
