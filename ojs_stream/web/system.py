"""Views of the server itself: health in its forms, the manifest, and the reset of test mode."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from typing import Any

import msgspec

from ojs_stream import __version__, stamp
from ojs_stream.core.bodies import parse_object_or_nothing
from ojs_stream.core.commands import Reset
from ojs_stream.core.config_shown import shown, system_config
from ojs_stream.core.names import QUEUE_BYTES_MAX, TYPE_BYTES_MAX
from ojs_stream.core.times import iso
from ojs_stream.core.validation import TIMEOUT_MS, VISIBILITY_MS
from ojs_stream.errors import UnavailableError
from ojs_stream.web.answer import OJS_VERSION, Answer
from ojs_stream.web.middleware import Call

CONFORMANCE_LEVEL = 4


async def health(call: Call) -> Answer:
    """GET /health -> 200 ``{status: ok, backend}``, 503 ``unhealthy`` when Kafka or Redis is down."""
    common = {"version": __version__, "uptime_seconds": max(0, stamp.now_ms() - call.ctx.started_ms) // 1_000}
    try:
        latency_ms = int(await call.ctx.backend_ms())
    except UnavailableError as error:
        backend: dict[str, Any] = {"type": "kafka+redis", "status": "down", "message": str(error)}
        body = {"status": "unhealthy", "backend": backend, **common}
        return call.json(body, 503, retry_after=str(error.retry_after_s))
    return call.json(
        {
            "status": "ok",
            "backend": {"type": "kafka+redis", "status": "ok", "latency_ms": latency_ms},
            **common,
        }
    )


async def ready(call: Call) -> Answer:
    """GET /ready -> 200 once this worker's partitions are live, else 503 with the reason."""
    state = call.ctx.ready()
    if state["ready"]:
        return call.json({"status": "ready", **state})
    return call.json({"status": "not_ready", **state}, 503, retry_after="1")


async def live(call: Call) -> Answer:
    """GET /livez -> 200 as long as the process answers; it says nothing of Kafka and Redis."""
    return call.json({"status": "ok"})


async def reset(call: Call) -> Answer:
    """POST /admin/reset -> every home forgets its records (test mode only)."""
    parse_object_or_nothing(await call.body())
    await asyncio.gather(*(call.submit(home, Reset(**call.base)) for home in range(call.ctx.homes)))
    call.site.resting.clear()
    return call.json({"reset": True, "homes": call.ctx.homes})


async def config(call: Call) -> Answer:
    """GET /admin/system/config, /admin/config -> how this server is set up; nothing of it is a secret."""
    ctx, rules = call.ctx, call.site.rules
    defaults = system_config(rules.retention, rules.retry, timeout_ms=TIMEOUT_MS, visibility_ms=VISIBILITY_MS)
    return call.json(
        {
            "implementation": "ojs-stream",
            "version": __version__,
            "specversion": OJS_VERSION,
            "namespace": ctx.namespace,
            "partitions": ctx.homes,
            "backend": "kafka+redis",
            "test_mode": ctx.test_mode,
            "started_at": iso(ctx.started_ms),
            "limits": {
                name: getattr(ctx.limits, name) for name in sorted(field.name for field in fields(ctx.limits))
            },
            "retention": msgspec.structs.asdict(ctx.retention),
            "queue_defaults": shown(defaults),
        }
    )


def manifest_of(endpoints: dict[str, str], call: Call) -> dict[str, Any]:
    """What this server is and can, derived from the routes it really has."""
    limits = call.ctx.limits
    return {
        "specversion": OJS_VERSION,
        "ojs_version": OJS_VERSION,
        "implementation": {
            "name": "ojs-stream",
            "version": __version__,
            "language": "python",
        },
        "conformance_level": CONFORMANCE_LEVEL,
        "conformance_tier": "runtime",
        "protocols": ["http", "kafka", *(["sse"] if "events_stream" in endpoints else [])],
        "backend": "kafka+redis",
        "capabilities": _capabilities(endpoints),
        "unique_job_strength": "strong",
        "extensions": [name for name, endpoint in _EXTENSIONS.items() if endpoint in endpoints],
        "endpoints": endpoints,
        "payload_limits": {
            "max_envelope_bytes": limits.envelope_bytes_max,
            "max_body_bytes": limits.body_bytes_max,
            "max_meta_bytes": limits.meta_bytes_max,
            "max_result_bytes": limits.result_bytes_max,
            "max_batch_jobs": limits.batch_jobs_max,
            "max_json_depth": limits.json_depth_max,
            "max_queue_name_bytes": QUEUE_BYTES_MAX,
            "max_job_type_bytes": TYPE_BYTES_MAX,
            "supported_compression": ["gzip", "deflate"],
            "external_references": True,
            "chunking": False,
        },
        "test_mode": call.ctx.test_mode,
    }


_EXTENSIONS = {
    "progress": "workers_progress",
    "durable-execution": "jobs_checkpoint",
    "dead-letter": "dead_letter_list",
    "queue-config": "queues_config",
    "backpressure": "admin_queues_config",
}
"""Extensions of the specification -> the endpoint without which there is none."""


def _capabilities(endpoints: dict[str, str]) -> dict[str, bool]:
    """A capability is true only if its endpoints are there; the rest of the job life is part of level 1."""
    by_endpoint = {
        "batch_enqueue": "jobs_batch",
        "bulk_operations": "jobs_bulk",
        "dead_letter": "dead_letter_list",
        "events": "events_list",
        "sse": "events_stream",
        "cron": "cron_list",
        "cron_jobs": "cron_list",
        "workflows": "workflows_create",
        "rate_limiting": "rate_limits_list",
        "unique_jobs": "unique_jobs_list",
        "webhooks": "webhooks_list",
        "schema_validation": "schemas_list",
        "progress": "workers_progress",
        "checkpoints": "jobs_checkpoint",
        "durable_execution": "jobs_checkpoint",
        "queue_pause": "queues_pause",
        "queue_config": "queues_config",
        "backpressure": "admin_queues_config",
        "worker_registry": "workers_list",
        "maintenance": "admin_maintenance",
        "job_results": "jobs_result",
        "multi_tenancy": "admin_tenants",
        "fair_scheduling": "admin_pools",
        "job_versioning": "admin_routing",
        "agents": "agents",
        "grpc": "grpc",
        "websocket": "ws",
    }
    found = {name: endpoint in endpoints for name, endpoint in by_endpoint.items()}
    always = (
        "retry",
        "priority_queues",
        "idempotency_keys",
        "delayed_jobs",
        "scheduled_jobs",
        "job_ttl",
        "visibility_timeout",
        "long_poll",
    )
    return {**found, **dict.fromkeys(always, True)}
