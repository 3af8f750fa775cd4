"""Packs: one Kafka record that carries many commands, as JSON that a person can read.

``{"v":1,"commands":[{...},{...}]}``. What cannot be understood comes back as ``BadCommand`` with its bytes and
the reason, and hurts nobody else in the same pack. What a newer release has written is not bad: it may be work
that was promised to somebody. It raises ``NewerVersionError``, and the home waits for a worker that can read it
(ADR 12). Raw parts of a command are slices of the record: who keeps one for long makes a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from ojs_stream.core.commands import COMMAND_VERSION, AnyCommand, BadCommand
from ojs_stream.errors import NewerVersionError

PACK_VERSION = 1
VERSION_MAX = 999
"""No release will ever write a higher version of anything: what claims to be one is garbage."""
MIXED = "mixed"
REASON_CHARS_MAX = 500
"""A reason is a header of the dead record: longer ones are cut to so many characters."""

_HEAD = b'{"v":%d,"commands":[' % PACK_VERSION
_TAIL = b"]}"


class _Pack(Struct):
    v: int
    commands: list[Raw]


class _Probe(Struct):
    """Just the version, of something that did not decode."""

    v: int = 0


_pack_decoder = msgspec.json.Decoder(_Pack)
_command_decoder = msgspec.json.Decoder(AnyCommand)
_probe_decoder = msgspec.json.Decoder(_Probe)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode_pack(commands: Sequence[bytes]) -> bytes:
    """Join commands that are JSON objects already. The caller bounds count and bytes."""
    return _HEAD + b",".join(commands) + _TAIL


def pack_headers(count: int, kinds: Sequence[str]) -> list[tuple[str, bytes]]:
    """What Kafka tools may want to know without decoding; ``kinds`` are the kinds of the pack's commands."""
    first = kinds[0] if kinds else MIXED
    kind = first if all(other == first for other in kinds) else MIXED
    return [
        ("content-type", b"application/json"),
        ("ojs-version", b"%d" % PACK_VERSION),
        ("ojs-pack-size", b"%d" % count),
        ("ojs-command", kind.encode()),
    ]


def decode_pack(value: bytes) -> list[AnyCommand | BadCommand]:
    """The commands of a record in order. What is no pack is one ``BadCommand`` with the whole value.

    ``NewerVersionError`` when the pack or one of its commands is of a version above ours: a record is folded
    whole or not at all.
    """
    try:
        pack = _pack_decoder.decode(value)
    except _UNREADABLE as error:
        return [BadCommand(value, _reason("pack", value, PACK_VERSION, error))]
    if not 1 <= pack.v <= PACK_VERSION:
        return [BadCommand(value, _unknown_version("pack", pack.v, PACK_VERSION))]
    return [_decode(raw) for raw in pack.commands]


def _decode(raw: Raw) -> AnyCommand | BadCommand:
    try:
        command: AnyCommand = _command_decoder.decode(raw)
    except _UNREADABLE as error:
        whole = bytes(raw)
        return BadCommand(whole, _reason("command", whole, COMMAND_VERSION, error))
    if not 1 <= command.v <= COMMAND_VERSION:
        return BadCommand(bytes(raw), _unknown_version("command", command.v, COMMAND_VERSION))
    return command


def _reason(what: str, value: bytes, known: int, error: Exception) -> str:
    """A newer version with another shape fails by its shape first: its version comes before that."""
    version = _version_of(value)
    if version > known:
        return _unknown_version(what, version, known)
    return f"no {what}: {error}"[:REASON_CHARS_MAX]


def _version_of(value: bytes) -> int:
    """The version of something that did not decode; 0 when it has none."""
    try:
        return _probe_decoder.decode(value).v
    except _UNREADABLE:
        return 0


def _unknown_version(what: str, have: int, known: int) -> str:
    """Why a version that no release has ever written is bad; raises for one that a newer release may write."""
    if known < have <= VERSION_MAX:
        raise NewerVersionError(f"{what} version {have}, this release reads 1 to {known}")
    return f"{what} version {have} is unknown, this release reads 1 to {known}"
