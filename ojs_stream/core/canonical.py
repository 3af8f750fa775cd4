"""JSON values as one text each, so that equal values are equal bytes (after RFC 8785, exact where that is not).

Object names are sorted, strings are in Unicode's composed form (NFC), there is no space. A number is its value:
``1``, ``1.0`` and ``1e0`` are one text, and unlike RFC 8785 no two different numbers ever are, however large.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

_NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?")
_EXPONENT_DIGITS_MAX = 18
"""Beyond such an exponent a number is its own text: nobody counts that far."""
_ZEROS_MAX = 21
"""Up to so many zeros are written out, as RFC 8785 does."""


class Number(str):
    """A number as it stands in the text."""

    __slots__ = ()


def load_exact(text: bytes) -> Any:
    """The values of a JSON text that is known to be valid; numbers are ``Number``."""
    return json.loads(text, parse_int=Number, parse_float=Number)


def canonical(value: Any) -> str:
    """The one text of a value that ``load_exact`` gave."""
    if isinstance(value, Number):
        return _number(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, dict):
        return _object(value)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return json.dumps(value)


def _string(text: str) -> str:
    return json.dumps(unicodedata.normalize("NFC", text), ensure_ascii=False)


def _object(value: dict[str, Any]) -> str:
    # RFC 8785 sorts by UTF-16 code units. Names that NFC makes equal are ordered by their values.
    members = [(unicodedata.normalize("NFC", name), canonical(item)) for name, item in value.items()]
    members.sort(key=lambda member: (member[0].encode("utf-16-be", "surrogatepass"), member[1]))
    return "{" + ",".join(f"{_string(name)}:{text}" for name, text in members) + "}"


def _number(text: str) -> str:
    match = _NUMBER.fullmatch(text)
    assert match is not None, "the body was valid JSON"
    sign, whole, part, exponent = match[1], match[2], match[3] or "", match[4] or "0"
    digits = (whole + part).lstrip("0")
    if not digits:
        return "0"
    if len(exponent) > _EXPONENT_DIGITS_MAX:
        return text
    significant = digits.rstrip("0")
    power = int(exponent) - len(part) + len(digits) - len(significant)
    if 0 <= power <= _ZEROS_MAX:
        return sign + significant + "0" * power
    return f"{sign}{significant}e{power}"
