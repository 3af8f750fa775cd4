"""`python -m tools.bench.backlog`: whether a backlog of a million jobs delays the API.

Own servers. First single enqueues at a modest rate, nothing else: the idle latency. Then a producer of its own
process puts the backlog into the bulk topic, and the same single enqueues go on until all of it is applied.
The client sends at fixed instants, however slow the answers are: a delay is not hidden by a pause of the client.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from time import perf_counter

import orjson
import uvloop
from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tools.bench.asker import Asker, Said
from tools.bench.load import percentile
from tools.bench.queues import covering_queues
from tools.bench.servers import Servers, own_servers
from tools.demo.checks import Checks
from tools.demo.target import EMBEDDED_PARTITIONS, TargetError

JOBS = 1_000_000
RATE_PER_S = 50.0
IDLE_S = 20.0
RATIO_MAX = 5.0
LOOK_S = 1.0
STALLED_S = 60.0
"""No job more for so long: the intake does not go on."""
WARMUP_REQUESTS = 100


@dataclass(slots=True)
class Latencies:
    """What the single enqueues of one phase took."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def take(self, said: Said) -> None:
        """Note one answer."""
        self.statuses[said.status] += 1
        self.seconds.append(said.took_s)

    def ms(self, share: float) -> float:
        """A percentile in milliseconds."""
        return percentile(sorted(self.seconds), share) * 1000

    @property
    def errors(self) -> int:
        """How many were not 2xx."""
        return sum(count for status, count in self.statuses.items() if not 200 <= status < 300)

    def __str__(self) -> str:
        """The line of the report."""
        shown = f"p50 {self.ms(0.5):.1f} ms, p99 {self.ms(0.99):.1f} ms, max {self.ms(1.0):.0f} ms"
        return f"{shown} ({len(self.seconds)} requests)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a run gave."""

    jobs: int
    workers: int
    partitions: int
    rate_per_s: float
    intake_s: float
    idle_p50_ms: float
    idle_p99_ms: float
    during_p50_ms: float
    during_p99_ms: float
    during_max_ms: float
    errors: int

    @property
    def jobs_per_s(self) -> float:
        """Jobs applied per second of the intake."""
        return self.jobs / self.intake_s

    @property
    def ratio(self) -> float:
        """How many times its idle value p99 is."""
        return self.during_p99_ms / self.idle_p99_ms


class Enqueuer:
    """Single enqueues at fixed instants, over all queues and all workers in turn."""

    def __init__(self, servers: Servers, *, rate_per_s: float) -> None:
        self._pause_s = 1.0 / rate_per_s
        self._askers = [Asker(port) for port in servers.ports]
        queues = covering_queues("api", servers.partitions)
        self._bodies = [orjson.dumps({"type": "api.job", "queue": queue, "args": [4711]}) for queue in queues]

    async def run(self, latencies: Latencies, over: asyncio.Event) -> None:
        """Send until it is over, then wait for what is under way."""
        turns = cycle([(asker, body) for body in self._bodies for asker in self._askers])
        due = perf_counter()
        async with asyncio.TaskGroup() as group:
            while not over.is_set():
                asker, body = next(turns)
                group.create_task(self._one(asker, body, latencies))
                due += self._pause_s
                await asyncio.sleep(due - perf_counter())

    async def for_seconds(self, seconds: float) -> Latencies:
        """One phase of a given length."""
        latencies, over = Latencies(), asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, over.set)
        await self.run(latencies, over)
        return latencies

    @staticmethod
    async def _one(asker: Asker, body: bytes, latencies: Latencies) -> None:
        latencies.take(await asker.post("/ojs/v1/jobs", body))

    def close(self) -> None:
        """Close the connections."""
        for asker in self._askers:
            asker.close()


def produce(brokers: str, topic: str, partitions: int, jobs: int) -> None:
    """Put the backlog into the bulk topic: envelopes like any Kafka client's, in its own process."""
    uvloop.run(_produce(brokers, topic, partitions, jobs))


async def _produce(brokers: str, topic: str, partitions: int, jobs: int) -> None:
    queues = covering_queues("bulk", partitions)
    producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all", max_batch_size=512 * 1024)
    await producer.start()
    try:
        for partition in range(partitions):
            await _produce_to(producer, topic, partition, range(partition, jobs, partitions), queues)
    finally:
        await producer.stop()


async def _produce_to(
    producer: AIOKafkaProducer, topic: str, partition: int, numbers: range, queues: tuple[str, ...]
) -> None:
    batch = producer.create_batch()
    for place, number in enumerate(numbers):
        job = {"type": "bulk.job", "queue": queues[place % len(queues)], "args": [number, "backlog"]}
        value = orjson.dumps(job)
        while batch.append(key=None, value=value, timestamp=None) is None:
            await producer.send_batch(batch, topic, partition=partition)
            batch = producer.create_batch()
    await (await producer.send_batch(batch, topic, partition=partition))


