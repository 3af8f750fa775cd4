"""The course of a bench run: several rounds of short slices for every number of connections and set of queues.

A machine that others use too is fast and slow by turns. In a round all cases have their slice one after the
other, with the floor among them, so that a ratio compares what the same seconds gave. The first round warms up.
What batch and enqueue put into the queues, fetch and ack take out; what is missing is filled up, not measured.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle, islice
from math import ceil
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tools.bench import cases
from tools.bench.figures import Figure, Figures, FloorDrift, Round, figure
from tools.bench.floor import HOST as FLOOR_HOST
from tools.bench.floor import PATH as FLOOR_PATH
from tools.bench.judge import JUDGED_CONNECTIONS
from tools.bench.load import Load, LoadResult, measure
from tools.bench.wire import post
from tools.demo.target import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable

FILL_CONNECTIONS = 8
STOCK_MARGIN = 1.5
"""How much more is put in stock than the rate seen so far would use up."""

STOCK_JOBS_MIN = 2_000
UNJUDGED_ROUNDS = 1
"""So many rounds, without a warm-up, where nothing is judged."""
FLOOR_AGAIN_SLICES = 3
BATCH_TURNS = 1.5
"""A slice of batches warms up, and then measures, for at least so many times what one takes to be answered."""
BATCH_TURN_S_MAX = 3.0
_HTTP_PORT = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure and for how long."""

    connections: tuple[int, ...]
    queue_sets: tuple[tuple[str, ...], ...]
    seconds: float
    rounds: int
    warmup_s: float


