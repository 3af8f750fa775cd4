"""Snapshots and a log that loses its beginning: the real code in a process that is slow, or dies in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from ojs_stream.core.records import HomeState
from ojs_stream.errors import NewerVersionError, UnavailableError
from ojs_stream.log.topics import Topics
from ojs_stream.replay.snapshotting import Snapshots, Stamps
from ojs_stream.store import keys
from ojs_stream.store.commit import Acked
from ojs_stream.store.unsent import Unsent
from tests.simulation.network import NAMESPACE, Link, Network, SimReader, SimSender

CRASH_STEPS_MAX = 40
_state_decoder = msgspec.json.Decoder(HomeState)
_acked_decoder = msgspec.json.Decoder(Acked)


def unsent_of(net: Network, home: int) -> Unsent | None:
    """As the real one reads it: all of one moment."""
    data = net.store.data
    applied = data.get(keys.applied(NAMESPACE, home))
    state = data.get(keys.home_state(NAMESPACE, home))
    if applied is None or state is None or int(applied) < 0:
        return None
    acked = data.get(keys.acked(NAMESPACE, home))
    return Unsent(
        int(applied),
        _state_decoder.decode(state).log_id,
        Acked() if acked is None else _acked_decoder.decode(acked),
        frozenset(data.get(keys.outbox(NAMESPACE, home), {})),
    )


class Photographer:
    """``ojs-stream snapshot --trim`` for one home, once."""

    def __init__(self, net: Network, homes: int, now_ms: Callable[[], int]) -> None:
        self._net = net
        self._now_ms = now_ms
        link = Link(net)
        link.on_crash = lambda: setattr(link, "dead", True)
        if net.rng.random() < 0.2:
            link.steps_left = net.rng.randint(1, CRASH_STEPS_MAX)
        self._maker = Snapshots(
            reader=SimReader(link),
            sender=SimSender(link),
            topics=Topics(NAMESPACE),
            namespace=NAMESPACE,
            homes=homes,
        )

    async def take(self, home: int, *, trim: bool) -> None:
        """Whatever it cannot do now, another one will do later."""
        net = self._net
        stamps = Stamps(token=f"{net.rng.getrandbits(32):08x}", now_ms=self._now_ms(), code="sim")
        try:
            unsent = unsent_of(net, home)
            await self._maker.make(home, unsent, stamps)
            if trim and unsent is not None:
                await self._trim(home, unsent.log_id)
        except (UnavailableError, NewerVersionError, asyncio.CancelledError):
            return

    async def _trim(self, home: int, log_id: str) -> None:
        offset = await self._maker.superfluous_before(home, log_id)
        if offset is not None:
            self._net.trim(f"{NAMESPACE}.commands", home, offset)
