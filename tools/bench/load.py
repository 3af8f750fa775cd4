"""The load generator: a closed loop over keep-alive connections, in a process of its own.

Each connection has one request under way; the answer sends the next. Latency is from the socket write to
the complete answer. Garbage collection is off while it measures. It runs on uvloop and parses no body.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from time import perf_counter, process_time
from typing import cast

import uvloop

from tools.bench.wire import Answer, WireError, read_answer

DRAIN_S = 20.0
"""How long requests under way at the end of a measurement may take before they count as unanswered."""

COUNTED_S_MAX = 120.0
"""How long a load without a duration may take in all."""

RECONNECT_DELAY_S = 0.2
RECONNECTS_MAX = 50
SAMPLE_BYTES_MAX = 400
_OK = range(200, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send: cycled until the time is up, or each request once when `seconds` is None."""

    host: str
    port: int
    connections: int
    requests: tuple[bytes, ...]
    warmup_s: float = 0.0
    #: Length of the measurement; None sends every request once and measures from first to last.
    seconds: float | None = None
    #: Each request is sent at most once even when there is time left (ids that can be acked only once).
    once: bool = False
    #: A 2xx body that contains this means that there is nothing left: the measurement ends there.
    empty_mark: bytes | None = None
    keep_bodies: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What came back: figures of the measured window; `answered_ok` counts warm-up and drain too."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    answered_ok: int
    errors: dict[str, int]
    error_sample: str
    ran_dry: bool
    client_cpu_share: float
    #: In seconds, ascending.
    latencies: tuple[float, ...] = ()
    bodies: tuple[bytes, ...] = ()

    @property
    def per_second(self) -> float:
        """Return requests per second inside the measured window."""
        return self.requests / self.seconds if self.seconds > 0 else 0.0

    @property
    def error_count(self) -> int:
        """Return how many requests were refused, cut off or not answered."""
        return sum(self.errors.values())


@dataclass(slots=True)
class _Tally:
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    error_sample: str = ""
    answered_ok: int = 0
    bodies: list[bytes] = field(default_factory=list)


class _Connection(asyncio.Protocol):
    """One keep-alive connection of the closed loop."""

    __slots__ = ("_buffer", "_requests", "_run", "_sent_at", "_transport", "busy")

    def __init__(self, run: _Run, requests: Iterator[bytes]) -> None:
        self._run = run
        self._requests = requests
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._sent_at = 0.0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._buffer = b""

    def send_next(self) -> None:
        """Send the next request, or leave the loop when time or requests are over."""
        request = None if self._run.over else next(self._requests, None)
        if request is None or self._transport is None:
            self._run.leave(self)
            return
        self.busy = True
        self._sent_at = perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        try:
            answer = read_answer(data)
        except WireError as error:
            self._give_up("unreadable answer", str(error))
            return
        if answer is None:
            self._buffer = data
        elif len(data) > answer.end:
            self._give_up("unreadable answer", f"{len(data) - answer.end} bytes after the answer")
        else:
            self._finish(answer, data)

    def _finish(self, answer: Answer, data: bytes) -> None:
        self._buffer = b""
        self.busy = False
        self._run.answered(answer, data, self._sent_at)
        if not answer.closes:
            self.send_next()
        elif self._transport is not None:
            self._transport.close()

    def _give_up(self, kind: str, sample: str) -> None:
        self.busy = False
        self._run.failed(kind, sample)
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.busy:
            self.busy = False
            self._run.failed("connection lost", repr(exc))
        self._run.lost(self)

    def close(self) -> None:
        """Close the socket; a request under way stays unanswered."""
        self.busy = False
        if self._transport is not None:
            self._transport.abort()


