"""`python -m tools.bench.stages`: CPU of each stage that a request passes inside a worker, without any server.

Rates on a machine that others use too move by half within minutes. CPU time of one process moves less, and most
of that is divided out: every figure is scaled to a machine that makes `_yardstick` in 600 us. What lies between
the stages is left out: aiohttp, the event loop, the clients of Kafka and Redis, the sockets.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from statistics import quantiles
from time import process_time
from typing import Any, TypeVar

import hiredis
import msgspec
import orjson

from ojs_stream import stamp
from ojs_stream.core.bodies import parse_ack, parse_claim
from ojs_stream.core.commands import Ack, Claim, Command, Enqueue, Genesis, NewJob
from ojs_stream.core.known import Known
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import DEFAULT_RETENTION, HomeState
from ojs_stream.core.validation import Rules, parse_batch, parse_job
from ojs_stream.log.codec import decode_pack, encode_pack
from ojs_stream.log.outbox import event_record
from ojs_stream.store.commit import Commit, commit_of
from ojs_stream.store.memory import MemoryStore
from ojs_stream.store.redis import write_commands
from ojs_stream.store.rounds import HomeRound, LogEntry, fold_rounds
from ojs_stream.web.responses import job_body, jobs_body
from tools.bench.cases import BATCH_JOBS

ROUNDS = 150
PACK_COMMANDS = 62
"""What a pack carries with 64 clients on one queue (docs/adr/0007)."""
PACK_BATCHES = 4
YARDSTICK_US = 600.0
QUEUE = "bench-1"
JOB = {"type": "bench.noop", "queue": QUEUE, "args": [{"user": 4711, "action": "welcome"}]}
STAGES = ("parse", "seal", "decode", "fold", "commit", "pack", "remember", "events", "answer")
KINDS = ("batch", "single", "fetch", "ack")
RULES = Rules(retention=DEFAULT_RETENTION)
BASE: dict[str, Any] = {"v": 1, "actor": "anonymous", "request": f"req_{stamp.new_uuid()}"}
_NAMESPACE = "bench"
_TICK_MS = 10
T = TypeVar("T")


def _yardstick() -> list[str]:
    found = {("a", str(number)): (number, None) for number in range(2_000)}
    return [one + other for one, other in found]


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing, as all on a store in memory."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waits: this is no work on a memory store")


def _new_id(_queue: str) -> str:
    return stamp.new_job_id(0)


class Home:
    """One home on a store in memory, and the CPU time that each stage of its rounds took."""

    def __init__(self) -> None:
        self.costs: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._store = MemoryStore(_NAMESPACE)
        self._known = Known()
        self._state = HomeState(home=0)
        self._applied: int | None = None
        self._now = stamp.now_ms()
        self.round("", [Genesis(v=1, actor="system", log_id=stamp.new_token(8), partitions=1)], 1)

    def timed(self, kind: str, stage: str, jobs: int, work: Callable[[], T]) -> T:
        """Do it, and note what it took for each job."""
        before = process_time()
        done = work()
        self.costs[kind, stage].append((process_time() - before) / jobs * 1e6)
        return done

    def round(self, kind: str, commands: Sequence[Command], jobs: int) -> list[Outcome]:
        """Take the commands the whole way from the view to the outcomes, as one record of the log."""
        submitted = [msgspec.structs.replace(command, submit=f"view:{n}") for n, command in enumerate(commands)]
        sealed = self.timed(kind, "seal", jobs, lambda: [msgspec.json.encode(command) for command in submitted])
        value = encode_pack(sealed)
        decoded = self.timed(kind, "decode", jobs, lambda: decode_pack(value))
        expected, offset = self._applied, 0 if self._applied is None else self._applied + 1
        self._now += _TICK_MS
        entry = LogEntry(offset, self._now, decoded)
        done = HomeRound(self._state, [entry], homes=1, expected=expected, known=self._known)
        self.timed(kind, "fold", jobs, lambda: run(fold_rounds(self._store, [done])))
        commit = self.timed(kind, "commit", jobs, lambda: self._commit_of(done))
        self.timed(kind, "pack", jobs, lambda: _packed(commit))
        run(self._store.commit([commit]))
        self._state, self._applied = done.world.state(), offset
        self.timed(kind, "remember", jobs, lambda: self._known.learn(done.world))
        self.timed(kind, "events", jobs, lambda: [event_record(event) for event in done.world.events])
        return [outcome for _, outcome in done.world.replies]

    @staticmethod
    def _commit_of(done: HomeRound) -> Commit:
        return commit_of(
            done.world,
            namespace=_NAMESPACE,
            expected=done.expected,
            applied=done.last_offset,
            keep_outcome=lambda _submit: False,
        )


def _packed(commit: Commit) -> bytes:
    arguments: list[Any] = ["EVALSHA", "sha", 1]
    for command in write_commands(commit):
        arguments += (len(command), *command)
    packed: bytes = hiredis.pack_command(tuple(arguments))
    return packed


def _run_batches(home: Home) -> None:
    body, jobs = orjson.dumps({"jobs": [JOB] * BATCH_JOBS}), PACK_BATCHES * BATCH_JOBS
    made = home.timed(
        "batch", "parse", jobs, lambda: _times(PACK_BATCHES, lambda: parse_batch(body, RULES, _new_id))
    )
    outcomes = home.round("batch", [Enqueue(jobs=each, batch=True, **BASE) for each in made], jobs)
    home.timed("batch", "answer", jobs, lambda: [jobs_body(_raws(one), counted=True) for one in outcomes])


def _run_singles(home: Home) -> None:
    body = orjson.dumps(JOB)
    made: list[NewJob] = home.timed(
        "single", "parse", PACK_COMMANDS, lambda: _times(PACK_COMMANDS, lambda: parse_job(body, RULES, _new_id))
    )
    outcomes = home.round("single", [Enqueue(jobs=(each,), **BASE) for each in made], PACK_COMMANDS)
    home.timed("single", "answer", PACK_COMMANDS, lambda: [job_body(_raws(one)[0]) for one in outcomes])


def _run_fetches(home: Home) -> list[str]:
    body = orjson.dumps({"queues": [QUEUE], "count": 1, "worker_id": "bench"})
    home.timed(
        "fetch",
        "parse",
        PACK_COMMANDS,
        lambda: _times(PACK_COMMANDS, lambda: parse_claim(body, jobs_max=100, wait_ms_max=0)),
    )
    claims = [Claim(queues=(QUEUE,), count=1, worker_id="bench", **BASE)] * PACK_COMMANDS
    outcomes = home.round("fetch", claims, PACK_COMMANDS)
    home.timed("fetch", "answer", PACK_COMMANDS, lambda: [jobs_body(_raws(one)) for one in outcomes])
    return [orjson.loads(_raws(one)[0])["id"] for one in outcomes]


def _run_acks(home: Home, job_ids: list[str]) -> None:
    bodies = [orjson.dumps({"job_id": each, "worker_id": "bench", "result": {"ok": True}}) for each in job_ids]
    made = home.timed(
        "ack", "parse", PACK_COMMANDS, lambda: [parse_ack(b, result_bytes_max=1_024) for b in bodies]
    )
    acks = [Ack(job_id=one.job_id, worker_id=one.worker_id, result=one.result, **BASE) for one in made]
    outcomes = home.round("ack", acks, PACK_COMMANDS)
    home.timed("ack", "answer", PACK_COMMANDS, lambda: [job_body(_raws(one)[0]) for one in outcomes])


def _times(count: int, work: Callable[[], T]) -> list[T]:
    return [work() for _ in range(count)]


def _raws(outcome: Outcome) -> list[bytes]:
    return [bytes(raw) for raw in outcome.jobs]


def main() -> None:
    """Print the table: the lower quartile of all rounds."""
    home = Home()
    gc.collect()
    gc.disable()
    for _ in range(ROUNDS):
        home.timed("", "yardstick", 1, _yardstick)
        _run_batches(home)
        _run_singles(home)
        _run_acks(home, _run_fetches(home))
    scale = YARDSTICK_US / quantiles(home.costs["", "yardstick"])[0]
    rows = {stage: [quantiles(home.costs[kind, stage])[0] * scale for kind in KINDS] for stage in STAGES}
    rows["sum"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    print(f"{'us of CPU a job':<16}" + "".join(f"{kind:>9}" for kind in KINDS))
    for stage, row in rows.items():
        print(f"{stage:<16}" + "".join(f"{cost:9.2f}" for cost in row))


if __name__ == "__main__":
    main()
