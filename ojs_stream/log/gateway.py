"""From a view to the log and back: packs on the way in, outcomes on the way out (DESIGN.md section 6).

A view's command goes to the packer of its home. While packs of a home are in flight, the packer collects; a
pack is in flight until its own offset is applied, because small packs in front of the fold would not merge.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import Any, Protocol

import msgspec
import structlog
from msgspec import Struct

from ojs_stream.core.commands import Command, version_of
from ojs_stream.core.outcomes import Awaited, Outcome
from ojs_stream.errors import RefusedError, UnavailableError
from ojs_stream.forever import forever
from ojs_stream.log.codec import encode_pack, pack_headers
from ojs_stream.log.producer import NO_OFFSET, Appended, Headers
from ojs_stream.log.reader import LogRecord

log = structlog.get_logger(__name__)
_encoder = msgspec.json.Encoder()

SWEEP_S = 0.05
"""How often waiting views are looked after: overdue ones end, unheard outcomes are polled."""
STALLED_S = 1.5
"""A produce unacknowledged for longer: Kafka is taken to be down and new commands are refused at once."""
MERGE_TURNS = 3
"""Turns of the event loop between an applied pack and the next: the clients that were just answered are heard in
them, so that the next pack carries all. No timer: with nothing to do, turns take microseconds."""
LATE_S = 55.0
"""So long an unknown outcome is looked for when somebody must act on it: stored outcomes are kept for 60 s."""
LATE_SWEEPS = 20
"""It is polled in every twentieth sweep."""
LATE_MAX = 10_000
AWAIT_S = 1.0
"""How long an answer waits for effects at other homes."""
AWAIT_POLL_S = 0.004


class PackBounds(Struct, frozen=True, kw_only=True):
    """Limits of the packers (settings)."""

    deadline_s: float = 10.0
    waiting_commands_max: int = 10_000
    waiting_bytes_max: int = 64 * 1024 * 1024
    pack_commands_max: int = 256
    pack_bytes_max: int = 256 * 1024
    packs_in_flight_max: int = 1
    full_packs_in_flight_max: int = 4


class Producer(Protocol):
    """The part of the log producer that packers need."""

    async def send(
        self,
        topic: str,
        partition: int,
        value: bytes,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timeout_s: float = 10.0,
    ) -> Appended:
        """Where it is; ``UnavailableError(unknown=True)`` when the outcome is not known."""

    def stalled_s(self) -> float:
        """How long the oldest produce has been waiting for its acknowledgement."""


class Host(Protocol):
    """What a gateway asks of, and tells, the worker that it belongs to."""

    def appended(self, home: int, record: LogRecord) -> None:
        """A pack is in the log: if the home is here, it need not wait for its delivery."""

    async def outcomes(self, late: list[tuple[int, str]]) -> list[Outcome | None]:
        """Outcomes of (home, submit) that another worker's round has stored, as far as they are there."""

    async def mark(self, destination: int, source: int) -> int:
        """The highest message of ``source`` that ``destination`` has folded."""

    def check(self, home: int) -> None:
        """``UnavailableError`` if commands for ``home`` cannot be applied now, as far as it is known."""


class _Waiting(Struct, eq=False):
    future: asyncio.Future[Outcome]
    home: int
    since: float
    pack: _Pack | None = None
    forwarded: int | None = None
    """The home that will answer, when the job has moved."""


class _Late(Struct, eq=False):
    """Somebody who must hear of an outcome, though its view has told its client that it is unknown."""

    home: int
    hear: Callable[[Outcome], None]
    until: float


class _Pack(Struct, eq=False):
    commands: list[tuple[str, bytes, str]]
    """(submit, encoded command, kind)"""
    remaining: int
    offset: int | None = None


