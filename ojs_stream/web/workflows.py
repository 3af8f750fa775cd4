"""Views of workflows: create, read, list, progress, cancel (OJS.md 5.8, CLIENTS.md traps 4 and 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import UNSET

from ojs_stream import stamp
from ojs_stream.core.bodies import parse_reason
from ojs_stream.core.commands import CancelWorkflow, StartWorkflow
from ojs_stream.core.envelope import bad_field
from ojs_stream.core.fold.results import reference
from ojs_stream.core.homes import note_home
from ojs_stream.core.names import is_job_id
from ojs_stream.core.records import Flow, StepRecord, WorkflowRecord
from ojs_stream.core.times import iso
from ojs_stream.core.workflows import parse_workflow
from ojs_stream.store.workflow_reads import WholeWorkflow
from ojs_stream.web.answer import Answer
from ojs_stream.web.middleware import Call
from ojs_stream.web.paging import pagination_of
from ojs_stream.web.problems import not_found
from ojs_stream.web.replays import replay_of, told
from ojs_stream.web.requests import page_of
from ojs_stream.web.responses import API

STATES = ("running", "completed", "failed", "cancelled")
ALIASES = {"pending": "running", "active": "running"}
"""What the admin UI calls a running workflow."""
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
RESULTS_BYTES_MAX = 4 * 1024 * 1024
"""So much of the steps' results one answer shows in full; the rest by reference."""


async def create(call: Call) -> Answer:
    """POST /workflows -> 201 ``{workflow: {...}, id, ...}``, Location."""
    body = await call.body()
    asked = parse_workflow(body, call.site.rules, call.site.new_job_id)
    replay = replay_of(call, "workflows", body)
    # Near its first job, unless a key must find the workflow again.
    home = call.site.home_of(replay["replay"] if replay else asked.queue)
    command = StartWorkflow(
        id=stamp.new_job_id(home),
        name=asked.name,
        flow=asked.flow,
        steps=asked.steps,
        retention=call.ctx.retention,
        **replay,
        **call.base,
    )
    outcome = await call.submit(home, command)
    workflow_id = str(outcome.data["id"])
    headers = {"location": f"{API}/workflows/{workflow_id}", **told(outcome)}
    return _answer(call, await _whole(call, workflow_id), 201, headers)


async def get(call: Call) -> Answer:
    """GET /workflows/{id} -> ``{workflow: {...}, id, ...}``."""
    return _answer(call, await _whole(call, call.path("id")))


async def list_workflows(call: Call) -> Answer:
    """GET /workflows?state&limit&cursor or page&per_page -> ``{workflows, items, total, pagination}``."""
    states = _states_of(call)
    page = page_of(call.request)
    found = await call.ctx.queries.workflows.page(
        page, (lambda record: record.state in states) if states else None
    )
    paged = "per_page" in call.request.query or "page" in call.request.query
    rows = [_row(record, paged=paged) for record in found.records]
    pagination = pagination_of(found.total, page, found.next_cursor)
    return call.json({"workflows": rows, "items": rows, "total": found.total, "pagination": pagination})


async def cancel(call: Call) -> Answer:
    """DELETE /workflows/{id}?reason, POST /workflows/{id}/cancel -> the workflow and how many steps it lost."""
    reason = call.request.query.get("reason") or parse_reason(await call.body())
    workflow_id = call.path("id")
    if not is_job_id(workflow_id):
        raise not_found("workflow", workflow_id)
    home = note_home(workflow_id, call.ctx.homes)
    command = CancelWorkflow(id=workflow_id, reason=reason[:1_000], **call.base)
    data = (await call.submit(home, command)).data
    more = {
        "steps_cancelled": len(data["cancelled"]),
        "steps_already_completed": data["completed"],
        "cancelled_steps": data["cancelled"],
    }
    return _answer(call, await _whole(call, workflow_id), **more)


async def progress(call: Call) -> Answer:
    """GET /workflows/{id}/progress -> ``{workflow_id, state, progress: 0-1, steps: [{id, progress, state}]}``."""
    whole = await _whole(call, call.path("id"))
    record = whole.record
    shown = shape(whole)
    return call.json(
        {
            "workflow_id": record.id,
            "id": record.id,
            "state": record.state,
            "progress": record.jobs_completed / record.jobs,
            "jobs_total": record.jobs,
            "jobs_completed": record.jobs_completed,
            "jobs_failed": record.jobs_failed,
            "steps": [
                {"id": step["id"], "type": step["type"], "state": step["state"], "progress": _done(step)}
                for step in shown["steps"]
            ],
        }
    )


def _done(step: dict[str, Any]) -> float:
    inside = step.get("steps")
    if step["state"] == "completed":
        return 1.0
    return sum(map(_done, inside)) / len(inside) if inside else 0.0


async def _whole(call: Call, workflow_id: str) -> WholeWorkflow:
    found = await call.ctx.queries.workflows.whole(workflow_id)
    if found is None:
        raise not_found("workflow", workflow_id)
    return found


def _answer(
    call: Call, whole: WholeWorkflow, status: int = 200, headers: Mapping[str, str] = NO_HEADERS, **more: Any
) -> Answer:
    """Some clients read ``workflow``, others the top level: both are there."""
    shown = {**shape(whole), **more}
    return call.json({"workflow": shown, **shown}, status, **headers)


