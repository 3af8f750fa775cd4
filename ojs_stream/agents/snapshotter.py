"""Snapshots of this worker's homes when they are due, one after the other, each made by a process of its own.

The process is ``ojs-stream snapshot``: it folds the last snapshot and the log since then, at low priority. The
live home does nothing for it. A home that moves while it is being made needs no care: a snapshot is of the log.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic

import structlog
from msgspec import Struct

from ojs_stream import stamp
from ojs_stream.agents.owner import Owner
from ojs_stream.errors import LogRefusedError, UnavailableError
from ojs_stream.log import snapshots
from ojs_stream.log.connection import Bootstrap
from ojs_stream.log.reader import LogReader
from ojs_stream.log.topics import Topics

log = structlog.get_logger(__name__)

LOOK_S = 2.0
"""A look compares numbers in memory, as a rule."""
FAILED_WAIT_S = 300.0
"""After a snapshot that could not be made its home waits so long."""
MAKE_S_MAX = 3_600.0
"""A process that takes longer is ended: the next one begins where the last snapshot was."""
SAID_CHARS_MAX = 2_000


class Last(Struct, frozen=True):
    """The newest snapshot of a home, or the beginning of its log."""

    offset: int
    at_ms: int


class Rule(Struct, frozen=True):
    """When a snapshot is due; 0 is never."""

    every_ms: int
    commands: int

    def is_due(self, last: Last, *, now_ms: int, applied: int, commands: int) -> bool:
        """``commands``: folded since then, as far as it is known."""
        if applied <= last.offset:
            return False
        # Every record carries at least one.
        since = max(commands, applied - last.offset)
        return 0 < self.commands <= since or 0 < self.every_ms <= now_ms - last.at_ms


class _Watched(Struct):
    owner: Owner
    last: Last
    commands: int
    """What the owner had folded before ``last``, as far as it is known: a snapshot too early does no harm."""


LookUp = Callable[[int], Awaitable[Last]]
Make = Callable[[int], Awaitable[bool]]


class Snapshotter:
    """Looks at the owners' homes now and then; ``make`` says whether it went well."""

    def __init__(self, owners: Callable[[], Iterable[Owner]], rule: Rule, look_up: LookUp, make: Make) -> None:
        self._owners = owners
        self._rule = rule
        self._look_up = look_up
        self._make = make
        self._watched: dict[int, _Watched] = {}
        self._not_before: dict[int, float] = {}

    async def run(self) -> None:
        """A step: wait, then look at every home once."""
        await asyncio.sleep(LOOK_S)
        await self.look()

    async def look(self) -> None:
        """Make what is due."""
        for owner in list(self._owners()):
            if owner.live and monotonic() >= self._not_before.get(owner.home, 0.0) and await self._is_due(owner):
                await self._renew(owner)

    async def _is_due(self, owner: Owner) -> bool:
        watched = self._watched.get(owner.home)
        if watched is None or watched.owner is not owner:
            watched = await self._watch(owner, commands=0)
            if watched is None:
                return False
        return self._rule.is_due(
            watched.last,
            now_ms=stamp.now_ms(),
            applied=-1 if owner.applied is None else owner.applied,
            commands=owner.commands - watched.commands,
        )

    async def _watch(self, owner: Owner, *, commands: int) -> _Watched | None:
        try:
            last = await self._look_up(owner.home)
        except (UnavailableError, LogRefusedError) as error:
            log.info("the snapshots of a home cannot be read", home=owner.home, reason=str(error))
            self._watched.pop(owner.home, None)
            return None
        watched = self._watched[owner.home] = _Watched(owner, last, commands)
        return watched

    async def _renew(self, owner: Owner) -> None:
        folded = owner.commands
        if await self._make(owner.home):
            await self._watch(owner, commands=folded)
        else:
            self._not_before[owner.home] = monotonic() + FAILED_WAIT_S


async def last_of(bootstrap: Bootstrap, topics: Topics, home: int) -> Last:
    """The newest snapshot of a home; without one, the first record of its log."""
    async with LogReader.open(bootstrap) as reader:
        for found in await snapshots.newest(reader, topics.snapshots, home, limit=1):
            return Last(found.manifest.offset, found.manifest.made_ms)
        begin, end = await reader.bounds(topics.commands, home)
        async for records in reader.read(topics.commands, home, begin, min(begin + 1, end)):
            return Last(begin, records[0].timestamp_ms)
    return Last(-1, stamp.now_ms())


def snapshot_argv(home: int, *, trim: bool) -> list[str]:
    """The command line of the process that makes one."""
    return [sys.executable, "-m", "ojs_stream.cli", "snapshot", "--partition", str(home), *(["--trim"] * trim)]


async def make_by(argv: Sequence[str]) -> bool:
    """Run a process to its end; what it says is logged. It ends with the task that waits for it."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
    except OSError as error:
        log.warning("a snapshot could not be made", reason=str(error))
        return False
    figures, reason = await _said_by(process)
    if process.returncode == 0:
        log.info("snapshot", said=figures)
        return True
    log.warning("a snapshot could not be made", code=process.returncode, reason=reason)
    return False


async def _said_by(process: asyncio.subprocess.Process) -> tuple[str, str]:
    """What came from both of its outputs."""
    said = b"", b"it took too long"
    try:
        async with asyncio.timeout(MAKE_S_MAX):
            said = await process.communicate()
    except TimeoutError:
        log.info("a snapshot takes too long", pid=process.pid)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _text(said[0]), _text(said[1])


def _text(said: bytes) -> str:
    return said.decode(errors="replace").strip()[-SAID_CHARS_MAX:]
