"""The file between an export and an import: gzipped JSON lines that describe and check themselves.

The first line is the ``Header``. Then comes a line a record (``Line``), in the order of ``KINDS``, so that what a
record counts into is there before it. The last line is the ``Footer`` with the SHA-256 of all lines before it.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Raw, Struct

from ojs_stream.core.records import Key
from ojs_stream.errors import OjsError

FORMAT = "ojs-stream export"
VERSION = 1
KINDS = (
    "config",
    "queue",
    "minute",
    "day",
    "worker",
    "limit",
    "slot",
    "lock",
    "cron",
    "workflow",
    "step",
    "plan",
    "replay",
    "checkpoint",
    "job",
)
"""The kinds of records that are moved. Notes that lead to jobs are made anew, stages are never there."""
LINE_BYTES_MAX = 16 * 1024 * 1024
LEVEL = 6


class ArchiveError(OjsError):
    """The file is no export, of another version, or damaged."""


class Header(Struct, frozen=True, kw_only=True):
    """What was exported."""

    format: str
    version: int
    namespace: str
    homes: int
    applied: list[int]
    """By home the offset that its records are true for."""
    log_ids: list[str]
    sequence: int
    """The highest sequence of any home."""


class Line(Struct, frozen=True):
    """A record as its home has it."""

    key: Key
    record: Raw


class Footer(Struct, frozen=True, kw_only=True):
    """That nothing is missing."""

    records: int
    sha256: str


_encoder = msgspec.json.Encoder()
_headers = msgspec.json.Decoder(Header)
_lines = msgspec.json.Decoder(Line)
_footers = msgspec.json.Decoder(Footer)


class ArchiveWriter:
    """Writes a file that is complete only when ``end`` was called."""

    def __init__(self, path: Path, header: Header) -> None:
        self.records = 0
        self._hash = hashlib.sha256()
        self._file = gzip.open(path, "wb", compresslevel=LEVEL)  # noqa: SIM115 - closed by __exit__
        self._write(_encoder.encode(header))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, key: Key, record: bytes) -> None:
        """The next record."""
        self._write(_encoder.encode(Line(key, Raw(record))))
        self.records += 1

    def end(self) -> None:
        """There are no more."""
        self._write(_encoder.encode(Footer(records=self.records, sha256=self._hash.hexdigest())))

    def _write(self, line: bytes) -> None:
        self._file.write(line + b"\n")
        self._hash.update(line + b"\n")


def read_archive(path: Path) -> tuple[Header, Footer]:
    """What a file is, and the hash that names it, once all of it has been checked."""
    lines = _raw_lines(path)
    first = next(lines, b"")
    header = _header_of(path, first)
    seen, count, before = hashlib.sha256(), 0, first
    for line in lines:
        seen.update(before)
        count, before = count + 1, line
    try:
        footer = _footers.decode(before)
    except msgspec.DecodeError:
        raise ArchiveError(
            f"{path} ends too early: it was not written to its end, or was cut. Export again."
        ) from None
    if footer.sha256 != seen.hexdigest() or footer.records != count - 1:
        raise ArchiveError(f"{path} is damaged: its lines do not have the checksum that its last line names.")
    return header, footer


def archive_lines(path: Path) -> Iterator[Line]:
    """The records of a file that was checked before."""
    lines = _raw_lines(path)
    next(lines, b"")
    line = next(lines, b"")
    for following in lines:
        yield _lines.decode(line)
        line = following


def _header_of(path: Path, line: bytes) -> Header:
    try:
        header = _headers.decode(line)
    except msgspec.DecodeError as error:
        raise ArchiveError(f"{path} is no export of ojs-stream: {error}.") from None
    if header.format != FORMAT or header.version != VERSION:
        raise ArchiveError(
            f"{path} is '{header.format}' of version {header.version}, this release reads version {VERSION} of "
            f"'{FORMAT}'."
        )
    return header


def _raw_lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as file:
            while line := file.readline(LINE_BYTES_MAX):
                yield line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ArchiveError(f"{path} is damaged, or no export: {error}.") from None
