"""Packs: what goes in comes out, and one bad command hurts only itself."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ojs_stream.core.commands import Ack, AnyCommand, BadCommand, Cancel, Claim, Command, Enqueue, NewJob
from ojs_stream.core.records import Retention
from ojs_stream.core.retry import DEFAULT_POLICY
from ojs_stream.errors import NewerVersionError
from ojs_stream.log.codec import decode_pack, encode_pack, pack_headers
from ojs_stream.settings import Settings

GOOD = b'{"kind":"cancel","v":1,"actor":"system","job_id":"a"}'


def _encode(*commands: Command) -> bytes:
    return encode_pack([msgspec.json.encode(command) for command in commands])


def _only(value: bytes) -> BadCommand:
    (bad,) = decode_pack(value)
    assert isinstance(bad, BadCommand)
    return bad


def _enqueue(number: int) -> Enqueue:
    job = NewJob(
        id=f"0197f0a0-0000-7000-8000-{number:012x}",
        type="email.send",
        queue="default",
        args=msgspec.Raw(b'[1e400,18446744073709551616,{"deep":[]}]'),
        meta=msgspec.Raw(b"{}"),
        priority=0,
        retry=DEFAULT_POLICY,
        retention=Retention(1, 2, 3, 4),
        timeout_ms=30_000,
        visibility_timeout_ms=30_000,
    )
    return Enqueue(v=1, actor="system", jobs=(job,))


def test_a_pack_is_readable_json() -> None:
    pack = _encode(Cancel(v=1, actor="system", job_id="a"), Claim(v=1, actor="k", queues=("q",), count=2))
    assert json.loads(pack) == {
        "v": 1,
        "commands": [
            {"kind": "cancel", "v": 1, "actor": "system", "job_id": "a"},
            {"kind": "claim", "v": 1, "actor": "k", "queues": ["q"], "count": 2},
        ],
    }


def test_commands_come_back_in_order() -> None:
    commands: list[AnyCommand] = [Ack(v=1, actor="k", job_id="a"), Cancel(v=1, actor="k", job_id="b")]
    assert decode_pack(_encode(*commands)) == commands


def test_raw_bytes_of_a_job_are_never_encoded_again() -> None:
    (command,) = decode_pack(_encode(_enqueue(1)))
    assert isinstance(command, Enqueue)
    assert bytes(command.jobs[0].args) == b'[1e400,18446744073709551616,{"deep":[]}]'


def test_an_empty_pack_has_no_commands() -> None:
    assert decode_pack(encode_pack([])) == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"kind":"explode","v":1,"actor":"x"}', "no command: Invalid value 'explode'"),
        (b'{"v":1,"actor":"x"}', "no command: Object missing required field `kind`"),
        (b'{"kind":"cancel","v":1,"actor":"x"}', "no command: Object missing required field `job_id`"),
        (b'{"kind":"cancel","v":1,"actor":7,"job_id":"a"}', "no command: Expected `str`, got `int`"),
        (b"17", "no command: Expected `object`, got `int`"),
        (b'{"kind":"cancel","v":1000,"actor":"x","job_id":"a"}', "command version 1000 is unknown"),
        (b'{"kind":"cancel","v":-1,"actor":"x","job_id":"a"}', "command version -1 is unknown"),
        (b'{"kind":"cancel","v":0,"actor":"x","job_id":"a"}', "command version 0 is unknown"),
        (b'{"kind":"teleport","v":1000,"actor":"x"}', "command version 1000 is unknown"),
        (b'{"kind":"teleport","v":"2","actor":"x"}', "no command: Invalid value 'teleport'"),
    ],
)
def test_one_bad_command_hurts_only_itself(bad: bytes, reason: str) -> None:
    decoded = decode_pack(encode_pack([GOOD, bad, GOOD]))
    assert [type(one) for one in decoded] == [Cancel, BadCommand, Cancel]
    wrong = decoded[1]
    assert isinstance(wrong, BadCommand)
    assert wrong.data == bad
    assert wrong.reason.startswith(reason)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "no pack: Input data was truncated"),
        (b"\xff\xfe", "no pack: "),
        (b"{}", "no pack: Object missing required field `v`"),
        (b"[]", "no pack: Expected `object`, got `array`"),
        (GOOD, "no pack: Object missing required field `commands`"),
        (b'{"v":1,"commands":[{]}', "no pack: JSON is malformed"),
        (b'{"v":1000,"commands":[]}', "pack version 1000 is unknown"),
        (b'{"v":1000,"orders":[]}', "pack version 1000 is unknown"),
        (b'{"v":0,"commands":[]}', "pack version 0 is unknown"),
    ],
)
def test_a_record_that_is_no_pack_is_one_bad_command(value: bytes, reason: str) -> None:
    bad = _only(value)
    assert bad.data == value
    assert bad.reason.startswith(reason)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"v":2,"commands":[]}', "pack version 2, this release reads 1 to 1"),
        (b'{"v":999,"orders":7}', "pack version 999, this release reads 1 to 1"),
        (encode_pack([GOOD, b'{"kind":"cancel","v":2,"actor":"x","job_id":"a"}']), "command version 2, "),
        (encode_pack([b"17", b'{"kind":"teleport","v":3}', GOOD]), "command version 3, "),
        (encode_pack([b'{"kind":"cancel","v":2,"job_id":{"new":"shape"}}']), "command version 2, "),
    ],
)
def test_what_a_newer_release_has_written_is_not_bad(value: bytes, reason: str) -> None:
    with pytest.raises(NewerVersionError, match=f"^{reason}"):
        decode_pack(value)


def test_a_deep_nest_is_bad_and_no_crash() -> None:
    deep = b'{"v":1,"commands":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert _only(deep).data == deep


@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_raise(value: bytes) -> None:
    assert all(isinstance(one, BadCommand) for one in decode_pack(value))


@given(st.lists(st.integers(0, 2**40), max_size=20))
def test_any_number_of_commands_goes_round(numbers: list[int]) -> None:
    commands = [_enqueue(number) for number in numbers]
    decoded = decode_pack(_encode(*commands))
    assert [msgspec.json.encode(one) for one in decoded] == [msgspec.json.encode(one) for one in commands]


@pytest.mark.parametrize(
    ("kinds", "kind"),
    [(["ack"], b"ack"), (["ack", "ack"], b"ack"), (["ack", "nack"], b"mixed"), ([], b"mixed")],
)
def test_headers_say_what_is_inside(kinds: list[str], kind: bytes) -> None:
    assert pack_headers(len(kinds), kinds) == [
        ("content-type", b"application/json"),
        ("ojs-version", b"1"),
        ("ojs-pack-size", b"%d" % len(kinds)),
        ("ojs-command", kind),
    ]


def test_what_most_jobs_share_is_not_written_and_never_changes() -> None:
    """The log's promise: what it leaves out means the same for ever."""
    shared = NewJob(
        id="0197f0a0-0000-7000-8000-000000000001",
        type="email.send",
        queue="default",
        args=msgspec.Raw(b"[]"),
        meta=msgspec.Raw(b"{}"),
        priority=0,
        timeout_ms=30_000,
        visibility_timeout_ms=30_000,
    )
    written = _encode(Enqueue(v=1, actor="system", jobs=(shared,)))
    assert b"retry" not in written
    assert b"retention" not in written
    (command,) = decode_pack(written)
    assert isinstance(command, Enqueue)
    (job,) = command.jobs
    assert job.retention == Retention(604_800_000, 604_800_000, 2_592_000_000, 15_552_000_000)
    assert msgspec.to_builtins(job.retry) == {
        "max_attempts": 3,
        "initial_ms": 1_000,
        "coefficient": 2.0,
        "max_ms": 300_000,
        "jitter": True,
        "strategy": "exponential",
        "on_exhaustion": "discard",
        "non_retryable": (),
    }
    assert Settings.from_env({}).retention is job.retention