def _states_of(call: Call) -> frozenset[str]:
    names = [name for name in call.request.query.get("state", "").split(",") if name]
    states = frozenset(ALIASES.get(name, name) for name in names)
    if not states <= set(STATES):
        raise bad_field("state", f"must be one of {', '.join((*STATES, *ALIASES))}")
    return states


# -- shapes ---------------------------------------------------------------------------------------------------


def _row(record: WorkflowRecord, *, paged: bool) -> dict[str, Any]:
    """A row of a list. The admin UI (which sends ``page``) offers to cancel what is ``active``."""
    shown = _head(record)
    if paged and record.state == "running":
        shown["state"] = "active"
    return {**shown, "step_count": record.flow.count}


def _head(record: WorkflowRecord) -> dict[str, Any]:
    """What a workflow says of itself without its steps."""
    flow = record.flow
    return {
        "id": record.id,
        "name": record.name,
        "type": flow.kind,
        "state": record.state,
        "steps_total": flow.count,
        "steps_completed": flow.completed,
        "jobs_total": record.jobs,
        "jobs_completed": record.jobs_completed,
        "jobs_failed": record.jobs_failed,
        "created_at": iso(record.created),
        **_end_of(record),
    }


def _end_of(record: WorkflowRecord) -> dict[str, str]:
    if not record.ended:
        return {}
    return {"cancelled_at" if record.state == "cancelled" else "completed_at": iso(record.ended)}


def shape(whole: WholeWorkflow) -> dict[str, Any]:
    """The workflow as every client reads it; the jobs of a group or batch are its ``steps`` and its ``jobs``."""
    record = whole.record
    steps = _Steps(whole)
    shown = {
        **_head(record),
        "steps": steps.members(record.flow),
        "callbacks": steps.callbacks(record.flow),
        "callbacks_enqueued": [
            step.callback for step in steps.at(record.flow.callbacks) if step.state not in ("waiting", "skipped")
        ],
        "metadata": {
            "created_at": iso(record.created),
            "started_at": iso(record.created),
            "job_count": record.jobs,
            "completed_count": record.jobs_completed,
            "failed_count": record.jobs_failed,
            **_end_of(record),
        },
    }
    if record.flow.kind in ("group", "batch"):
        shown["jobs"] = shown["steps"]
    if record.flow.kind == "dag":
        # The client has sent them as steps.
        shown["steps"] += shown["callbacks"].values()
    if record.jobs_failed:
        shown.update(_failures(record, whole.steps))
    return shown


def _failures(record: WorkflowRecord, steps: list[StepRecord]) -> dict[str, Any]:
    """Which steps have failed, and why (ojs-workflows 9.6)."""
    failed = [step for step in steps if step.state == "failed" or (step.state == "cancelled" and step.error)]
    errors = [
        {"job_id": step.job_id, "step_id": step.id, **msgspec.to_builtins(step.failure or {})} for step in failed
    ]
    shown: dict[str, Any] = {
        "failed_job_ids": [step.job_id for step in failed if step.flow is None],
        "errors": [error for error in errors if error["job_id"]],
    }
    if 0 <= record.failed_step < record.flow.count:
        shown["failed_step_index"] = record.failed_step
    return shown


class _Steps:
    """The steps of one answer."""

    def __init__(self, whole: WholeWorkflow) -> None:
        self._whole = whole
        self._by_number = {step.number: step for step in whole.steps}
        self._left = RESULTS_BYTES_MAX
        self._depends: dict[int, list[str]] = {}
        for step in whole.steps:
            for number in step.dependants:
                self._depends.setdefault(number, []).append(step.id)

    def at(self, numbers: Iterable[int]) -> list[StepRecord]:
        """The steps with these numbers."""
        return [self._by_number[number] for number in numbers if number in self._by_number]

    def members(self, flow: Flow) -> list[dict[str, Any]]:
        """The members of a flow, with what is nested in them."""
        return [self._one(step, place) for place, step in enumerate(self.at(flow.members))]

    def callbacks(self, flow: Flow) -> dict[str, Any]:
        """The callbacks of a flow, by their names."""
        return {step.callback: self._one(step, None) for step in self.at(flow.callbacks)}

    def _one(self, step: StepRecord, place: int | None) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "id": step.id,
            "type": step.type,
            "state": step.state,
            "job_id": step.job_id or None,
            "depends_on": self._depends.get(step.number, []),
        }
        if place is not None:
            shown["index"] = place
        if step.started:
            shown["started_at"] = iso(step.started)
        if step.ended:
            shown["completed_at"] = iso(step.ended)
        self._overlay(shown, step)
        self._outcome(shown, step)
        if step.flow is not None:
            shown["steps"] = self.members(step.flow)
            shown["callbacks"] = self.callbacks(step.flow)
        return shown

    def _overlay(self, shown: dict[str, Any], step: StepRecord) -> None:
        """What the job itself says, which its step learns only at its end."""
        record = self._whole.jobs.get(step.job_id) if step.state == "pending" else None
        if step.state != "pending":
            return
        shown.pop("started_at", None)
        if record is not None:
            shown["job_state"] = record.job.state
            if record.job.started_at:
                shown["started_at"] = record.job.started_at
            if record.job.state == "active":
                shown["state"] = "active"

    def _outcome(self, shown: dict[str, Any], step: StepRecord) -> None:
        error = step.failure
        if error is not None:
            shown["error"] = error
        if step.result is not UNSET:
            size = len(step.result)
            shown["result"] = step.result if size <= self._left else reference(step.job_id, size)
            self._left -= min(size, self._left)