class Client:
    """The load generator's process: takes one load at a time and returns what came back."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def measure(self, load: Load) -> LoadResult:
        """Run one load in the client process; raise TargetError when the server cannot be reached."""
        try:
            return self._pool.submit(measure, load).result()
        except ConnectionError as error:
            raise TargetError(f"{load.host}:{load.port} takes no connections any more: {error}") from error

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown(cancel_futures=True)


class Bench:
    """One run against one server and one floor."""

    def __init__(
        self, *, client: Client, url: str, floor_port: int, plan: Plan, say: Callable[[str], None]
    ) -> None:
        parts = urlsplit(url)
        self._client = client
        self._plan = plan
        self._say = say
        self._host = parts.hostname or FLOOR_HOST
        self._port = parts.port or _HTTP_PORT
        self._authority = f"{self._host}:{self._port}"
        self._floor_port = floor_port
        self._batch_turn_s = 0.0
        self._stock: dict[tuple[str, ...], int] = dict.fromkeys(plan.queue_sets, 0)

    def run(self, figures: Figures) -> None:
        """Measure everything that the plan names and note it in `figures`."""
        for connections in self._plan.connections:
            for queues in self._plan.queue_sets:
                figures.figures += self._group(queues, connections)
        figures.drifts = [self._drift(figures, connections) for connections in self._plan.connections]

    def _group(self, queues: tuple[str, ...], connections: int) -> list[Figure]:
        judged = connections in JUDGED_CONNECTIONS
        rounds = [
            self._round(queues, connections, f"round {number} of {self._plan.rounds}" if number else "warm-up")
            for number in range(0 if judged else 1, (self._plan.rounds if judged else UNJUDGED_ROUNDS) + 1)
        ]
        kept = rounds[1:] if judged else rounds
        return [figure(case, kept, connections=connections, queues=len(queues)) for case in cases.CASES]

    def _round(self, queues: tuple[str, ...], connections: int, name: str) -> Round:
        place = f"{name}, {connections} connection(s), {len(queues)} queue(s)"
        batch = self._batch(queues, connections, place)
        floor = self._floor(connections, place)
        enqueue = self._enqueue(queues, connections, place)
        fetch = self._fetch(queues, connections, self._needed(enqueue), place)
        ack = self._ack(queues, connections, max(self._needed(enqueue), self._needed(fetch)), place)
        return dict(zip(cases.CASES, (batch, floor, enqueue, fetch, ack), strict=True))

    def _enqueue(self, queues: tuple[str, ...], connections: int, place: str) -> LoadResult:
        self._say(f"{cases.ENQUEUE}, {place}")
        result = self._client.measure(self._load(cases.enqueue_requests(queues, self._authority), connections))
        self._stock[queues] += result.answered_ok
        return result

    def _batch(self, queues: tuple[str, ...], connections: int, place: str) -> LoadResult:
        self._say(f"{cases.BATCH}, {place}")
        load = self._load(cases.batch_requests(queues, self._authority), connections)
        # Until the first turn is answered, nothing is: a slice must not count that as a slow server.
        warmup_s, seconds = (
            max(self._plan.warmup_s, self._batch_turn_s),
            max(self._plan.seconds, self._batch_turn_s),
        )
        result = self._client.measure(replace(load, warmup_s=warmup_s, seconds=seconds))
        self._batch_turn_s = min(BATCH_TURNS * result.p50_ms / 1000, BATCH_TURN_S_MAX)
        self._stock[queues] += result.answered_ok * cases.BATCH_JOBS
        return result

    def _fetch(self, queues: tuple[str, ...], connections: int, needed: int, place: str) -> LoadResult:
        self._fill(queues, needed)
        self._say(f"{cases.FETCH}, {place}")
        load = self._load(cases.fetch_requests(queues, self._authority), connections)
        result = self._client.measure(replace(load, empty_mark=cases.NOTHING_LEFT))
        self._stock[queues] = 0 if result.ran_dry else self._stock[queues] - result.answered_ok
        return result

    def _ack(self, queues: tuple[str, ...], connections: int, needed: int, place: str) -> LoadResult:
        self._fill(queues, needed)
        job_ids = self._claim(queues, needed)
        self._say(f"{cases.ACK}, {place}")
        load = self._load(cases.ack_requests(job_ids, self._authority), connections)
        return self._client.measure(replace(load, once=True))

    def _needed(self, seen: LoadResult) -> int:
        duration = self._plan.warmup_s + self._plan.seconds
        return max(ceil(seen.per_second * duration * STOCK_MARGIN), STOCK_JOBS_MIN)

    def _fill(self, queues: tuple[str, ...], needed: int) -> None:
        missing = needed - self._stock[queues]
        if missing <= 0:
            return
        self._say(f"filling {len(queues)} queue(s) with {missing} jobs")
        requests = cases.batch_requests(queues, self._authority)
        result = self._once(requests, ceil(missing / cases.BATCH_JOBS))
        self._stock[queues] += result.answered_ok * cases.BATCH_JOBS

    def _claim(self, queues: tuple[str, ...], needed: int) -> list[str]:
        self._say(f"claiming {needed} jobs of {len(queues)} queue(s)")
        requests = cases.fetch_requests(queues, self._authority, cases.FETCH_COUNT_MAX)
        result = self._once(requests, ceil(needed / cases.FETCH_COUNT_MAX))
        job_ids = cases.fetched_ids(result.bodies)
        self._stock[queues] = max(self._stock[queues] - len(job_ids), 0)
        return job_ids

    def _once(self, requests: tuple[bytes, ...], count: int) -> LoadResult:
        """Send a number of requests, not measured, and keep the bodies."""
        load = Load(
            host=self._host,
            port=self._port,
            connections=min(FILL_CONNECTIONS, count),
            requests=tuple(islice(cycle(requests), count)),
            keep_bodies=True,
        )
        return self._client.measure(load)

    def _load(self, requests: tuple[bytes, ...], connections: int) -> Load:
        return Load(
            host=self._host,
            port=self._port,
            connections=connections,
            requests=requests,
            warmup_s=self._plan.warmup_s,
            seconds=self._plan.seconds,
        )

    def _drift(self, figures: Figures, connections: int) -> FloorDrift:
        first = next(f for f in figures.figures if f.case == cases.FLOOR and f.connections == connections)
        again = [
            self._floor(connections, f"again, {connections} connection(s)") for _ in range(FLOOR_AGAIN_SLICES)
        ]
        return FloorDrift(
            connections=connections,
            requests_per_second=first.requests_per_second,
            at_end_requests_per_second=median(result.per_second for result in again),
        )

    def _floor(self, connections: int, place: str) -> LoadResult:
        self._say(f"{cases.FLOOR}, {place}")
        body = cases.enqueue_requests(self._plan.queue_sets[0], self._authority)[0].partition(b"\r\n\r\n")[2]
        request = post(FLOOR_PATH, body, host=f"{FLOOR_HOST}:{self._floor_port}")
        load = self._load((request,), connections)
        result = self._client.measure(replace(load, host=FLOOR_HOST, port=self._floor_port))
        if result.errors or not result.requests:
            raise TargetError(f"the floor server did not answer: {result.errors} {result.error_sample}")
        return result
