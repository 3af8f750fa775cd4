"""Paths into a JSON body: ``$.a.b[0].c``, ``[*]`` and ``[?(@.key=='value')]``.

A dot always descends. A member that is not there gives None, like a null. An index of what is not an array, a
member of what is not an object and an index out of bounds are PathErrors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tools.conformance.cases import Json

_TOKEN = re.compile(
    r"""
      \[\?\(@\.(?P<key>[^=\]]+?)\s*==\s*(?P<quote>['"]?)(?P<value>.*?)(?P=quote)\)\]
    | \[(?P<index>\d+)\]
    | (?P<all>\[\*\])
    | \.?(?P<name>[^.\[\]]+)
    """,
    re.VERBOSE,
)
_TYPE_NAMES = {str: "string", bool: "boolean", type(None): "null", list: "array", dict: "object"}


class PathError(Exception):
    """A path does not fit the body, or is none."""


def type_name(value: Json) -> str:
    """Name the JSON type of a decoded value."""
    return _TYPE_NAMES.get(type(value), "number")


def plain_text(value: Json) -> str:
    """Write a value as filters and ``contains:`` compare it: a string bare, anything else as in JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def resolve(path: str, body: Json) -> Json:
    """Give the value at `path`, None when the last member is missing. Raises PathError."""
    inner = path.removeprefix("$.")
    return _descend(list(_tokens(inner)), body, path)


def _tokens(path: str) -> Iterator[re.Match[str]]:
    position = 0
    while position < len(path):
        token = _TOKEN.match(path, position)
        if token is None:
            raise PathError(f"{path!r} is not a path that this runner knows (at {path[position:]!r})")
        yield token
        position = token.end()


def _descend(tokens: Sequence[re.Match[str]], value: Json, path: str) -> Json:
    for number, token in enumerate(tokens):
        if token["all"]:
            return _each(tokens[number + 1 :], _array(value, token, path), path)
        if token["name"] is not None:
            members = _object(value, token, path)
            if token["name"] not in members and not _indexed(tokens, number):
                return None
            value = members.get(token["name"])
        elif token["index"] is not None:
            value = _item(_array(value, token, path), int(token["index"]), path)
        else:
            value = _first(_array(value, token, path), token["key"], token["value"])
    return value


def _indexed(tokens: Sequence[re.Match[str]], number: int) -> bool:
    """Say whether brackets follow a name: they need an array, so a missing member is an error there."""
    return number + 1 < len(tokens) and tokens[number + 1]["name"] is None


def _each(rest: Sequence[re.Match[str]], items: list[Json], path: str) -> list[Json]:
    """Collect what the rest of the path gives for each item, without what is missing or does not fit."""
    found = []
    for item in items:
        try:
            found.append(_descend(rest, item, path))
        except PathError:
            continue
    return [value for value in found if value is not None or not rest]


def _item(items: list[Json], index: int, path: str) -> Json:
    if index >= len(items):
        raise PathError(f"{path}: index {index} is out of bounds, the array has {len(items)} items")
    return items[index]


def _first(items: list[Json], key: str, wanted: str) -> Json:
    matches = (
        item for item in items if isinstance(item, dict) and key in item and plain_text(item[key]) == wanted
    )
    return next(matches, None)


def _array(value: Json, token: re.Match[str], path: str) -> list[Json]:
    if not isinstance(value, list):
        raise PathError(f"{path}: {token[0]} needs an array, this is {type_name(value)}")
    return value


def _object(value: Json, token: re.Match[str], path: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise PathError(f"{path}: {token[0]} needs an object, this is {type_name(value)}")
    return value
