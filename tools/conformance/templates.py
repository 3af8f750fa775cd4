"""Templates: ``{{steps.<id>.response.body.<path>}}``, the only form there is.

One that does not resolve (no such step, no object body, nothing at the path) stays as it is written, and so
does every other thing in braces: it is sent and compared literally.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from tools.conformance.cases import Json
from tools.conformance.paths import PathError, resolve

Bodies = Mapping[str, dict[str, Json]]
"""The object bodies of the answers so far, by step id."""

_REFERENCE = re.compile(r"\{\{steps\.([^.]+)\.response\.body\.([^}]+)\}\}")


def fill(text: str, bodies: Bodies) -> str:
    """Replace the templates in a text: a string by its characters, anything else by its JSON."""
    return _REFERENCE.sub(lambda reference: _replacement(reference, bodies), text)


def fill_matcher(matcher: Json, bodies: Bodies) -> Json:
    """Replace the templates in a matcher's JSON text. Raises ValueError when the outcome is not JSON."""
    text = json.dumps(matcher, ensure_ascii=False)
    filled = fill(text, bodies)
    return matcher if filled == text else json.loads(filled)


def _replacement(reference: re.Match[str], bodies: Bodies) -> str:
    body = bodies.get(reference[1])
    if body is None:
        return reference[0]
    try:
        value = resolve(reference[2], body)
    except PathError:
        return reference[0]
    return reference[0] if value is None else _as_text(value)


def _as_text(value: Json) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
