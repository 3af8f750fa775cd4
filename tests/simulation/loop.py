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


class StuckError(Exception):
    """Nothing is scheduled and nothing is ready: everybody waits for somebody."""


class Call:
    """A callback that is to be made."""

    __slots__ = ("args", "callback", "context")

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context | None = None
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


Wakeup = tuple[contextvars.Context, Callable[..., Any], tuple[Any, ...]]
"""A callback that is never cancelled: what tasks and futures ask for."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Virtual time, one thread, no I/O: what is scheduled for one instant comes in the order of its asking."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._calls: deque[Call | Wakeup] = deque()
        self._timers: list[tuple[float, int, Call | asyncio.Future[None]]] = []
        self._number = 0

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        if context is not None:
            self._calls.append((context, callback, args))
            return None
        call = Call(callback, args)
        self._calls.append(call)
        return call

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        call = Call(callback, args, context)
        self._number += 1
        heappush(self._timers, (when, self._number, call))
        return call

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def after(self, delay_s: float) -> asyncio.Future[None]:
        """Done in a while: cheaper than ``asyncio.sleep``."""
        waiter: asyncio.Future[None] = asyncio.Future(loop=self)
        self._number += 1
        heappush(self._timers, (self.now + delay_s, self._number, waiter))
        return waiter

    async def sleep(self, delay: float, result: Any = None) -> Any:
        """In place of ``asyncio.sleep`` while a simulation runs."""
        await self.after(max(delay, 0.0))
        return result

    def _run_once(self) -> None:
        """All that can be done at this instant; then the next one begins."""
        calls = self._calls
        while calls:
            call = calls.popleft()
            if type(call) is tuple:
                call[0].run(call[1], *call[2])
            elif call.callback is not None:
                call.context.run(call.callback, *call.args)
            if self._stopping:  # type: ignore[attr-defined]
                return
        self._jump()

    def _jump(self) -> None:
        timers = self._timers
        while timers and _is_void(timers[0][2]):
            heappop(timers)
        if not timers:
            raise StuckError(StuckError.__doc__)
        self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            due = heappop(timers)[2]
            if type(due) is Call:
                self._calls.append(due)
            elif not due.done():
                due.set_result(None)

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """Nothing of a generator that was left is awaited: when it is collected must not show in a run."""

    def _write_to_self(self) -> None:
        """No other thread ever wakes this loop."""

    def close(self) -> None:
        self._calls.clear()
        self._timers.clear()
        super().close()


def _is_void(timer: Call | asyncio.Future[None]) -> bool:
    return timer.callback is None if type(timer) is Call else timer.done()
