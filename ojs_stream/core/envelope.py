"""From body bytes to checked JSON values. Pure: bytes in, values or a ``RefusedError`` out.

Two views of the same body are made: plain values (to check scalars) and raw slices (to keep ``args``,
``meta`` and unknown fields byte for byte). Nothing that a client sent is ever decoded and encoded again.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import msgspec
import orjson
from msgspec import Raw

from ojs_stream.errors import RefusedError

JSON_DEPTH_MAX = 64
"""Default bound on nested arrays and objects (DESIGN.md section 13)."""
_INT_DIGITS_MAX = 18
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_raw_object = msgspec.json.Decoder(dict[str, Raw])
_raw_array = msgspec.json.Decoder(list[Raw])

Values = dict[str, Any]
Raws = dict[str, Raw]


def bad_payload(message: str) -> RefusedError:
    """400: the body as a whole, or the shape of ``args`` or ``meta``."""
    return RefusedError("invalid_payload", message)


def bad_field(name: str, rule: str) -> RefusedError:
    """400: one field breaks a rule; the message names both."""
    return RefusedError("invalid_request", f"{name} {rule}", details={"field": name})


def too_large(code: str, what: str, size: int, bound: int) -> RefusedError:
    """413: something is over its bound; ``details`` carry both numbers."""
    return RefusedError(
        code, f"{what} is {size} bytes, at most {bound} are accepted", details={"size": size, "max": bound}
    )


def check_depth(body: bytes, depth_max: int = JSON_DEPTH_MAX) -> None:
    """Refuse valid JSON that is nested deeper than ``depth_max``.

    Few brackets cannot be deep: that answers for almost every job. Otherwise each pass takes the innermost
    pairs away, at the speed of ``bytes.replace``.
    """
    if body.count(b"[") + body.count(b"{") <= depth_max:
        return
    brackets = _STRINGS.sub(b"", body).translate(_ONE_KIND, _NO_BRACKET)
    for _ in range(depth_max):
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise bad_payload(f"the body is nested deeper than {depth_max} levels")


def load_values(body: bytes) -> Any:
    """The values of a JSON text that is strictly valid: UTF-8, no NaN, no lone surrogate, bounded depth."""
    if not body or body.isspace():
        raise bad_payload("the body is empty, a JSON object is expected")
    try:
        # orjson has a depth limit of its own (1,024), so that it is safe to let it look first.
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "infinity" in str(error):
            return _load_wide(body)
        raise bad_payload(f"the body is not valid JSON: {error}") from None


def load_object(body: bytes, depth_max: int = JSON_DEPTH_MAX) -> tuple[Values, Raws]:
    """The top level of a JSON object, as values and as raw slices; depth 0: the caller checks the parts."""
    return check_object(body, depth_max), raw_object(body)


def check_object(body: bytes, depth_max: int = JSON_DEPTH_MAX) -> Values:
    """As ``load_object``, without the slices."""
    values = load_values(body)
    if type(values) is not dict:
        raise bad_payload("the body must be a JSON object")
    if depth_max:
        check_depth(body, depth_max)
    return values


def raw_object(data: bytes | Raw) -> Raws:
    """The top level of an object that is already known to be valid, as raw slices."""
    try:
        return _raw_object.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise bad_payload(f"the body is not valid JSON: {error}") from None


def raw_array(data: bytes | Raw) -> list[Raw]:
    """The elements of an array that is already known to be valid, as raw slices."""
    try:
        return _raw_array.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise bad_payload(f"the body is not valid JSON: {error}") from None


def encode_object(raws: Raws) -> Raw:
    """An object of raw values; only the names are written anew."""
    return Raw(msgspec.json.encode(raws))


def _load_wide(body: bytes) -> Any:
    """As ``orjson.loads``, for a text with numbers beyond a double (``1e400``): legal JSON, kept as it is."""
    try:
        values = json.loads(body.decode(), parse_int=_bounded_int, parse_constant=_no_constant)
        json.dumps(values, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise bad_payload(f"the body is not valid JSON: {error}") from None
    return values


def _bounded_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INT_DIGITS_MAX else float(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
