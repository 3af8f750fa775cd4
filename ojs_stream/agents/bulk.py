"""The bulk agent: open-loop intake. Any Kafka client may produce job envelopes to ``ojs.commands.bulk``.

Each record becomes an ``enqueue`` whose id, source and number come from (partition, offset), so that a record
that is read twice is folded once. They go in small portions, each when the one before is applied and no view
waits: an import of a million jobs never delays the API, and ``ojs.commands`` stays the only order. What cannot
be a job goes to the dead topic. What a worker has not ended is read again by the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import NamedTuple, Protocol

import msgspec
import structlog

from ojs_stream.agents.holding import Holding, Standings
from ojs_stream.core.commands import COMMAND_VERSION, Enqueue
from ojs_stream.core.homes import home_of
from ojs_stream.core.ids import derived_job_id
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.portions import portions
from ojs_stream.core.records import JobRecord
from ojs_stream.core.unique import deciding_home
from ojs_stream.core.validation import Rules, parse_job
from ojs_stream.errors import RefusedError, UnavailableError
from ojs_stream.log.intake import BulkRecord
from ojs_stream.log.producer import Record
from ojs_stream.log.topics import Topics

log = structlog.get_logger(__name__)
RETRY_S = 0.5
TAKE_MAX = 1_000
"""Records that are read, and committed, at once."""
GATHER_S = 0.02
"""When less than a portion has come, the next take waits so long for company: nobody waits for an answer."""
PORTION_MAX = 96
PORTION_BYTES_MAX = 256 * 1024
"""Envelopes on their way at once; a single one may be larger (a little over 1 MiB at most, by the rules). They may
all end in one round, and what a client asks meanwhile waits for that round: this is 5 to 10 ms."""
GIVE_WAY_S = 0.05
"""A portion waits at most so long for views that wait, so that an API that is never idle leaves it a share."""
GIVE_WAY_POLL_S = 0.001
SEND_TIMEOUT_S = 10.0
SubmitPack = Callable[[int, Sequence[Enqueue]], Awaitable[list[Outcome]]]
FindJobs = Callable[[list[str]], Awaitable[Mapping[str, tuple[int, JobRecord]]]]
"""(home, record) by id, of those that exist"""


def _bytes_of(record: BulkRecord) -> int:
    return len(record.value)


Pairs = list[tuple[BulkRecord, Enqueue]]


class Intake(Protocol):
    """The bulk topic."""

    async def take(self, count_max: int) -> list[BulkRecord]:
        """What comes next, each partition in its order; empty when nothing came for a while."""

    async def done(self, records: Sequence[BulkRecord]) -> None:
        """They need not be read again."""


class Sender(Protocol):
    """The part of the producer that this agent needs."""

    async def send_many(self, topic: str, partition: int, records: Sequence[Record], *, timeout_s: float) -> int:
        """Append in order."""


class Ways(NamedTuple):
    """Where records go, and whether the way is free."""

    submit_pack: SubmitPack
    busy: Callable[[], bool]
    """Whether commands of views are on their way."""
    sender: Sender


class Lookups(NamedTuple):
    """The reads that this agent needs."""

    find: FindJobs
    standings: Standings


class BulkAgent:
    """Validates, derives ids, and hands over; acknowledges what is applied."""

    def __init__(
        self,
        *,
        homes: int,
        rules: Rules,
        intake: Intake,
        ways: Ways,
        lookups: Lookups,
        topics: Topics,
    ) -> None:
        self._homes = homes
        self._rules = rules
        self._intake = intake
        self._submit_pack = ways.submit_pack
        self._busy = ways.busy
        self._sender = ways.sender
        self._find = lookups.find
        self._holding = Holding(lookups.standings)
        self._topics = topics

    async def run(self) -> None:
        """Take what comes, insist until all of it is applied, say so; for ever."""
        while True:
            try:
                records = await self._intake.take(TAKE_MAX)
            except UnavailableError as error:
                log.warning("bulk intake waits", reason=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            if records:
                await self._take_all(records)
            if len(records) < PORTION_MAX:
                await asyncio.sleep(GATHER_S)

    async def _take_all(self, records: Sequence[BulkRecord]) -> None:
        for portion in portions(records, _bytes_of, count_max=PORTION_MAX, bytes_max=PORTION_BYTES_MAX):
            await self._give_way()
            await self._insist(portion)
        await self._intake.done(records)

    async def _give_way(self) -> None:
        """Whoever waits for an answer goes first."""
        until = monotonic() + GIVE_WAY_S
        while self._busy() and monotonic() < until:
            await asyncio.sleep(GIVE_WAY_POLL_S)

    async def _insist(self, records: Sequence[BulkRecord]) -> None:
        """Whatever goes wrong, these come first: later numbers would make them look repeated."""
        while True:
            try:
                await self.take(records)
            except Exception:
                log.exception("bulk intake failed and begins again", records=len(records))
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def take(self, records: Sequence[BulkRecord]) -> None:
        """Bring ``records`` into the log. Waits as long as it takes: nothing is skipped, nothing is lost."""
        by_home: dict[int, Pairs] = {}
        bad: list[tuple[BulkRecord, str]] = []
        for record in records:
            try:
                command = self._command(record)
            except RefusedError as error:
                bad.append((record, f"{error.code}: {error.message}"))
            else:
                by_home.setdefault(deciding_home(command.jobs, self._homes), []).append((record, command))
        async with asyncio.TaskGroup() as group:
            for home, pairs in by_home.items():
                group.create_task(self._apply(home, pairs))
        await self._bury(bad)

    def _command(self, record: BulkRecord) -> Enqueue:
        def new_id(queue: str) -> str:
            home = home_of(queue, self._homes)
            return derived_job_id(record.partition, record.offset, record.timestamp_ms, home)

        return Enqueue(
            v=COMMAND_VERSION,
            actor="bulk",
            request=f"bulk:{record.partition}:{record.offset}",
            source=f"bulk:{record.partition}",
            # Offsets begin at 0, marks mean "up to and including": 1 is the first number.
            number=record.offset + 1,
            at=0,
            jobs=(parse_job(record.value, self._rules, new_id),),
        )

    async def _apply(self, home: int, pairs: Pairs) -> None:
        pairs = await self._without_taken_ids(pairs)
        while pairs:
            part = await self._holding.room_for([command.jobs[0] for _, command in pairs])
            await self._apply_part(home, pairs[: part.fitting], part.forbidden)
            pairs = pairs[part.fitting :]

    async def _apply_part(self, home: int, pairs: Pairs, forbidden: Mapping[str, str]) -> None:
        """Records that find room; those that their queues never take are buried."""
        ids = [(record, command.jobs[0].id) for record, command in pairs]
        await self._bury([(record, forbidden[job_id]) for record, job_id in ids if job_id in forbidden])
        pairs = [(record, command) for record, command in pairs if command.jobs[0].id not in forbidden]
        outcomes = await self._until_applied(home, [command for _, command in pairs]) if pairs else []
        refused = [
            (record, f"{outcome.code}: {outcome.message}")
            for (record, _), outcome in zip(pairs, outcomes, strict=True)
            if outcome.refused
        ]
        await self._bury(refused)
        self._tell_repeated(home, outcomes)

    async def _without_taken_ids(self, pairs: Pairs) -> Pairs:
        """Server-made ids are not in the id index that the fold checks, so a read looks for them first."""
        chosen = [command.jobs[0].id for _, command in pairs if command.jobs[0].client_id]
        if not chosen:
            return pairs
        found = await self._until_found(chosen)
        # With origins a client has chosen the id, perhaps this very record before a crash: the fold knows.
        taken = {job_id for job_id, (_, record) in found.items() if not record.ctl.origins}
        await self._bury(
            [
                (record, f"duplicate: a job with the id {command.jobs[0].id} exists already")
                for record, command in pairs
                if command.jobs[0].id in taken
            ]
        )
        return [(record, command) for record, command in pairs if command.jobs[0].id not in taken]

    async def _until_found(self, job_ids: list[str]) -> Mapping[str, tuple[int, JobRecord]]:
        while True:
            try:
                return await self._find(job_ids)
            except UnavailableError as error:
                log.warning("bulk intake waits", ids=len(job_ids), reason=str(error))
                await asyncio.sleep(RETRY_S)

    async def _until_applied(self, home: int, commands: Sequence[Enqueue]) -> list[Outcome]:
        while True:
            try:
                return await self._submit_pack(home, commands)
            except UnavailableError as error:
                log.warning("bulk intake waits", home=home, commands=len(commands), reason=str(error))
                await asyncio.sleep(RETRY_S)
            except RefusedError as error:
                # The log takes no record of this size. One by one, only what is too large by itself is buried.
                if len(commands) == 1:
                    return [Outcome(code=error.code, message=error.message, details=error.details)]
                alone = [await self._until_applied(home, [command]) for command in commands]
                return [outcome for (outcome,) in alone]

    @staticmethod
    def _tell_repeated(home: int, outcomes: Sequence[Outcome]) -> None:
        """After a crash some records come twice. A topic that was made anew looks the same: it is to be seen."""
        repeated = sum(1 for outcome in outcomes if outcome.data.get("repeated"))
        if repeated:
            log.warning(
                "bulk records were applied before and are skipped; after a crash that is right, after the bulk "
                "topic was made anew it is not: see docs/ARCHITECTURE.md",
                home=home,
                repeated=repeated,
            )

    async def _bury(self, bad: Sequence[tuple[BulkRecord, str]]) -> None:
        for record, reason in bad:
            await self._bury_one(record, reason)

    async def _bury_one(self, record: BulkRecord, reason: str) -> None:
        value = msgspec.json.encode(
            {
                "reason": reason,
                "topic": self._topics.commands_bulk,
                "partition": record.partition,
                "offset": record.offset,
                "command": record.value[: 512 * 1024].decode("utf-8", errors="backslashreplace"),
            }
        )
        headers = [
            ("ojs-error", reason[:1000].encode()),
            ("ojs-partition", b"%d" % record.partition),
            ("ojs-offset", b"%d" % record.offset),
            ("content-type", b"application/json"),
        ]
        dead = Record(f"bulk:{record.partition}".encode(), value, headers)
        while True:
            try:
                topic = self._topics.commands_dead
                await self._sender.send_many(topic, record.partition, [dead], timeout_s=SEND_TIMEOUT_S)
            except UnavailableError as error:
                log.warning("a bad bulk record waits for its topic", reason=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return
