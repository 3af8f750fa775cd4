"""The table of routes: ``setup`` puts them on an aiohttp application, the manifest is made from it."""

from __future__ import annotations

import re
from typing import NamedTuple

from aiohttp import web

from ojs_stream.web import (
    admin,
    bulk,
    cron,
    dead_letter,
    document,
    events,
    fetching,
    jobs,
    limits,
    maintenance,
    metrics,
    outcomes,
    progress,
    queue_admin,
    queues,
    statistics,
    streams,
    system,
    unique_jobs,
    workers,
    workflows,
)
from ojs_stream.web.answer import Answer
from ojs_stream.web.context import CONTEXT, Context
from ojs_stream.web.middleware import Call, Handler, Site, guarded
from ojs_stream.web.problems import problem_of, unknown_route, wrong_method
from ojs_stream.web.responses import API, respond_problem


class Route(NamedTuple):
    """One endpoint. ``name`` is its key in the manifest; an alias has none."""

    method: str
    path: str
    handler: Handler
    name: str = ""


def routes_of(context: Context) -> list[Route]:
    """Every route this process serves: what is not in here is a 404 and a false capability."""
    table = [*_job_routes(), *_said_routes(), *_worker_routes(), *_queue_routes(), *_limit_routes()]
    table += [
        *_workflow_routes(),
        *_cron_routes(),
        *_admin_routes(),
        *_system_routes(),
        *_doctor_routes(),
        *_stream_routes(),
    ]
    if context.test_mode:
        table.append(Route("POST", f"{API}/admin/reset", system.reset, "admin_reset"))
    return table


def _job_routes() -> list[Route]:
    one = f"{API}/jobs/{{id}}"
    return [
        Route("POST", f"{API}/jobs", jobs.enqueue, "jobs"),
        Route("GET", f"{API}/jobs", jobs.list_jobs, "jobs_list"),
        Route("POST", f"{API}/jobs/batch", jobs.enqueue_batch, "jobs_batch"),
        Route("POST", f"{API}/jobs/bulk", bulk.enqueue, "jobs_bulk"),
        Route("POST", f"{API}/jobs/bulk/cancel", bulk.changing("cancel"), "jobs_bulk_cancel"),
        Route("POST", f"{API}/jobs/bulk/retry", bulk.changing("retry"), "jobs_bulk_retry"),
        Route("POST", f"{API}/jobs/bulk/delete", bulk.changing("delete"), "jobs_bulk_delete"),
        Route("POST", f"{API}/jobs/fetch", fetching.fetch),
        Route("GET", one, jobs.get, "jobs_get"),
        Route("DELETE", one, jobs.cancel, "jobs_cancel"),
        Route("PATCH", one, jobs.reprioritize, "jobs_priority"),
        Route("GET", f"{one}/retries", outcomes.retries, "jobs_retries"),
        Route("GET", f"{one}/result", outcomes.result, "jobs_result"),
        Route("GET", f"{one}/history", outcomes.history, "jobs_history"),
        Route("POST", f"{one}/retry", jobs.retry, "jobs_retry"),
        Route("POST", f"{one}/cancel", jobs.cancel),
        Route("POST", f"{one}/activate", jobs.activate, "jobs_activate"),
        Route("POST", f"{one}/ack", workers.ack_job),
        Route("POST", f"{one}/nack", workers.nack_job),
        Route("GET", f"{API}/dead-letter", dead_letter.list_dead, "dead_letter_list"),
        Route("GET", f"{API}/dead-letter/stats", dead_letter.stats, "dead_letter_stats"),
        Route("POST", f"{API}/dead-letter/purge", bulk.purge_dead, "dead_letter_purge"),
        Route("GET", f"{API}/dead-letter/{{id}}", dead_letter.get, "dead_letter_get"),
        Route("POST", f"{API}/dead-letter/{{id}}/retry", dead_letter.retry, "dead_letter_retry"),
        Route("DELETE", f"{API}/dead-letter/{{id}}", dead_letter.delete, "dead_letter_delete"),
        Route("GET", f"{API}/events", events.list_events, "events_list"),
        Route("GET", f"{API}/events/{{id}}/history", outcomes.history),
        Route("GET", f"{API}/unique-jobs", unique_jobs.list_locks, "unique_jobs_list"),
    ]