class _Run:
    """One measurement: its connections, its window and its tally."""

    def __init__(self, load: Load) -> None:
        self.over = False
        self.ran_dry = False
        self._load = load
        self._tally = _Tally()
        self._opens_at = 0.0
        self._closes_at = float("inf")
        self._ended_at = 0.0
        self._left: set[_Connection] = set()
        self._done = asyncio.Event()
        self._reconnects: set[asyncio.Task[None]] = set()
        self._reconnect_count = 0
        self._connections: list[_Connection] = []

    async def measure(self) -> LoadResult:
        await self._connect()
        cpu_before = process_time()
        began = perf_counter()
        self._opens_at = began + self._load.warmup_s
        if self._load.seconds is not None:
            self._closes_at = self._opens_at + self._load.seconds
        for connection in tuple(self._connections):
            connection.send_next()
        await self._wait()
        share = (process_time() - cpu_before) / max(perf_counter() - began, 1e-9)
        self._close()
        return self._result(share)

    async def _connect(self) -> None:
        for requests in _shares(self._load):
            self._connections.append(_Connection(self, requests))
        for connection in self._connections:
            await self._open(connection)

    async def _open(self, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: connection, self._load.host, self._load.port)

    async def _wait(self) -> None:
        limit = COUNTED_S_MAX
        if self._load.seconds is not None:
            limit = self._closes_at + DRAIN_S - perf_counter()
        try:
            await asyncio.wait_for(self._done.wait(), limit)
        except TimeoutError:
            unanswered = sum(connection.busy for connection in self._connections)
            if unanswered:
                self._tally.errors["unanswered"] += unanswered
        self._ended_at = min(self._ended_at or perf_counter(), self._closes_at)

    def answered(self, answer: Answer, data: bytes, sent_at: float) -> None:
        """Take one complete answer."""
        now = perf_counter()
        if answer.status not in _OK:
            self.failed(str(answer.status), data[answer.body_start : answer.end].decode(errors="replace"))
        else:
            self._count(answer, data, sent_at, now)
        if now >= self._closes_at:
            self.over = True

    def _count(self, answer: Answer, data: bytes, sent_at: float, now: float) -> None:
        load = self._load
        if load.empty_mark is not None and data.find(load.empty_mark, answer.body_start) >= 0:
            self.ran_dry = True
            self._end(now)
            return
        tally = self._tally
        tally.answered_ok += 1
        if load.keep_bodies:
            tally.bodies.append(data[answer.body_start : answer.end])
        if self._opens_at <= now < self._closes_at:
            tally.latencies.append(now - sent_at)

    def failed(self, kind: str, sample: str) -> None:
        """Count one request that was refused or got no answer."""
        self._tally.errors[kind] += 1
        if not self._tally.error_sample:
            self._tally.error_sample = f"{kind}: {sample[:SAMPLE_BYTES_MAX]}"

    def leave(self, connection: _Connection) -> None:
        """Note that a connection sends nothing any more."""
        if not self._left and not self.over and self._load.once and self._load.seconds is not None:
            self.ran_dry = True
            self._end(perf_counter())
        self._left.add(connection)
        if len(self._left) == len(self._connections):
            self._ended_at = self._ended_at or perf_counter()
            self._done.set()

    def _end(self, now: float) -> None:
        """Close the window early: what is answered later is drained and not measured."""
        if not self.over:
            self.over = True
            self._ended_at = now
            self._closes_at = min(self._closes_at, now)

    def lost(self, connection: _Connection) -> None:
        """Open a connection again that the server closed, unless the measurement is over."""
        if connection in self._left:
            return
        self._reconnect_count += 1
        if self.over or self._reconnect_count > RECONNECTS_MAX:
            self.leave(connection)
            return
        task = asyncio.get_running_loop().create_task(self._reopen(connection))
        self._reconnects.add(task)
        task.add_done_callback(self._reconnects.discard)

    async def _reopen(self, connection: _Connection) -> None:
        await asyncio.sleep(RECONNECT_DELAY_S)
        try:
            await self._open(connection)
        except OSError as error:
            self.failed("connection refused", str(error))
            self.lost(connection)
        else:
            connection.send_next()

    def _close(self) -> None:
        self.over = True
        self._left.update(self._connections)
        for connection in self._connections:
            connection.close()

    def _result(self, cpu_share: float) -> LoadResult:
        tally = self._tally
        latencies = sorted(tally.latencies)
        return LoadResult(
            requests=len(latencies),
            seconds=max(self._ended_at - self._opens_at, 0.0),
            p50_ms=percentile(latencies, 0.50) * 1000,
            p99_ms=percentile(latencies, 0.99) * 1000,
            max_ms=percentile(latencies, 1.0) * 1000,
            answered_ok=tally.answered_ok,
            errors=dict(tally.errors),
            error_sample=tally.error_sample,
            ran_dry=self.ran_dry,
            client_cpu_share=cpu_share,
            latencies=tuple(latencies),
            bodies=tuple(tally.bodies),
        )


def percentile(ordered: list[float], share: float) -> float:
    """Return the nearest-rank percentile of an ascending list, 0.0 when it is empty."""
    if not ordered:
        return 0.0
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def _shares(load: Load) -> list[Iterator[bytes]]:
    """Give each connection its requests: all take from one list, or each cycles from its own start."""
    if load.once or load.seconds is None:
        shared = iter(load.requests)
        return [shared] * load.connections
    count = len(load.requests)
    return [islice(cycle(load.requests), index % count, None) for index in range(load.connections)]


def measure(load: Load) -> LoadResult:
    """Run one load to its end on a fresh uvloop. Picklable: it is what the client process is asked to do."""
    with _collector_off(), asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(_Run(load).measure())


_new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop


@contextlib.contextmanager
def _collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
