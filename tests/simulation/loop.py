"""An event loop whose time jumps to the next thing to do, so that a minute of sleeping costs nothing.

It is a loop of its own, not asyncio's with a fake selector: a simulated run is little else than turns of the loop,
and these are the cheapest ones that tasks, futures and timers of asyncio can live on.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

SHARED = contextvars.Context()
"""For callbacks that only wake somebody: who is woken has a context of its own."""


class StuckError(Exception):
    """Nothing is scheduled and nothing is ready: everybody waits for somebody."""


class Call:
    """A callback that is to be made."""

    __slots__ = ("args", "callback", "context")

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context | None
    ) -> None:
        self.callback: Callable[..., Any] | None = callback
        self.args = args
        self.context = context if context is not None else contextvars.copy_context()

    def cancel(self) -> None:
        """See ``asyncio.Handle``."""
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        """See ``asyncio.Handle``."""
        return self.callback is None


class VirtualLoop(asyncio.BaseEventLoop):
    """Virtual time, one thread, no I/O: what is scheduled for the same instant comes in the order of its asking."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.turns = 0
        self._calls: deque[Call] = deque()
        self._timers: list[tuple[float, int, Call]] = []
        self._timer = 0

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        call = Call(callback, args, context)
        self._calls.append(call)
        return call

    def call_at(
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        call = Call(callback, args, context)
        self._timer += 1
        heappush(self._timers, (when, self._timer, call))
        return call

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    async def pause(self, delay_s: float) -> None:
        """``asyncio.sleep`` for less."""
        waiter = self.create_future()
        self.call_at(self.now + delay_s, _wake, waiter, context=SHARED)
        await waiter

    async def sleep(self, delay: float, result: Any = None) -> Any:
        """In place of ``asyncio.sleep`` while a simulation runs."""
        waiter = self.create_future()
        if delay > 0:
            self.call_at(self.now + delay, _wake, waiter, context=SHARED)
        else:
            self.call_soon(_wake, waiter, context=SHARED)
        await waiter
        return result

    def _run_once(self) -> None:
        """All that can be done at this instant; then the next one begins."""
        calls = self._calls
        while calls:
            call = calls.popleft()
            if call.callback is not None:
                self.turns += 1
                call.context.run(call.callback, *call.args)
                if self._stopping:  # type: ignore[attr-defined]
                    return
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heappop(timers)
        if not timers:
            raise StuckError(StuckError.__doc__)
        self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            calls.append(heappop(timers)[2])

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """Nothing of a generator that was left is awaited: when it is collected must not show in a run."""

    def _write_to_self(self) -> None:
        """No other thread ever wakes this loop."""

    def close(self) -> None:
        self._calls.clear()
        self._timers.clear()
        super().close()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
