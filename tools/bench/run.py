"""The course of a bench run: floor, then each case, for every number of connections; then the floor again.

The order inside a round lets cases feed each other: what enqueue and batch put into the queues, fetch and ack
take out. What is missing is filled up by batches that are not measured.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle, islice
from math import ceil
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tools.bench import cases
from tools.bench.figures import Figure, Figures, Floor, figure
from tools.bench.floor import HOST as FLOOR_HOST
from tools.bench.floor import PATH as FLOOR_PATH
from tools.bench.load import Load, LoadResult, measure
from tools.bench.wire import post
from tools.demo.target import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable

FILL_CONNECTIONS = 8
STOCK_MARGIN = 1.5
"""How much more is put in stock than the rate seen so far would use up."""

STOCK_JOBS_MIN = 2_000
_HTTP_PORT = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure and for how long."""

    connections: tuple[int, ...]
    queue_sets: tuple[tuple[str, ...], ...]
    seconds: float
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
        self._stock: dict[tuple[str, ...], int] = dict.fromkeys(plan.queue_sets, 0)

    def run(self, figures: Figures) -> None:
        """Measure everything that the plan names and note it in `figures`."""
        for connections in self._plan.connections:
            floor = self._floor(connections)
            for queues in self._plan.queue_sets:
                figures.figures += self._round(queues, connections, floor)
            figures.floors.append(floor)
        figures.floors = [self._again(floor) for floor in figures.floors]

    def _round(self, queues: tuple[str, ...], connections: int, floor: Floor) -> list[Figure]:
        enqueue = self._enqueue(queues, connections)
        batch = self._batch(queues, connections)
        fetch = self._fetch(queues, connections, self._needed(enqueue))
        ack = self._ack(queues, connections, max(self._needed(enqueue), self._needed(fetch)))
        results = zip(cases.CASES, (enqueue, fetch, ack, batch), strict=True)
        return [
            figure(case, result, connections=connections, queues=len(queues), floor=floor)
            for case, result in results
        ]

    def _enqueue(self, queues: tuple[str, ...], connections: int) -> LoadResult:
        self._announce(cases.ENQUEUE, queues, connections)
        result = self._timed(cases.enqueue_requests(queues, self._authority), connections)
        self._stock[queues] += result.answered_ok
        return result

    def _batch(self, queues: tuple[str, ...], connections: int) -> LoadResult:
        self._announce(cases.BATCH, queues, connections)
        result = self._timed(cases.batch_requests(queues, self._authority), connections)
        self._stock[queues] += result.answered_ok * cases.BATCH_JOBS
        return result

    def _fetch(self, queues: tuple[str, ...], connections: int, needed: int) -> LoadResult:
        self._fill(queues, needed)
        self._announce(cases.FETCH, queues, connections)
        load = self._load(cases.fetch_requests(queues, self._authority), connections)
        result = self._client.measure(replace(load, empty_mark=cases.NOTHING_LEFT))
        self._stock[queues] = 0 if result.ran_dry else self._stock[queues] - result.answered_ok
        return result

    def _ack(self, queues: tuple[str, ...], connections: int, needed: int) -> LoadResult:
        self._fill(queues, needed)
        job_ids = self._claim(queues, needed)
        self._announce(cases.ACK, queues, connections)
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

    def _timed(self, requests: tuple[bytes, ...], connections: int) -> LoadResult:
        return self._client.measure(self._load(requests, connections))

    def _load(self, requests: tuple[bytes, ...], connections: int) -> Load:
        return Load(
            host=self._host,
            port=self._port,
            connections=connections,
            requests=requests,
            warmup_s=self._plan.warmup_s,
            seconds=self._plan.seconds,
        )

    def _floor(self, connections: int) -> Floor:
        self._say(f"floor, {connections} connection(s)")
        result = self._measure_floor(connections)
        return Floor(
            connections=connections,
            requests_per_second=result.per_second,
            p50_ms=result.p50_ms,
            p99_ms=result.p99_ms,
        )

    def _again(self, floor: Floor) -> Floor:
        self._say(f"floor again, {floor.connections} connection(s)")
        return replace(floor, at_end_requests_per_second=self._measure_floor(floor.connections).per_second)

    def _measure_floor(self, connections: int) -> LoadResult:
        body = cases.enqueue_requests(self._plan.queue_sets[0], self._authority)[0].partition(b"\r\n\r\n")[2]
        request = post(FLOOR_PATH, body, host=f"{FLOOR_HOST}:{self._floor_port}")
        load = self._load((request,), connections)
        result = self._client.measure(replace(load, host=FLOOR_HOST, port=self._floor_port))
        if result.errors or not result.requests:
            raise TargetError(f"the floor server did not answer: {result.errors} {result.error_sample}")
        return result

    def _announce(self, case: str, queues: tuple[str, ...], connections: int) -> None:
        self._say(f"{case}, {connections} connection(s), {len(queues)} queue(s)")