def _said_routes() -> list[Route]:
    """What a worker says of a job while it runs."""
    job = f"{API}/jobs/{{id}}"
    routes = [
        Route("POST", f"{API}/workers/progress", progress.report_of_worker, "workers_progress"),
        Route("GET", f"{job}/progress", progress.get, "jobs_progress"),
        Route("PUT", f"{job}/progress", progress.report),
        *(Route(method, f"{job}/checkpoint", progress.save) for method in ("PUT", "POST")),
        Route("GET", f"{job}/checkpoint", progress.checkpoint, "jobs_checkpoint"),
        Route("DELETE", f"{job}/checkpoint", progress.drop),
    ]
    # The durable contexts of the Python and JavaScript SDKs put the prefix twice (CLIENTS.md trap 12).
    for one in (f"{API}/checkpoints/{{id}}", f"{API}{API}/checkpoints/{{id}}"):
        routes += [
            Route("POST", one, progress.save),
            Route("GET", one, progress.checkpoint),
            Route("DELETE", one, progress.drop),
            Route("GET", f"{one}/resume", progress.resume),
        ]
    return routes


def _worker_routes() -> list[Route]:
    one = f"{API}/workers/{{id}}"
    return [
        Route("POST", f"{API}/workers/fetch", fetching.fetch, "workers_fetch"),
        Route("POST", f"{API}/workers/ack", workers.ack, "workers_ack"),
        Route("POST", f"{API}/workers/nack", workers.nack, "workers_nack"),
        Route("POST", f"{API}/workers/heartbeat", workers.heartbeat, "workers_heartbeat"),
        Route("POST", f"{API}/workers/beat", workers.beat),
        Route("POST", f"{API}/workers/register", workers.register, "workers_register"),
        Route("POST", f"{API}/workers/deregister", workers.deregister, "workers_deregister"),
        Route("GET", f"{API}/workers", workers.list_workers, "workers_list"),
        Route("GET", one, workers.get, "workers_get"),
        Route("DELETE", one, workers.remove),
        Route("GET", f"{one}/health", workers.health, "workers_health"),
    ]


def _queue_routes() -> list[Route]:
    one = f"{API}/queues/{{name}}"
    return [
        Route("GET", f"{API}/queues", queues.list_queues, "queues"),
        Route("GET", one, queues.get, "queues_get"),
        Route("GET", f"{one}/stats", queues.stats, "queues_stats"),
        Route("GET", f"{one}/priority-stats", queues.priority_stats, "queues_priority_stats"),
        Route("POST", f"{one}/pause", queues.pause, "queues_pause"),
        Route("POST", f"{one}/resume", queues.resume, "queues_resume"),
        Route("POST", f"{one}/drain", queues.drain, "queues_drain"),
        Route("POST", f"{API}/queues", queue_admin.create, "queues_create"),
        Route("PUT", one, queue_admin.put),
        Route("GET", f"{one}/config", queue_admin.get_config, "queues_config"),
        Route("PUT", f"{one}/config", queue_admin.put_config),
        Route("POST", f"{one}/purge", queue_admin.purge, "queues_purge"),
        Route("DELETE", one, queue_admin.delete, "queues_delete"),
    ]


def _limit_routes() -> list[Route]:
    one = f"{API}/rate-limits/{{key}}"
    queue = f"{API}/admin/queues/{{name}}/rate-limit"
    return [
        Route("GET", f"{API}/rate-limits", limits.list_limits, "rate_limits_list"),
        Route("GET", one, limits.get, "rate_limits_get"),
        Route("PUT", one, limits.override, "rate_limits_override"),
        Route("DELETE", one, limits.end_override),
        Route("PUT", f"{one}/override", limits.override),
        Route("DELETE", f"{one}/override", limits.end_override),
        Route("PUT", queue, limits.limit_queue, "admin_queues_rate_limit"),
        Route("DELETE", queue, limits.unlimit_queue),
    ]