class Packer:
    """The commands of one home on their way into the log."""

    def __init__(self, home: int, gateway: Gateway) -> None:
        self._home = home
        self._gateway = gateway
        self._waiting: deque[tuple[str, bytes, str]] = deque()
        self._waiting_bytes = 0
        self._in_flight: list[_Pack] = []
        self._scheduled = False
        self._applied = -1

    def add(self, submit: str, data: bytes, kind: str) -> None:
        """Queue a command; it leaves with the next pack."""
        bounds = self._gateway.bounds
        full = len(self._waiting) >= bounds.waiting_commands_max
        if full or self._waiting_bytes + len(data) > bounds.waiting_bytes_max:
            raise UnavailableError(f"Too many commands wait for home {self._home}.")
        self._waiting.append((submit, data, kind))
        self._waiting_bytes += len(data)
        self._flush_soon(1)

    def applied(self, offset: int) -> None:
        """The home has applied ``offset``: packs up to it are out of flight."""
        self._applied = max(self._applied, offset)
        if self._in_flight:
            self._in_flight = [p for p in self._in_flight if p.offset is None or p.offset > offset]
        self._flush_soon(MERGE_TURNS)

    @property
    def flying(self) -> bool:
        """Whether a pack is on its way."""
        return bool(self._in_flight)

    def answered(self, pack: _Pack) -> None:
        """One command of the pack has its outcome, or nobody waits for it any more."""
        pack.remaining -= 1
        if pack.remaining == 0:
            self._land(pack)

    def _land(self, pack: _Pack) -> None:
        if pack in self._in_flight:
            self._in_flight.remove(pack)
        self._flush_soon(MERGE_TURNS)

    @property
    def _has_room(self) -> bool:
        """Whether a pack may leave. A full one gains nothing by waiting, but for the memory it takes."""
        bounds, flying = self._gateway.bounds, len(self._in_flight)
        is_full = self._waiting_bytes >= bounds.pack_bytes_max
        return flying < bounds.packs_in_flight_max or (is_full and flying < bounds.full_packs_in_flight_max)

    def _flush_soon(self, turns: int) -> None:
        """Send after so many turns of the loop, if there is something to send and room in flight."""
        if self._waiting and self._has_room and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush, turns - 1)

    def _flush(self, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._flush, turns - 1)
            return
        self._scheduled = False
        while self._waiting and self._has_room:
            pack = self._take()
            if pack.commands:
                self._in_flight.append(pack)
                self._gateway.spawn(self._produce(pack))

    def _take(self) -> _Pack:
        """The next pack. What nobody waits for any more was never written, and is not written now."""
        bounds = self._gateway.bounds
        pack = _Pack([], 0)
        size = 0
        while self._waiting and pack.remaining < bounds.pack_commands_max:
            command = self._waiting[0]
            if pack.commands and size + len(command[1]) > bounds.pack_bytes_max:
                break
            self._waiting.popleft()
            self._waiting_bytes -= len(command[1])
            if self._gateway.packed(command[0], pack):
                pack.commands.append(command)
                pack.remaining += 1
                size += len(command[1])
        return pack

    async def _produce(self, pack: _Pack) -> None:
        try:
            pack.offset = await self._gateway.produce(self._home, [(c[1], c[2]) for c in pack.commands])
        except RefusedError as error:
            self._gateway.fail(pack, error)
            self._land(pack)
        except UnavailableError as error:
            # Unknown: it may land late. The views go on waiting for an outcome until their deadline.
            log.warning("produce of a pack failed", home=self._home, reason=str(error))
            self._land(pack)
        else:
            if pack.offset <= self._applied:
                self._land(pack)


