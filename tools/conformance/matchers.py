"""Matchers: what one value must be. `match` gives None, or a sentence about the mismatch.

A string that looks like a matcher (``string:``, ``array:``, ...) or an object with a ``$`` operator that is
not known is a mismatch with a sentence of its own: nothing passes because it was not understood.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from tools.conformance.cases import Json
from tools.conformance.paths import plain_text, type_name

TOLERANCE = 0.5
"""How far ``~N`` may be away from N, as a part of N."""

FLOAT_EPSILON = 1e-9
_FAMILIES = ("string:", "array:", "number:", "object:", "boolean:", "one_of:", "$")

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_UUID_V7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_DATETIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})", re.ASCII)

Mismatch = str | None


def match(matcher: Json, actual: Json) -> Mismatch:
    """Compare a value (None when missing) with a matcher."""
    if matcher is None:
        return None if actual is None else _expected("null", actual)
    if isinstance(matcher, bool):
        return None if actual is matcher else _expected(show(matcher), actual)
    if isinstance(matcher, str):
        return _match_string(matcher, actual)
    if isinstance(matcher, list):
        return _match_list(matcher, actual)
    if isinstance(matcher, dict):
        return _match_object(matcher, actual)
    return _match_number(matcher, actual)


def match_status(matcher: Json, status: int) -> Mismatch:
    """Compare a status with a number, ``one_of:a,b``, a number matcher or ``{"$in": [...]}``."""
    if isinstance(matcher, str) and matcher.startswith("one_of:"):
        listed = [code.strip() for code in matcher.removeprefix("one_of:").split(",")]
        return None if str(status) in listed else _expected(f"one of {', '.join(listed)}", status)
    if isinstance(matcher, dict) and set(matcher) != {"$in"}:
        return f"unknown status matcher {show(matcher)}"
    if isinstance(matcher, list):
        return f"unknown status matcher {show(matcher)} (a list is not one: use $in)"
    return match(matcher, status)


def show(value: Json) -> str:
    """Write a value for a message."""
    return json.dumps(value, ensure_ascii=False)


def _expected(what: str, actual: Json) -> str:
    return f"expected {what}, got {'nothing' if actual is None else show(actual)}"


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- plain values


def _match_number(expected: float, actual: Json) -> Mismatch:
    same = _is_number(actual) and (actual == expected or abs(actual - expected) <= FLOAT_EPSILON)
    return None if same else _expected(show(expected), actual)


def _match_list(expected: list[Json], actual: Json) -> Mismatch:
    if not isinstance(actual, list) or len(actual) != len(expected):
        return _expected(f"an array of {len(expected)} items", actual)
    for index, (matcher, item) in enumerate(zip(expected, actual, strict=True)):
        if mismatch := match(matcher, item):
            return f"[{index}]: {mismatch}"
    return None


def _match_members(expected: dict[str, Json], actual: Json) -> Mismatch:
    """Compare an object member by member; members that are not asked for do not matter."""
    if not isinstance(actual, dict):
        return _expected("an object", actual)
    for key, matcher in expected.items():
        if mismatch := _match_member(key, matcher, actual):
            return f"{key}: {mismatch}"
    return None


def _match_member(key: str, matcher: Json, actual: dict[str, Json]) -> Mismatch:
    if matcher == "absent":
        return _expected("no such member", actual[key]) if key in actual else None
    return match(matcher, actual[key]) if key in actual else _expected(show(matcher), None)


# --- matchers written as strings


def _match_string(matcher: str, actual: Json) -> Mismatch:
    word = _WORDS.get(matcher)
    if word is not None:
        wanted, holds = word
        return None if holds(actual) else _expected(wanted, actual)
    for form, check in _FORMS:
        if found := form.fullmatch(matcher):
            return check(found, actual)
    if matcher.startswith(_FAMILIES):
        return f"unknown matcher {matcher!r}"
    return None if actual == matcher else _expected(show(matcher), actual)


def _has_form(form: re.Pattern[str]) -> Callable[[Json], bool]:
    return lambda actual: isinstance(actual, str) and form.fullmatch(actual) is not None


def _is_text(actual: Json) -> bool:
    return isinstance(actual, str) and actual != ""


def _is_filled(actual: Json) -> bool:
    return isinstance(actual, list) and len(actual) > 0


_WORDS: Mapping[str, tuple[str, Callable[[Json], bool]]] = {
    "any": ("anything", lambda _actual: True),
    "absent": ("nothing", lambda actual: actual is None),
    "exists": ("a value", lambda actual: actual is not None),
    "string:nonempty": ("a non-empty string", _is_text),
    "string:non_empty": ("a non-empty string", _is_text),
    "string:uuid": ("a UUID", _has_form(_UUID)),
    "string:uuidv7": ("a UUIDv7", _has_form(_UUID_V7)),
    "string:datetime": ("an RFC 3339 date and time", _has_form(_DATETIME)),
    "number:positive": ("a positive number", lambda actual: _is_number(actual) and actual > 0),
    "number:non_negative": ("a number >= 0", lambda actual: _is_number(actual) and actual >= 0),
    "array:nonempty": ("a non-empty array", _is_filled),
    "array:empty": ("an empty array", lambda actual: actual == []),
}


def _array_length(found: re.Match[str], actual: Json) -> Mismatch:
    length = int(found["n"])
    holds = isinstance(actual, list) and len(actual) == length
    return None if holds else _expected(f"an array of {length} items", actual)


def _array_min(found: re.Match[str], actual: Json) -> Mismatch:
    least = int(found["n"])
    holds = isinstance(actual, list) and len(actual) >= least
    return None if holds else _expected(f"an array of at least {least} items", actual)


def _array_contains(found: re.Match[str], actual: Json) -> Mismatch:
    if not isinstance(actual, list):
        return _expected("an array", actual)
    wanted = found["not"] is None
    there = found["value"] in (plain_text(item) for item in actual)
    return (
        None
        if there is wanted
        else _expected(f"an array {'with' if wanted else 'without'} {found['value']!r}", actual)
    )


def _text_contains(found: re.Match[str], actual: Json) -> Mismatch:
    holds = isinstance(actual, str) and found["text"] in actual
    return None if holds else _expected(f"a string with {found['text']!r}", actual)


def _text_pattern(found: re.Match[str], actual: Json) -> Mismatch:
    return _search(found["pattern"], actual)


def _number_range(found: re.Match[str], actual: Json) -> Mismatch:
    return _within(float(found["low"]), float(found["high"]), actual)


def _approximately(found: re.Match[str], actual: Json) -> Mismatch:
    middle = float(found["n"])
    mismatch = _within(middle * (1 - TOLERANCE), middle * (1 + TOLERANCE), actual)
    return mismatch and _expected(f"about {found['n']} (within {TOLERANCE:.0%})", actual)


_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], Json], Mismatch]], ...] = (
    (re.compile(r"array:length(?::(?P<n>\d+))"), _array_length),
    (re.compile(r"array:length\((?P<n>\d+)\)"), _array_length),
    (re.compile(r"array:min(?:_length)?:(?P<n>\d+)"), _array_min),
    (re.compile(r"(?P<not>not_)?contains:(?P<value>.*)", re.DOTALL), _array_contains),
    (re.compile(r"string:contains:(?P<text>.*)", re.DOTALL), _text_contains),
    (re.compile(r"string:pattern\((?P<pattern>.*)\)", re.DOTALL), _text_pattern),
    (re.compile(r"number:range\((?P<low>-?\d+(?:\.\d+)?),\s*(?P<high>-?\d+(?:\.\d+)?)\)"), _number_range),
    (re.compile(r"~(?P<n>\d+(?:\.\d+)?)"), _approximately),
)


# --- matchers written as objects


def _match_object(matcher: dict[str, Json], actual: Json) -> Mismatch:
    for operator, (check, beside) in _OPERATORS.items():
        if operator in matcher:
            extra = sorted(set(matcher) - {operator} - beside)
            return f"unknown matcher {show(matcher)}" if extra else check(matcher, actual)
    if any(key.startswith("$") for key in matcher):
        return f"unknown matcher {show(matcher)}"
    return _match_members(matcher, actual)


def _exists(matcher: dict[str, Json], actual: Json) -> Mismatch:
    if matcher["$exists"] is not (actual is not None):
        return _expected("a value" if matcher["$exists"] else "nothing", actual)
    wanted = matcher.get("$type", type_name(actual))
    return None if wanted == type_name(actual) else _expected(f"type {wanted}", actual)


def _regex(matcher: dict[str, Json], actual: Json) -> Mismatch:
    return _search(matcher["$match"], actual)


def _search(pattern: str, actual: Json) -> Mismatch:
    try:
        holds = isinstance(actual, str) and re.search(pattern, actual) is not None
    except re.error as problem:
        return f"{pattern!r} is not a regular expression: {problem}"
    return None if holds else _expected(f"a string that matches {pattern!r}", actual)


def _any_of(matchers: list[Json], actual: Json) -> Mismatch:
    mismatches = [match(matcher, actual) for matcher in matchers]
    if None in mismatches:
        return None
    unknown = [mismatch for mismatch in mismatches if mismatch and mismatch.startswith("unknown matcher")]
    return unknown[0] if unknown else _expected(f"one of {show(matchers)}", actual)


def _size(matcher: dict[str, Json], actual: Json) -> Mismatch:
    size = matcher["$size"]
    least = size.get("$gte") if isinstance(size, dict) and set(size) == {"$gte"} else None
    if not _is_number(size if least is None else least):
        return f"unknown matcher {show(matcher)}"
    if not isinstance(actual, list):
        return _expected("an array", actual)
    if least is not None:
        return None if len(actual) >= least else _expected(f"an array of at least {least} items", actual)
    return None if len(actual) == size else _expected(f"an array of {size} items", actual)


def _range(matcher: dict[str, Json], actual: Json) -> Mismatch:
    bounds = matcher["range"]
    if not isinstance(bounds, dict) or not bounds or set(bounds) - {"min", "max"}:
        return f"unknown matcher {show(matcher)}"
    return _within(bounds.get("min", float("-inf")), bounds.get("max", float("inf")), actual)


def _within(low: float, high: float, actual: Json) -> Mismatch:
    holds = _is_number(actual) and low <= actual <= high
    return None if holds else _expected(f"a number from {low:g} to {high:g}", actual)


_OPERATORS: Mapping[str, tuple[Callable[[dict[str, Json], Json], Mismatch], frozenset[str]]] = {
    "$exists": (_exists, frozenset({"$type"})),
    "$match": (_regex, frozenset()),
    "$in": (lambda matcher, actual: _any_of(matcher["$in"], actual), frozenset()),
    "$size": (_size, frozenset()),
    "$or": (lambda matcher, actual: _any_of(matcher["$or"], actual), frozenset()),
    "range": (_range, frozenset()),
}
"""Operator -> its check and the keys that may stand beside it. ``$type`` or ``$gte`` alone is no matcher."""
