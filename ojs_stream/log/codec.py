"""Packs: one Kafka record that carries many commands, as JSON that a person can read.

``{"v":1,"commands":[{...},{...}]}``. Decoding never raises: what cannot be understood comes back as
``BadCommand`` with its bytes and the reason, and hurts nobody else in the same pack. Raw parts of a command are
slices of the record: who keeps one for long makes a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from ojs_stream.core.commands import COMMAND_VERSION, LATER_KINDS, AnyCommand, BadCommand

PACK_VERSION = 1
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
    """The commands of a record in order. What is no pack is one ``BadCommand`` with the whole value."""
    try:
        pack = _pack_decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = _version_reason("pack", value, PACK_VERSION) or _reason("no pack", error)
        return [BadCommand(value, reason)]
    if not 1 <= pack.v <= PACK_VERSION:
        return [BadCommand(value, _unknown_version("pack", pack.v, PACK_VERSION))]
    return [_decode(raw) for raw in pack.commands]


def _decode(raw: Raw) -> AnyCommand | BadCommand:
    try:
        command: AnyCommand = _command_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        whole = bytes(raw)
        reason = _version_reason("command", whole, COMMAND_VERSION) or _reason("no command", error)
        return BadCommand(whole, reason)
    if not 1 <= command.v <= COMMAND_VERSION and command.v != LATER_KINDS.get(type(command)):
        return BadCommand(bytes(raw), _unknown_version("command", command.v, COMMAND_VERSION))
    return command


def _version_reason(what: str, value: bytes, known: int) -> str:
    """A newer version with another shape fails by its shape first; its version is the better reason."""
    try:
        probe = _probe_decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return _unknown_version(what, probe.v, known) if probe.v > known else ""


def _unknown_version(what: str, have: int, known: int) -> str:
    return f"{what} version {have} is unknown, this release reads 1 to {known}: upgrade this worker"


def _reason(what: str, error: Exception) -> str:
    return f"{what}: {error}"[:REASON_CHARS_MAX]
