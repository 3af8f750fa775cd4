"""Workflows recounted: what their indexes and counters must be, from their step records alone.

As ``recount.py``, it reads JSON and shares no code with the fold.
"""

from __future__ import annotations

from typing import Any

from msgspec.json import decode as decode_json

Dump = dict[str, Any]
Record = dict[str, Any]
RETENTIONS = {"completed": "completed_ms", "failed": "discarded_ms", "cancelled": "cancelled_ms"}
OVER = ("completed", "failed", "cancelled", "skipped")


def _records(dump: Dump, kind: str) -> dict[str, Record]:
    return {name[len(kind) + 1 :]: decode_json(data) for name, data in dump.items() if name.startswith(kind + ":")}


def workflow_indexes(dump: Dump) -> dict[str, dict[str, int]]:
    """The entries that workflows must have."""
    wanted: dict[str, dict[str, int]] = {}
    for workflow_id, record in _records(dump, "workflow").items():
        wanted.setdefault("workflows", {})[workflow_id] = record["created"]
        retention = RETENTIONS.get(record["state"])
        keep = record["retention"][retention] if retention else -1
        if keep >= 0 and not record.get("closing"):
            wanted.setdefault("due:reap", {})[f"workflow:{workflow_id}"] = record["ended"] + keep
    return wanted


def recount_workflows(dump: Dump) -> list[str]:
    """Everything that does not add up, as sentences."""
    problems: list[str] = []
    steps: dict[str, dict[int, Record]] = {}
    for name, step in _records(dump, "step").items():
        workflow_id, number = name.rsplit(":", 1)
        steps.setdefault(workflow_id, {})[int(number)] = step
    workflows = _records(dump, "workflow")
    problems += [f"steps of {lost} have no workflow" for lost in steps.keys() - workflows.keys()]
    plans = set(_records(dump, "plan"))
    for workflow_id, record in workflows.items():
        mine = steps.get(workflow_id, {})
        if sorted(mine) != list(range(record["steps"])):
            problems.append(f"workflow {workflow_id} has steps {sorted(mine)}, it says {record['steps']}")
        elif not record.get("closing"):
            problems += [f"workflow {workflow_id}: {text}" for text in _workflow(record, mine)]
            problems += _plans(workflow_id, mine, plans)
    return problems


def _workflow(record: Record, steps: dict[int, Record]) -> list[str]:
    problems: list[str] = []
    jobs = [step for step in steps.values() if "flow" not in step and not step.get("callback")]
    counts = {
        "jobs": len(jobs),
        "jobs_completed": sum(_state(step) == "completed" for step in jobs),
    }
    if record["state"] != "cancelled":
        counts["jobs_failed"] = sum(
            _state(step) == "failed" or (_state(step) == "cancelled" and bool(step.get("job_id"))) for step in jobs
        )
    for name, count in counts.items():
        if record.get(name, 0) != count:
            problems.append(f"{name} is {record.get(name, 0)}, the steps say {count}")
    if record["state"] != "cancelled":
        problems += _flow("the workflow", record["flow"], record["state"], steps, nested=False)
        for step in steps.values():
            if "flow" in step and _state(step) in ("running", "completed", "failed"):
                problems += _flow(step["id"], step["flow"], _state(step), steps, nested=True)
    return problems


def _state(step: Record) -> str:
    return str(step.get("state", "waiting"))


def _flow(name: str, flow: Record, state: str, steps: dict[int, Record], *, nested: bool) -> list[str]:
    members = [steps[number] for number in range(flow["first"], flow["first"] + flow["count"])]
    callbacks = [steps[flow[each]] for each in ("on_complete", "on_success", "on_failure") if flow.get(each)]
    going = sum(_state(step) not in OVER for step in members)
    calling = sum(_state(step) not in OVER for step in callbacks)
    have = flow.get("open", 0)
    problems: list[str] = []
    if not flow.get("fired"):
        if have != going or not going:
            problems.append(f"{name} has {have} open members, there are {going}")
        if any(_state(step) != "waiting" for step in callbacks):
            problems.append(f"{name} has called before its members ended")
    elif going or have != (calling if nested else 0):
        problems.append(f"{name} has fired, {going} members and {calling} callbacks are open, it says {have}")
    if (state != "running") != (bool(flow.get("fired")) and have == 0):
        problems.append(f"{name} is {state} with {have} open")
    bad = any(_state(step) in ("failed", "cancelled") for step in (members + callbacks if nested else members))
    if state != "running" and (state == "failed") != bad:
        problems.append(f"{name} is {state}, its steps say {[_state(step) for step in members]}")
    return problems


def _plans(workflow_id: str, steps: dict[int, Record], plans: set[str]) -> list[str]:
    problems = []
    for number, step in steps.items():
        waits = _state(step) == "waiting"
        has = f"{workflow_id}:{number}" in plans
        if (has and not waits) or (waits and not has and "flow" not in step):
            problems.append(f"step {number} of {workflow_id} is {_state(step)} and has plan: {has}")
    return problems
