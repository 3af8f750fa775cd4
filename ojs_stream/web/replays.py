"""``Idempotency-Key``: read and checked here, remembered by the fold at hash(key) (``core/fold/replays.py``)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ojs_stream.core.envelope import bad_field
from ojs_stream.core.outcomes import Outcome
from ojs_stream.web.middleware import Call

KEY_CHARS_MAX = 256
"""OJS.md 2.1 and the bulk specification, 10.2."""
_KEY = re.compile(rf"[\x20-\x7e]{{1,{KEY_CHARS_MAX}}}")
HEADER = "Idempotency-Key"


Replay = Mapping[str, Any]
"""The fields ``replay`` and ``body`` of a command, for ``**``; nothing without a key."""
NO_REPLAY: Replay = MappingProxyType({})


def replay_of(call: Call, operation: str, body: bytes, key: str = "") -> Replay:
    """What a command of this request says of its key. The header wins over the ``key`` of the body.

    A key counts for one actor and one ``operation``. ``home_of(replay)`` decides on the command.
    """
    given = call.request.headers.get(HEADER)
    name, word = (HEADER, given) if given is not None else ("idempotency_key", key)
    if given is None and not key:
        return NO_REPLAY
    if not _KEY.fullmatch(word):
        raise bad_field(name, f"must be 1 to {KEY_CHARS_MAX} printable ASCII characters")
    digest = hashlib.sha256(body).hexdigest()
    return {"replay": f"{call.actor}/{operation}/{word}", "body": digest}


def told(outcome: Outcome) -> dict[str, str]:
    """The header that tells a repeat from the first request."""
    return {"idempotency_replayed": "true"} if outcome.data.get("replayed") else {}
