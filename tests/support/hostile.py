"""Commands that decode and make no sense: every kind, every field, values that no view would let pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec
from msgspec import inspect

from ojs_stream.core.commands import COMMAND_VERSION, AnyCommand

NUMBERS = (0, 1, -1, 7, 100, -100, 2**31, 2**53, 2**62, 2**63 - 1, 2**64 - 1, -(2**63))
WORDS = ("", "default", "q1", "a:b", "x" * 300, "\0", "*", "run", "reap", "cron", "w1")
FRACTIONS = (0.0, 0.5, 1.0, -1.0, 1e308, -1e308)
ANYTHING: tuple[Any, ...] = ([], {}, [1], {"a": 1}, "s", None)
OFTEN = 0.7
"""So often what would make a command a message, or of another epoch, is left out: it would be dropped unread."""
ENVELOPE = ("source", "number", "epoch", "at")
_UNION = inspect.type_info(AnyCommand)
assert isinstance(_UNION, inspect.UnionType)
KINDS = {str(each.tag): each for each in _UNION.types if isinstance(each, inspect.StructType)}


def hostile(dice: Random, names: Sequence[str]) -> bytes:
    """A command; ``names`` are ids of jobs that are there."""
    value = _struct(KINDS[dice.choice(sorted(KINDS))], dice, names)
    for field in ENVELOPE:
        if dice.random() < OFTEN:
            value.pop(field, None)
    return msgspec.json.encode({**value, "v": COMMAND_VERSION, "actor": "hostile"})


def _struct(shape: inspect.StructType, dice: Random, names: Sequence[str]) -> dict[str, Any]:
    fields = [each for each in shape.fields if each.required or dice.random() < 0.4]
    tag = {shape.tag_field: shape.tag} if shape.tag_field else {}
    return tag | {each.encode_name: _value(each.type, dice, names) for each in fields}


def _value(shape: Any, dice: Random, names: Sequence[str]) -> Any:
    return _MAKERS.get(type(shape), _anything)(shape, dice, names)


def _anything(_shape: Any, dice: Random, _names: Sequence[str]) -> Any:
    return dice.choice(ANYTHING)


def _several(shape: Any, dice: Random, names: Sequence[str]) -> list[Any]:
    return [_value(shape.item_type, dice, names) for _ in range(dice.choice((0, 1, 1, 2)))]


def _mapping(shape: Any, dice: Random, names: Sequence[str]) -> dict[str, Any]:
    return {dice.choice(WORDS): _value(shape.value_type, dice, names) for _ in range(dice.choice((0, 1)))}


def _one_of(shape: Any, dice: Random, names: Sequence[str]) -> Any:
    # What a custom type stands for is absence (UNSET): it cannot be written.
    kinds = [each for each in shape.types if not isinstance(each, inspect.CustomType)]
    return _value(dice.choice(kinds), dice, names)


_MAKERS: dict[type, Callable[[Any, Random, Sequence[str]], Any]] = {
    inspect.IntType: lambda _shape, dice, _names: dice.choice(NUMBERS),
    inspect.StrType: lambda _shape, dice, names: dice.choice((*WORDS, *names)),
    inspect.BoolType: lambda _shape, dice, _names: dice.random() < 0.5,
    inspect.FloatType: lambda _shape, dice, _names: dice.choice(FRACTIONS),
    inspect.NoneType: lambda _shape, _dice, _names: None,
    inspect.LiteralType: lambda shape, dice, _names: dice.choice(shape.values),
    inspect.EnumType: lambda shape, dice, _names: dice.choice(list(shape.cls)).value,
    inspect.UnionType: _one_of,
    inspect.VarTupleType: _several,
    inspect.ListType: _several,
    inspect.TupleType: lambda shape, dice, names: [_value(each, dice, names) for each in shape.item_types],
    inspect.DictType: _mapping,
    inspect.StructType: _struct,
}