def _workflow_routes() -> list[Route]:
    one = f"{API}/workflows/{{id}}"
    return [
        Route("POST", f"{API}/workflows", workflows.create, "workflows_create"),
        Route("GET", f"{API}/workflows", workflows.list_workflows, "workflows_list"),
        Route("GET", one, workflows.get, "workflows_get"),
        Route("DELETE", one, workflows.cancel, "workflows_cancel"),
        Route("POST", f"{one}/cancel", workflows.cancel),
        Route("GET", f"{one}/progress", workflows.progress, "workflows_progress"),
    ]


def _cron_routes() -> list[Route]:
    return [
        *_cron_at(f"{API}/cron", "cron"),
        # The admin UI's word for the same.
        *[route._replace(name="") for route in _cron_at(f"{API}/crons", "crons")],
    ]


def _cron_at(base: str, noun: str) -> list[Route]:
    one = f"{base}/{{name}}"
    return [
        Route("POST", base, cron.register, noun),
        Route("GET", base, cron.list_all, f"{noun}_list"),
        Route("GET", one, cron.get, f"{noun}_get"),
        Route("PATCH", one, cron.change, f"{noun}_change"),
        Route("DELETE", one, cron.delete, f"{noun}_delete"),
        Route("POST", f"{one}/trigger", cron.trigger, f"{noun}_trigger"),
        Route("POST", f"{one}/pause", cron.pause, f"{noun}_pause"),
        Route("POST", f"{one}/resume", cron.resume, f"{noun}_resume"),
        Route("GET", f"{one}/history", cron.history, f"{noun}_history"),
    ]


def _admin_routes() -> list[Route]:
    base = f"{API}/admin"
    worker = f"{base}/workers/{{id}}"
    return [
        Route("GET", f"{base}/stats", statistics.stats, "admin_stats"),
        Route("GET", f"{base}/stats/history", statistics.history, "admin_stats_history"),
        Route("GET", f"{base}/system/maintenance", maintenance.get, "admin_maintenance"),
        Route("POST", f"{base}/system/maintenance", maintenance.change),
        Route("GET", f"{base}/maintenance", maintenance.get),
        Route("POST", f"{base}/maintenance", maintenance.change),
        Route("GET", f"{base}/system/config", system.config, "admin_config"),
        Route("GET", f"{base}/config", system.config),
        Route("GET", f"{base}/queues", admin.list_queues, "admin_queues"),
        Route("GET", f"{base}/queues/{{name}}", admin.get_queue, "admin_queues_get"),
        Route("POST", f"{base}/queues/{{name}}/pause", admin.pause_queue, "admin_queues_pause"),
        Route("POST", f"{base}/queues/{{name}}/resume", admin.resume_queue, "admin_queues_resume"),
        Route("PUT", f"{base}/queues/{{name}}/config", queue_admin.put_admin_config, "admin_queues_config"),
        Route("DELETE", f"{base}/queues/{{name}}/jobs", queue_admin.purge_admin, "admin_queues_purge"),
        Route("GET", f"{base}/jobs", admin.list_jobs, "admin_jobs"),
        Route("GET", f"{base}/jobs/{{id}}", admin.get_job, "admin_jobs_get"),
        Route("GET", f"{base}/jobs/{{id}}/trace", outcomes.trace, "admin_jobs_trace"),
        Route("PATCH", f"{base}/jobs/{{id}}", jobs.reprioritize, "admin_jobs_priority"),
        Route("POST", f"{base}/jobs/{{id}}/cancel", jobs.cancel, "admin_jobs_cancel"),
        Route("POST", f"{base}/jobs/{{id}}/retry", jobs.retry, "admin_jobs_retry"),
        Route("POST", f"{base}/jobs/bulk/cancel", bulk.changing("cancel", confirm=True), "admin_jobs_bulk_cancel"),
        Route("POST", f"{base}/jobs/bulk/retry", bulk.changing("retry", confirm=True), "admin_jobs_bulk_retry"),
        Route("POST", f"{base}/jobs/bulk/delete", bulk.changing("delete", confirm=True), "admin_jobs_bulk_delete"),
        Route("GET", f"{base}/workers", admin.list_workers, "admin_workers"),
        Route("POST", f"{base}/workers/directive", admin.direct_workers, "admin_workers_directive"),
        Route("GET", worker, admin.get_worker, "admin_workers_get"),
        Route("DELETE", worker, workers.remove),
        Route("POST", f"{worker}/quiet", admin.quiet_worker, "admin_workers_quiet"),
        Route("POST", f"{worker}/terminate", admin.terminate_worker, "admin_workers_terminate"),
        Route("POST", f"{worker}/resume", admin.resume_worker, "admin_workers_resume"),
        Route("GET", f"{base}/dead-letter", admin.list_dead, "admin_dead_letter"),
        Route("GET", f"{base}/dead-letter/stats", admin.stats_dead, "admin_dead_letter_stats"),
        Route("POST", f"{base}/dead-letter/retry", bulk.retry_dead, "admin_dead_letter_bulk_retry"),
        Route("POST", f"{base}/dead-letter/{{id}}/retry", dead_letter.retry, "admin_dead_letter_retry"),
        Route("DELETE", f"{base}/dead-letter/{{id}}", dead_letter.delete),
    ]


