"""A worker's facts for the metrics page, with something of everything in them."""

from __future__ import annotations

from typing import Any

from ojs_stream.core.records import Counts
from ojs_stream.telemetry.facts import PartitionFacts, ProducerFacts, QueueFacts, StoreFacts, WorkerFacts
from ojs_stream.telemetry.jobs import JobMeters
from ojs_stream.telemetry.loop import LoopMeter
from ojs_stream.telemetry.meters import STAGE_BOUNDS_S, Histogram, HomeMeter, StageMeter, WebMeter


def partition(**changes: Any) -> PartitionFacts:
    lanes = {"events": 4, "effects": 3, "messages": 2, "held": 1}
    stands = {"home": 0, "phase": "live", "applied": 7, "end": 10, "oldest_s": 1.5, "unsent": lanes}
    return PartitionFacts(**{**stands, **changes})


def producer(name: str) -> ProducerFacts:
    return ProducerFacts(name=name, replaced=1, stalled_s=0.25, acknowledged=Histogram(STAGE_BOUNDS_S))


def worker_facts(**changes: Any) -> WorkerFacts:
    facts: dict[str, Any] = {
        "version": "1.2.3",
        "ready": True,
        "backend_up": True,
        "partitions": (partition(),),
        "homes": {0: HomeMeter()},
        "stages": StageMeter(),
        "rounds": 5,
        "jobs": JobMeters(),
        "web": WebMeter(),
        "loop_lag": LoopMeter().lag,
        "producers": (producer("produce"), producer("outbox")),
        "mirrors_dropped": 6,
        "waiting": 2,
        "connections": 9,
        "store": StoreFacts(queues=(QueueFacts(name="q", counts=Counts(available=3, active=1)),), workers=4),
    }
    return WorkerFacts(**{**facts, **changes})
