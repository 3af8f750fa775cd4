"""`python -m tools.bench.replay [commands]`: how fast a log is folded in memory, without Kafka and Redis.

The log is as the load generator makes it, at 64 connections on one queue: of ten commands six enqueue, two fetch,
two ack, and every two seconds comes a tick. It is made by folding it once, since an ack must name a job.
"""

from __future__ import annotations

import sys
from time import perf_counter, process_time

import msgspec
import orjson

from ojs_stream import stamp
from ojs_stream.core.commands import Ack, Claim, Command, Enqueue, Genesis, Tick
from ojs_stream.core.validation import parse_job
from ojs_stream.log.codec import encode_pack
from ojs_stream.log.reader import LogRecord
from ojs_stream.replay.folding import HomeFold, Nothing, fast_folding
from ojs_stream.store.memory import MemoryStore
from tools.bench.stages import BASE, JOB, PACK_COMMANDS, QUEUE, RULES, run

COMMANDS = 200_000
PACK_MS = 10
TICK_EVERY = 200
"""Packs between two ticks: two seconds of the log."""
STEP = 1_000
"""Records handed over at once, as by the log reader."""


class LogMaker:
    """A log that is folded while it is made."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []
        self._now = stamp.now_ms()
        self._fold = run(HomeFold.begin(MemoryStore("maker"), 0, homes=1))
        self.append([Genesis(v=1, actor="system", log_id=stamp.new_token(8), partitions=1)])

    def append(self, commands: list[Command]) -> None:
        """One record of the log."""
        self._now += PACK_MS
        sent = [
            msgspec.structs.replace(each, submit=f"{stamp.new_token(4)}:{n}") for n, each in enumerate(commands)
        ]
        value = encode_pack([msgspec.json.encode(command) for command in sent])
        record = LogRecord(len(self.records), self._now, None, value, ())
        run(self._fold.take([record]))
        self.records.append(record)

    def active(self) -> list[str]:
        """The jobs that were fetched and not acknowledged."""
        store = self._fold.store
        assert isinstance(store, MemoryStore)
        return list(store.data.get("{maker:0}:leases:bench", {}))


def made_log(commands: int) -> tuple[list[LogRecord], int]:
    """The records, and how many commands they carry."""
    log, count, packs = LogMaker(), 1, 0
    while count < commands:
        jobs = [
            parse_job(orjson.dumps(JOB), RULES, lambda _queue: stamp.new_job_id(0))
            for _ in range(3 * PACK_COMMANDS)
        ]
        for start in range(0, len(jobs), PACK_COMMANDS):
            log.append([Enqueue(jobs=(job,), **BASE) for job in jobs[start : start + PACK_COMMANDS]])
        log.append([Claim(queues=(QUEUE,), count=1, worker_id="bench", **BASE) for _ in range(PACK_COMMANDS)])
        log.append([Ack(job_id=job_id, worker_id="bench", **BASE) for job_id in log.active()])
        count += 5 * PACK_COMMANDS
        packs += 5
        if packs % TICK_EVERY == 0:
            log.append([Tick(v=1, actor="system", index=index, dice=0.5) for index in ("run", "reap")])
            count += 2
    return log.records, count


def main() -> None:
    """Print commands a second of one core."""
    records, count = made_log(int(sys.argv[1]) if len(sys.argv) > 1 else COMMANDS)
    fold = run(HomeFold.begin(MemoryStore("bench"), 0, homes=1, outgoing=Nothing()))
    with fast_folding():
        wall, cpu = perf_counter(), process_time()
        for start in range(0, len(records), STEP):
            run(fold.take(records[start : start + STEP]))
        wall, cpu = perf_counter() - wall, process_time() - cpu
    print(
        f"{fold.commands} commands in {fold.records} records: {wall:.1f} s, {count / wall:,.0f} commands/s; "
        f"{cpu:.1f} s of CPU, {count / cpu:,.0f} commands/s of one core"
    )


if __name__ == "__main__":
    main()
