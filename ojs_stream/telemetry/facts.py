"""What a worker says of itself when it is scraped: ``runtime.py`` gathers it, ``exposition.py`` shows it."""

from __future__ import annotations

from msgspec import Struct

from ojs_stream.core.records import Counts
from ojs_stream.telemetry.jobs import JobMeters
from ojs_stream.telemetry.meters import Histogram, HomeMeter, StageMeter, WebMeter


class PartitionFacts(Struct, frozen=True, kw_only=True):
    """A partition of the command topic that this worker has. Offsets: -1 for none."""

    home: int
    phase: str
    applied: int
    end: int | None
    """The offset that the next record will get; ``None`` while Kafka does not say."""
    oldest_s: float
    """Age of the oldest command that is not applied yet; 0 when there is none."""
    unsent: dict[str, int]
    """by lane of the outbox"""

    @property
    def lag(self) -> int | None:
        """Records that are in the log and not applied yet."""
        return None if self.end is None else max(0, self.end - 1 - self.applied)


class QueueFacts(Struct, frozen=True, kw_only=True):
    """A queue of a home that this worker has, as the store has it."""

    name: str
    counts: Counts
    paused: bool = False


class StoreFacts(Struct, frozen=True, kw_only=True):
    """What the store has of this worker's homes: over all workers, each queue and each job worker counts once."""

    queues: tuple[QueueFacts, ...] = ()
    workers: int = 0
    """Job workers that beat."""


class ProducerFacts(Struct, frozen=True, kw_only=True):
    """One of the worker's Kafka producers."""

    name: str
    replaced: int
    stalled_s: float
    acknowledged: Histogram
    """Seconds from handing over to the acknowledgement."""


class WorkerFacts(Struct, frozen=True, kw_only=True):
    """Everything of one worker process."""

    version: str
    ready: bool
    backend_up: bool
    partitions: tuple[PartitionFacts, ...]
    homes: dict[int, HomeMeter]
    stages: StageMeter
    rounds: int
    jobs: JobMeters
    web: WebMeter
    loop_lag: Histogram
    producers: tuple[ProducerFacts, ...]
    mirrors_dropped: int
    waiting: int
    """Requests that wait for their command to be applied."""
    connections: int
    store: StoreFacts