async def _applied(asker: Asker, queues: tuple[str, ...]) -> int:
    """How many jobs of the backlog are there."""
    said = await asyncio.gather(*(asker.get(f"/ojs/v1/queues/{queue}/stats") for queue in queues))
    return sum(orjson.loads(one.body)["stats"]["available"] for one in said if one.accepted)


async def _until_applied(asker: Asker, queues: tuple[str, ...], jobs: int, bar: Progress) -> None:
    task = bar.add_task("applied", total=jobs)
    have, since = 0, perf_counter()
    while have < jobs:
        await asyncio.sleep(LOOK_S if jobs > 50_000 else LOOK_S / 5)
        now = await _applied(asker, queues)
        if now > have:
            have, since = now, perf_counter()
        elif perf_counter() - since > STALLED_S:
            raise TargetError(f"the intake stands still at {have} of {jobs} jobs for {STALLED_S:g} s")
        bar.update(task, completed=have)


async def measure(servers: Servers, *, jobs: int, rate_per_s: float, idle_s: float, console: Console) -> Figures:
    """Both phases against servers that are ready."""
    queues = covering_queues("bulk", servers.partitions)
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context("spawn")
    with (
        closing(Enqueuer(servers, rate_per_s=rate_per_s)) as enqueuer,
        closing(Asker(servers.ports[0])) as looker,
        ProcessPoolExecutor(1, mp_context=context) as pool,
        _bar(console) as bar,
    ):
        await enqueuer.for_seconds(WARMUP_REQUESTS / rate_per_s)
        gc.collect()
        gc.freeze()
        idle = await enqueuer.for_seconds(idle_s)
        during, over, begun = Latencies(), asyncio.Event(), perf_counter()
        topic = f"{servers.namespace}.commands.bulk"
        sent = loop.run_in_executor(pool, produce, servers.brokers, topic, servers.partitions, jobs)
        sending = asyncio.create_task(enqueuer.run(during, over))
        try:
            await sent
            await _until_applied(looker, queues, jobs, bar)
            intake_s = perf_counter() - begun
        finally:
            over.set()
            await sending
    console.print(f"idle:   {idle}", highlight=False)
    console.print(f"intake: {during}", highlight=False)
    return Figures(
        jobs=jobs,
        workers=len(servers.workers),
        partitions=servers.partitions,
        rate_per_s=rate_per_s,
        intake_s=intake_s,
        idle_p50_ms=idle.ms(0.5),
        idle_p99_ms=idle.ms(0.99),
        during_p50_ms=during.ms(0.5),
        during_p99_ms=during.ms(0.99),
        during_max_ms=during.ms(1.0),
        errors=idle.errors + during.errors,
    )


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)


def judge(figures: Figures) -> Checks:
    """What must hold."""
    checks = Checks()
    found = f"{figures.jobs:,} jobs in {figures.intake_s:.1f} s: {figures.jobs_per_s:,.0f}/s"
    checks.add("the whole backlog is applied", passed=True, found=found)
    checks.add("no enqueue fails meanwhile", passed=figures.errors == 0, found=f"{figures.errors} errors")
    checks.add(
        f"p99 of a single enqueue stays under {RATIO_MAX:g} times its idle value",
        passed=figures.ratio < RATIO_MAX,
        found=f"{figures.ratio:.1f} times: {figures.idle_p99_ms:.1f} ms and {figures.during_p99_ms:.1f} ms",
    )
    return checks


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.backlog", description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS, help=f"size of the backlog (default: {JOBS})")
    parser.add_argument("--workers", type=int, default=1, help="worker processes (default: 1)")
    parser.add_argument("--partitions", type=int, default=EMBEDDED_PARTITIONS, help="partitions of ojs.commands")
    parser.add_argument("--rate", type=float, default=RATE_PER_S, help="single enqueues per second")
    parser.add_argument("--idle", type=float, default=IDLE_S, help="seconds of the idle phase")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


async def _run(arguments: argparse.Namespace, console: Console) -> Figures:
    console.print("starting ...", highlight=False)
    async with own_servers(workers=arguments.workers, partitions=arguments.partitions) as servers:
        return await measure(
            servers, jobs=arguments.jobs, rate_per_s=arguments.rate, idle_s=arguments.idle, console=console
        )


def main() -> int:
    """Run it; the exit code is 1 when a bound was missed or there was no server."""
    arguments, console = _arguments(), Console()
    try:
        figures = asyncio.run(_run(arguments, console))
    except TargetError as error:
        console.print(str(error), style="bold red", markup=False, soft_wrap=True)
        return 1
    checks = judge(figures)
    if arguments.json:
        content = {**asdict(figures), "jobs_per_s": figures.jobs_per_s, "ratio": figures.ratio}
        arguments.json.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    checks.print(console)
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
