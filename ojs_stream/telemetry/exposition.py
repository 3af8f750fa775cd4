"""The metrics page: facts of a worker as Prometheus metric families, and their text.

``docs/metrics.md`` has a row for each family; a test compares the two, the dashboard and the alert rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ojs_stream.core.states import STATES
from ojs_stream.telemetry.facts import PartitionFacts, QueueFacts, StoreFacts, WorkerFacts
from ojs_stream.telemetry.jobs import JobMeter
from ojs_stream.telemetry.meters import OTHER, QUEUES_MAX, Histogram, RouteMeter

CONTENT_TYPE: Final = "text/plain"
"""Exactly so (OJS.md 6.3); Prometheus takes it for its text format 0.0.4."""

Labelled = tuple[Sequence[str], float | None]
Timed = tuple[Sequence[str], Histogram]

_process = CollectorRegistry(auto_describe=False)
for _make in (ProcessCollector, PlatformCollector, GCCollector):
    _make(registry=_process)


class _Page(Collector):
    """One scrape's families, in the shape that the library renders."""

    def __init__(self, facts: WorkerFacts) -> None:
        self._facts = facts

    def collect(self) -> Iterable[Metric]:
        """See ``Collector``."""
        return families(self._facts)


def render(facts: WorkerFacts) -> bytes:
    """The text of a scrape. Takes milliseconds: call it in a thread."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(facts))
    return generate_latest(registry) + generate_latest(_process)


def families(facts: WorkerFacts) -> Iterator[Metric]:
    """Every metric family of a worker, also those that have no series yet."""
    yield from _worker(facts)
    yield from _partitions(facts.partitions)
    yield from _homes(facts)
    yield from _stages(facts)
    yield from _kafka(facts)
    yield from _jobs(facts)
    yield from _web(facts)
    yield from _store(facts.store)


def _gauge(name: str, text: str, labels: Sequence[str], values: Iterable[Labelled]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        if value is not None:
            family.add_metric(label_values, value)
    return family


def _counter(name: str, text: str, labels: Sequence[str], values: Iterable[Labelled]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value or 0)
    return family


def _histogram(name: str, text: str, labels: Sequence[str], values: Iterable[Timed]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for label_values, histogram in values:
        family.add_metric(label_values, _buckets(histogram), histogram.total)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    sum_below = 0
    for bound, count in zip((*map(str, map(float, histogram.bounds)), "+Inf"), histogram.counts, strict=True):
        sum_below += count
        found.append((bound, sum_below))
    return found


def _worker(facts: WorkerFacts) -> Iterator[Metric]:
    yield InfoMetricFamily("ojs_stream", "The release that runs here.", {"version": facts.version})
    yield _gauge(
        "ojs_worker_ready",
        "1 if /ready says 200: every partition of this worker is live.",
        (),
        [((), facts.ready)],
    )
    yield _gauge("ojs_backend_up", "1 if Kafka and Redis answer this worker.", (), [((), facts.backend_up)])
    yield _histogram(
        "ojs_event_loop_lag_seconds",
        "How much too late the event loop wakes a sleeper: while it is late, everything waits.",
        (),
        [((), facts.loop_lag)],
    )


def _partitions(partitions: Sequence[PartitionFacts]) -> Iterator[Metric]:
    labels = ("partition",)
    named = [((str(each.home),), each) for each in partitions]
    yield _gauge(
        "ojs_partition_live",
        "1 if this worker folds live records of the partition, 0 while it catches up or refuses it.",
        labels,
        ((label, each.phase == "live") for label, each in named),
    )
    yield _gauge(
        "ojs_partition_refused",
        "1 if the log and Redis do not fit together: somebody must decide (see /ready for the reason).",
        labels,
        ((label, each.phase == "refused") for label, each in named),
    )
    yield _gauge(
        "ojs_partition_applied_offset",
        "The last offset of the command topic whose effects are in Redis; -1 for none.",
        labels,
        ((label, each.applied) for label, each in named),
    )
    yield _gauge(
        "ojs_partition_end_offset",
        "The offset that the next record of the command topic will get; absent while Kafka does not answer.",
        labels,
        ((label, each.end) for label, each in named),
    )
    yield _gauge(
        "ojs_partition_lag_records",
        "Records of the command topic that are not applied yet; absent while Kafka does not answer.",
        labels,
        ((label, each.lag) for label, each in named),
    )
    yield _gauge(
        "ojs_partition_oldest_command_age_seconds",
        "Age of the oldest command that is not applied yet; 0 when there is none.",
        labels,
        ((label, each.oldest_s) for label, each in named),
    )
    yield _gauge(
        "ojs_outbox_backlog",
        "What a commit has stored for Kafka and Kafka has not acknowledged, by lane: events, effects, messages.",
        ("partition", "lane"),
        (((*label, lane), count) for label, each in named for lane, count in each.unsent.items()),
    )


def _homes(facts: WorkerFacts) -> Iterator[Metric]:
    labels = ("partition",)
    named = [((str(home),), meter) for home, meter in sorted(facts.homes.copy().items())]
    yield _counter(
        "ojs_partition_records",
        "Records of the command topic (packs) whose effects this worker wrote.",
        labels,
        ((label, meter.records) for label, meter in named),
    )
    yield _histogram(
        "ojs_round_commands",
        "Batch sizes: commands of a partition that one round folded and committed together.",
        labels,
        ((label, meter.rounds) for label, meter in named),
    )
    yield _counter(
        "ojs_partition_fences",
        "Commits that were refused because another worker had written first.",
        labels,
        ((label, meter.fences) for label, meter in named),
    )
    yield _counter(
        "ojs_partition_recoveries",
        "How often the partition was brought to life: once for each take-over, more often when something broke.",
        labels,
        ((label, meter.recoveries) for label, meter in named),
    )
    yield _counter(
        "ojs_events_lost",
        "Events that never reached the event topic: they were overwritten before Kafka took them.",
        labels,
        ((label, meter.lost_events) for label, meter in named),
    )


def _stages(facts: WorkerFacts) -> Iterator[Metric]:
    stages = facts.stages
    rows: list[Timed] = [(("load",), stages.load), (("fold",), stages.fold), (("commit",), stages.commit)]
    rows += [((producer.name,), producer.acknowledged) for producer in facts.producers]
    yield _histogram(
        "ojs_stage_duration_seconds",
        "A round's load, fold and commit; Kafka's acknowledgement of packs (produce), of events (outbox).",
        ("stage",),
        rows,
    )
    yield _counter("ojs_rounds", "Rounds over all partitions of this worker.", (), [((), facts.rounds)])


def _kafka(facts: WorkerFacts) -> Iterator[Metric]:
    producers = facts.producers
    yield _counter(
        "ojs_producer_replacements",
        "How often a Kafka producer was replaced after an error.",
        ("producer",),
        (((each.name,), each.replaced) for each in producers),
    )
    yield _gauge(
        "ojs_producer_stalled_seconds",
        "How long the oldest record has been waiting for Kafka's acknowledgement; beyond 1.5 s requests get 503.",
        ("producer",),
        (((each.name,), each.stalled_s) for each in producers),
    )
    yield _counter(
        "ojs_mirrors_dropped",
        "Copies for the topics per queue that were given up (OJS_KAFKA_QUEUE_TOPICS); the jobs are not touched.",
        (),
        [((), facts.mirrors_dropped)],
    )


_JOB_COUNTERS = (
    ("enqueued", "Jobs stored."),
    ("completed", "Jobs that reached the state completed."),
    ("failed", "Jobs that reached the state discarded, expired ones among them."),
    ("retried", "Attempts that failed and are followed by another one."),
    ("cancelled", "Jobs that were cancelled."),
    ("expired", "Jobs whose time to live was over before they ran."),
)


def _jobs(facts: WorkerFacts) -> Iterator[Metric]:
    labels = ("queue", "type")
    series: list[tuple[tuple[str, str], JobMeter]] = facts.jobs.series()
    for name, text in _JOB_COUNTERS:
        rows = ((label, count) for label, meter in series if (count := getattr(meter, name)))
        yield _counter(f"ojs_job_{name}", text, labels, rows)
    yield _histogram(
        "ojs_job_duration_seconds",
        "From the start of the last attempt to the final state.",
        (*labels, "state"),
        (((*label, state), times) for label, meter in series for state, times in list(meter.durations.items())),
    )
    yield _histogram(
        "ojs_job_queue_time_seconds",
        "From becoming available to the start of the first attempt.",
        labels,
        ((label, meter.queue_time) for label, meter in series if any(meter.queue_time.counts)),
    )


def _web(facts: WorkerFacts) -> Iterator[Metric]:
    used = [route for route in facts.web.routes if route.statuses]
    yield _counter(
        "ojs_http_requests",
        'HTTP requests answered, by route template; what no route has is route="other".',
        ("method", "route", "status"),
        (row for route in used for row in _statuses(route)),
    )
    yield _histogram(
        "ojs_http_request_duration_seconds",
        "From the parsed head of a request to its answer; a long poll includes its wait.",
        ("method", "route"),
        (((route.method, route.path), route.times) for route in used),
    )
    yield _histogram(
        "ojs_job_enqueue_duration_seconds",
        "From the checked request to the applied enqueue, by the queue of its first job.",
        ("queue",),
        (((queue,), times) for queue, times in facts.web.enqueues()),
    )
    yield _gauge("ojs_http_connections", "Open HTTP connections.", (), [((), facts.connections)])
    yield _gauge(
        "ojs_requests_waiting",
        "Commands of this worker that wait to be applied.",
        (),
        [((), facts.waiting)],
    )


def _statuses(route: RouteMeter) -> Iterator[Labelled]:
    for status, count in list(route.statuses.items()):
        yield (route.method, route.path, str(status)), count


def _store(facts: StoreFacts) -> Iterator[Metric]:
    queues = [each for each in facts.queues if each.name != OTHER]
    yield _gauge(
        "ojs_queue_depth",
        f"Jobs by state, of the queues whose partition this worker has: sum over the workers. Beyond {QUEUES_MAX} "
        f'queues the rest is summed up as "{OTHER}".',
        ("queue", "state"),
        (row for queue in facts.queues for row in _states(queue)),
    )
    yield _gauge(
        "ojs_queue_paused",
        "1 if the queue is paused.",
        ("queue",),
        (((queue.name,), queue.paused) for queue in queues),
    )
    yield _gauge(
        "ojs_workers_active",
        "Job workers that beat, of those whose partition this worker has: sum over the workers.",
        (),
        [((), facts.workers)],
    )
    yield _gauge(
        "ojs_workers_busy",
        "Jobs that are being executed.",
        ("queue",),
        (((queue.name,), queue.counts.active) for queue in facts.queues),
    )


def _states(queue: QueueFacts) -> Iterator[Labelled]:
    for state in STATES:
        yield (queue.name, state), getattr(queue.counts, state)
