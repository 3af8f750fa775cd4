"""What of a home is still to be sent, at one moment: a snapshot must carry it and nothing more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ojs_stream.core.records import HomeState
from ojs_stream.store import keys
from ojs_stream.store.commit import Acked
from ojs_stream.store.connections import IO_TIMEOUT_S

if TYPE_CHECKING:
    from redis.asyncio import Redis

_state_decoder = msgspec.json.Decoder(HomeState)
_acked_decoder = msgspec.json.Decoder(Acked)


class Unsent(Struct, frozen=True):
    """Read in one transaction. What was issued up to ``applied`` and is not named in ``outbox`` has arrived."""

    applied: int
    log_id: str
    acked: Acked
    outbox: frozenset[str]


async def unsent_of(redis: Redis, namespace: str, home: int) -> Unsent | None:
    """``None`` when Redis has no whole state of the home."""
    pipe = redis.pipeline(transaction=True)
    pipe.get(keys.applied(namespace, home))
    pipe.get(keys.home_state(namespace, home))
    pipe.get(keys.acked(namespace, home))
    pipe.hkeys(keys.outbox(namespace, home))
    async with asyncio.timeout(IO_TIMEOUT_S):
        applied, state, acked, fields = await pipe.execute()
    if applied is None or state is None or int(applied) < 0:
        return None
    return Unsent(
        int(applied),
        _state_decoder.decode(state).log_id,
        Acked() if acked is None else _acked_decoder.decode(acked),
        frozenset(field.decode() for field in fields),
    )