def _system_routes() -> list[Route]:
    return [
        Route("GET", f"{API}/health", system.health, "health"),
        Route("GET", f"{API}/metrics", statistics.metrics),
        Route("GET", "/health", system.health),
        Route("GET", "/healthz", system.health),
        Route("GET", "/ready", system.ready, "ready"),
        Route("GET", "/readyz", system.ready),
        Route("GET", "/livez", system.live, "live"),
        Route("GET", "/metrics", metrics.show, "metrics"),
        Route("GET", "/ojs/openapi.yaml", document.openapi, "openapi"),
    ]


def _stream_routes() -> list[Route]:
    """Server-sent events (OJS.md 2.8)."""
    return [
        Route("GET", f"{API}/events/stream", streams.events, "events_stream"),
        Route("GET", f"{API}/jobs/{{id}}/events", streams.of_job, "jobs_events"),
        Route("GET", f"{API}/queues/{{name}}/events", streams.of_queue, "queues_events"),
        Route("GET", f"{API}/jobs/{{id}}/progress/stream", streams.of_progress, "jobs_progress_stream"),
        Route("GET", f"{API}/admin/stats/stream", streams.of_stats, "admin_stats_stream"),
    ]


def _doctor_routes() -> list[Route]:
    """``ojs doctor`` asks at the root, without ``/ojs``."""
    return [
        Route("GET", "/v1/health", system.health),
        Route("GET", "/v1/queues", queues.list_queues),
        Route("GET", "/v1/dead-letter", dead_letter.list_dead),
        Route("GET", "/v1/workers", workers.list_workers),
    ]


def setup(app: web.Application, context: Context) -> Site:
    """Register every route; a path or method that is not in the table gets an error envelope as well."""
    site = Site(context)
    app[CONTEXT] = context
    table = routes_of(context)

    async def manifest(call: Call) -> Answer:
        return call.json(system.manifest_of(endpoints, call))

    table.append(Route("GET", "/ojs/manifest", manifest, "manifest"))
    table.append(Route("GET", f"{API}/manifest", manifest))
    endpoints = {route.name: route.path for route in table if route.name}
    for route in table:
        for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
            meter = context.meter.route(method, route.path)
            app.router.add_route(method, route.path, guarded(site, route.handler, meter))
    # A client chooses this path and method: they are no labels.
    app.router.add_route("*", "/{path:.*}", guarded(site, _fallback(table), context.meter.route("*", "other")))
    return site


def _fallback(table: list[Route]) -> Handler:
    """404 for what no route has, 405 with ``Allow`` for a known path with another method."""
    methods: dict[str, set[str]] = {}
    for route in table:
        methods.setdefault(route.path, set()).add(route.method)
    patterns = [
        (re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), tuple(sorted(known))) for path, known in methods.items()
    ]

    async def fallback(call: Call) -> Answer:
        path = call.request.path
        allowed = sorted({name for pattern, known in patterns if pattern.fullmatch(path) for name in known})
        if not allowed:
            raise unknown_route(path)
        error = wrong_method(call.request.method, path, tuple(allowed))
        problem = problem_of(error, call.request_id)
        return respond_problem(problem, call.request_id, sdk=call.sdk, headers={"Allow": ", ".join(allowed)})

    return fallback
