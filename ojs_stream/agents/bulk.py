"""The bulk agent: open-loop intake. Any Kafka client may produce job envelopes to ``ojs.commands.bulk``.

Each record becomes an ``enqueue`` whose id, source and number come from (partition, offset), so that a record
that is read twice is folded once. The packs of a home go one after the other: an import of a million jobs
never delays the API, and ``ojs.commands`` stays the only order. What cannot be a job goes to the dead topic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
import structlog
from msgspec import Struct

from ojs_stream.core.commands import COMMAND_VERSION, Enqueue, NewJob
from ojs_stream.core.homes import home_of
from ojs_stream.core.ids import derived_job_id
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.portions import portions
from ojs_stream.core.validation import Rules, parse_job
from ojs_stream.errors import RefusedError, UnavailableError
from ojs_stream.log.producer import Record
from ojs_stream.log.topics import Topics

log = structlog.get_logger(__name__)
RETRY_S = 0.5
PACK_MAX = 256
PACK_BYTES_MAX = 1024 * 1024
"""Envelopes of one pack; a single one may be larger (a little over 1 MiB at most, by the rules)."""
SEND_TIMEOUT_S = 10.0
SubmitPack = Callable[[int, Sequence[Enqueue]], Awaitable[list[Outcome]]]


class BulkRecord(Struct, frozen=True):
    """A record of the bulk topic."""

    partition: int
    offset: int
    timestamp_ms: int
    value: bytes


class Sender(Protocol):
    """The part of the producer that this agent needs."""

    async def send_many(self, topic: str, partition: int, records: Sequence[Record], *, timeout_s: float) -> int:
        """Append in order."""


class BulkAgent:
    """Validates, derives ids, and hands over; returns only when everything taken is applied."""

    def __init__(
        self, *, homes: int, rules: Rules, submit_pack: SubmitPack, sender: Sender, topics: Topics
    ) -> None:
        self._homes = homes
        self._rules = rules
        self._submit_pack = submit_pack
        self._sender = sender
        self._topics = topics

    async def take(self, records: Sequence[BulkRecord]) -> None:
        """Bring ``records`` into the log. Waits as long as it takes: nothing is skipped, nothing is lost."""
        by_home: dict[int, list[tuple[BulkRecord, Enqueue]]] = {}
        bad: list[tuple[BulkRecord, str]] = []
        for record in records:
            try:
                command = self._command(record)
            except RefusedError as error:
                bad.append((record, f"{error.code}: {error.message}"))
            else:
                by_home.setdefault(self._home(command.jobs[0]), []).append((record, command))
        await asyncio.gather(*[self._insist(home, pairs) for home, pairs in by_home.items()])
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

    def _home(self, job: NewJob) -> int:
        return home_of(job.id if job.client_id else job.queue, self._homes)

    async def _insist(self, home: int, pairs: list[tuple[BulkRecord, Enqueue]]) -> None:
        for pack in portions(pairs, lambda pair: len(pair[0].value), count_max=PACK_MAX, bytes_max=PACK_BYTES_MAX):
            outcomes = await self._until_applied(home, [command for _, command in pack])
            refused = [
                (record, f"{outcome.code}: {outcome.message}")
                for (record, _), outcome in zip(pack, outcomes, strict=True)
                if outcome.refused
            ]
            await self._bury(refused)

    async def _until_applied(self, home: int, commands: Sequence[Enqueue]) -> list[Outcome]:
        while True:
            try:
                return await self._submit_pack(home, commands)
            except UnavailableError as error:
                log.warning("bulk intake waits", home=home, commands=len(commands), reason=str(error))
                await asyncio.sleep(RETRY_S)

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