class Gateway:
    """``submit(command) -> outcome`` for the views, timers and agents of this worker."""

    def __init__(
        self,
        *,
        instance: str,
        homes: int,
        topic: str,
        producer: Producer,
        host: Host,
        bounds: PackBounds | None = None,
    ) -> None:
        self.instance = instance
        self.bounds = bounds or PackBounds()
        self._topic = topic
        self._producer = producer
        self._host = host
        self._packers = [Packer(home, self) for home in range(homes)]
        self._submits: dict[str, _Waiting] = {}
        self._late: dict[str, _Late] = {}
        self._sweeps = 0
        self._numbers = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self.closing = False

    def start(self) -> None:
        """Begin to look after waiting views."""
        self._sweeper = asyncio.create_task(forever("sweeper", self._sweep), name="sweeper")

    async def drain(self, timeout_s: float) -> None:
        """Refuse new commands and wait until every view has its outcome."""
        self.closing = True
        until = monotonic() + timeout_s
        while self._submits and monotonic() < until:
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """Stop looking after views."""
        if self._sweeper is not None:
            self._sweeper.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run in the background, held until done."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- in -----------------------------------------------------------------------------------------------

    async def submit(
        self,
        home: int,
        command: Command,
        *,
        gated: bool = True,
        late: Callable[[Outcome], None] | None = None,
    ) -> Outcome:
        """Hand ``command`` to ``home`` and wait until it is applied; with its effects at other homes (<= 1 s).

        ``UnavailableError``: Kafka is down (nothing was produced), or the deadline passed (unknown). ``gated``
        false is for ticks: they do not queue behind the packs in flight. ``late`` hears of an outcome that
        becomes known after the deadline.
        """
        self._check(home, gated=gated)
        submit, data, kind = self._sealed(command)
        waiting = _Waiting(asyncio.get_running_loop().create_future(), home, monotonic())
        self._submits[submit] = waiting
        try:
            if gated:
                self._packers[home].add(submit, data, kind)
            else:
                self.spawn(self._produce_alone(home, data, kind))
            outcome = await waiting.future
        except UnavailableError:
            if late is not None and waiting.pack is not None and len(self._late) < LATE_MAX:
                self._late[submit] = _Late(home, late, monotonic() + LATE_S)
            raise
        finally:
            self._forget(submit)
        if outcome.awaits:
            await self._await_marks(outcome.awaits)
        return outcome

    async def submit_pack(self, home: int, commands: Sequence[Command]) -> list[Outcome]:
        """Hand over several commands as one pack of its own, past the gate; the outcomes in order."""
        self._check(home)
        pack: list[tuple[bytes, str]] = []
        submits: list[str] = []
        for command in commands:
            submit, data, kind = self._sealed(command)
            self._submits[submit] = _Waiting(asyncio.get_running_loop().create_future(), home, monotonic())
            submits.append(submit)
            pack.append((data, kind))
        futures = [self._submits[submit].future for submit in submits]
        try:
            await self.produce(home, pack)
            return list(await asyncio.gather(*futures))
        finally:
            for submit in submits:
                self._forget(submit)
            for future in futures:
                future.cancel()

    def _check(self, home: int, *, gated: bool = True) -> None:
        """Refuse before anything is written what cannot be applied now."""
        if self.closing and gated:
            raise UnavailableError("This worker is shutting down; repeat the request.")
        if self._producer.stalled_s() > STALLED_S:
            raise UnavailableError("Kafka does not answer; nothing was written.", retry_after_s=2)
        self._host.check(home)

    def _sealed(self, command: Command) -> tuple[str, bytes, str]:
        """(submit, encoded command, kind) with a new submit id."""
        self._numbers += 1
        submit = f"{self.instance}:{self._numbers}"
        version = max(command.v, version_of(command))
        data = _encoder.encode(msgspec.structs.replace(command, v=version, submit=submit))
        return submit, data, str(command.__struct_config__.tag)

    def _forget(self, submit: str) -> None:
        waiting = self._submits.pop(submit, None)
        if waiting is not None and waiting.pack is not None:
            self._packers[waiting.home].answered(waiting.pack)

    async def _produce_alone(self, home: int, data: bytes, kind: str) -> None:
        try:
            await self.produce(home, [(data, kind)])
        except UnavailableError as error:
            log.warning("produce failed", home=home, kind=kind, reason=str(error))

    async def produce(self, home: int, commands: list[tuple[bytes, str]]) -> int:
        """Write one pack; gives its offset."""
        headers = pack_headers(len(commands), [kind for _, kind in commands])
        value = encode_pack([data for data, _ in commands])
        timeout_s = self.bounds.deadline_s
        sent = await self._producer.send(self._topic, home, value, headers=headers, timeout_s=timeout_s)
        if sent.offset != NO_OFFSET:
            self._host.appended(home, LogRecord(sent.offset, sent.timestamp_ms, None, value, ()))
        return sent.offset

    # -- out ----------------------------------------------------------------------------------------------

    def packed(self, submit: str, pack: _Pack) -> bool:
        """The command leaves with ``pack``; ``False`` when nobody waits for it any more."""
        waiting = self._submits.get(submit)
        if waiting is None:
            return False
        waiting.pack = pack
        return True

    def is_own(self, submit: str) -> bool:
        """Whether a view of this worker waits under ``submit`` (or did)."""
        return submit.startswith(self.instance) and submit[len(self.instance)] == ":"

    def resolve(self, submit: str, outcome: Outcome) -> None:
        """The command is applied: answer its view (or know from which home its answer will come)."""
        waiting = self._submits.get(submit)
        if waiting is None:
            late = self._late.pop(submit, None)
            if late is not None:
                late.hear(outcome)
            return
        if waiting.future.done():
            return
        if outcome.forwarded is None:
            waiting.future.set_result(outcome)
        else:
            waiting.forwarded = outcome.forwarded

    def fail(self, pack: _Pack, error: RefusedError) -> None:
        """The pack can never be written."""
        for submit, _, _ in pack.commands:
            waiting = self._submits.get(submit)
            if waiting is not None and not waiting.future.done():
                waiting.future.set_exception(error)

    def is_busy(self) -> bool:
        """Whether packs of views are on their way to any home."""
        return any(packer.flying for packer in self._packers)

    @property
    def waiting(self) -> int:
        """How many commands of this worker have no outcome yet."""
        return len(self._submits)

    def is_flying(self, home: int) -> bool:
        """Whether a pack of this worker is on its way to ``home``."""
        return self._packers[home].flying

    def applied(self, home: int, offset: int) -> None:
        """``home`` has applied ``offset``."""
        self._packers[home].applied(offset)

    # -- looking after ------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        await asyncio.sleep(SWEEP_S)
        now = monotonic()
        late = [
            (w.home if w.forwarded is None else w.forwarded, s)
            for s, w in self._submits.items()
            if now - w.since > SWEEP_S and not w.future.done()
        ]
        for home, submit in late:
            self._expire(home, submit, now)
        late += self._overdue(now)
        if late:
            await self._poll(late[:1_000])

    def _overdue(self, now: float) -> list[tuple[int, str]]:
        """Outcomes that nobody waits for any more and somebody must hear of; not in every sweep."""
        self._sweeps += 1
        if not self._late or self._sweeps % LATE_SWEEPS:
            return []
        self._late = {submit: late for submit, late in self._late.items() if late.until > now}
        return [(late.home, submit) for submit, late in self._late.items()]

    def _expire(self, home: int, submit: str, now: float) -> None:
        waiting = self._submits.get(submit)
        if waiting is None or waiting.future.done() or now - waiting.since < self.bounds.deadline_s:
            return
        waiting.future.set_exception(
            UnavailableError(
                f"Home {home} did not apply the command within {self.bounds.deadline_s:g} s: "
                "its outcome is unknown.",
                unknown=True,
            )
        )

    async def _poll(self, late: list[tuple[int, str]]) -> None:
        try:
            outcomes = await self._host.outcomes(late)
        except UnavailableError:
            return
        for (_, submit), outcome in zip(late, outcomes, strict=True):
            if outcome is not None:
                self.resolve(submit, outcome)

    async def _await_marks(self, awaits: tuple[Awaited, ...]) -> None:
        until = monotonic() + AWAIT_S
        for source, destination, number in awaits:
            while monotonic() < until:
                try:
                    if await self._host.mark(destination, source) >= number:
                        break
                except UnavailableError:
                    return
                await asyncio.sleep(AWAIT_POLL_S)
