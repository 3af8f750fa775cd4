"""Names of Redis keys: one function each. Every key of a home carries its hash tag ``{<ns>:<home>}``."""

from __future__ import annotations

from functools import lru_cache

from ojs_stream.core.homes import HOMES_MAX
from ojs_stream.core.records import Key


def home_tag(namespace: str, home: int) -> str:
    """The hash tag of a home, so that Redis Cluster keeps it in one slot."""
    return f"{{{namespace}:{home}}}"


@lru_cache(maxsize=HOMES_MAX)
def home_prefix(namespace: str, home: int) -> str:
    """What every key of a home starts with."""
    return home_tag(namespace, home) + ":"


def record(namespace: str, home: int, key: Key) -> str:
    """STRING (a record as JSON) or ZSET (an index): ``{ojs:3}:job:<id>``, ``{ojs:3}:state:<queue>:<state>``."""
    return home_prefix(namespace, home) + ":".join(key)


def applied(namespace: str, home: int) -> str:
    """STRING: the offset up to which the home's records are true. The fence compares it."""
    return home_prefix(namespace, home) + "applied"


def home_state(namespace: str, home: int) -> str:
    """STRING: ``HomeState`` as JSON."""
    return home_prefix(namespace, home) + "home"


def events(namespace: str, home: int) -> str:
    """HASH: slot (event number % 10,000) -> event JSON; a ring, so that it caps itself."""
    return home_prefix(namespace, home) + "events"


def outbox(namespace: str, home: int) -> str:
    """HASH: ``e:<number>`` -> effect, ``m:<destination>:<number>`` -> message, until they are in Kafka."""
    return home_prefix(namespace, home) + "outbox"


def acked(namespace: str, home: int) -> str:
    """STRING: ``Acked`` as JSON: how far events are known to be in their topic; no part of the compared state."""
    return home_prefix(namespace, home) + "acked"


def outcome(namespace: str, home: int, submit: str) -> str:
    """STRING with expiry: the outcome for a view of another worker; not part of the compared state."""
    return home_prefix(namespace, home) + "outcome:" + submit


def replies(namespace: str, instance: str) -> str:
    """Pub/sub channel of a worker: outcomes that another worker's rounds produced for it."""
    return f"{namespace}:replies:{instance}"
