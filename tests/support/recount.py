"""An independent recount: from the stored job records alone, what every index and counter must be.

It reads JSON and shares no code with the fold: not the records' types, not the scores, not the keys' functions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from msgspec.json import Decoder

from tests.support.recount_flows import recount_workflows, workflow_indexes

decode_json = Decoder(float_hook=float).decode
"""Also of numbers that no float holds, such as 1e400: a job's arguments may have them."""
Dump = dict[str, Any]
STATES = ("available", "active", "scheduled", "retryable", "pending", "completed", "cancelled", "discarded")
DEADLINES = {"stage": "deadline", "replay": "until"}
"""kind -> the field of its records that says when the reaper looks at them"""
FINAL = {"completed": "completed_ms", "cancelled": "cancelled_ms", "discarded": "discarded_ms"}


def recount(dump: Dump) -> list[str]:
    """Everything that is wrong in one home, as sentences; empty when all adds up."""
    return [
        *_indexes(dump),
        *_counters(dump),
        *_watched(dump),
        *_sequences(dump),
        *_checkpoints(dump),
        *recount_workflows(dump),
    ]


def recount_all(dumps: Sequence[Dump]) -> list[str]:
    """As ``recount`` for all homes, and what homes hold for each other."""
    problems = [f"home {home}: {text}" for home, dump in enumerate(dumps) for text in recount(dump)]
    return problems + _references(dumps) + _locks(dumps)


def jobs(dump: Dump) -> dict[str, dict[str, Any]]:
    """id -> record, without the notes of jobs that moved."""
    found = {name[4:]: decode_json(data) for name, data in dump.items() if name.startswith("job:")}
    return {job_id: record for job_id, record in found.items() if "moved" not in record}


def _kind(dump: Dump, kind: str) -> dict[str, dict[str, Any]]:
    return {name[len(kind) + 1 :]: decode_json(data) for name, data in dump.items() if name.startswith(kind + ":")}


def _wanted(dump: Dump) -> dict[str, dict[str, int]]:
    wanted: dict[str, dict[str, int]] = defaultdict(dict)
    for job_id, record in jobs(dump).items():
        job, ctl = record["job"], record["ctl"]
        index = f"held:{job['queue']}" if _held(record) else f"state:{job['queue']}:{job['state']}"
        wanted[index][job_id] = _place(job, ctl)
        for index, deadline in _deadline(job, ctl):
            wanted[f"due:{index}"][job_id] = deadline
        if job["state"] == "active" and job.get("worker_id"):
            wanted[f"leases:{job['worker_id']}"][job_id] = ctl["since"]
        if ctl.get("dead") and job["state"] == "discarded":
            wanted["dead"][job_id] = ctl["since"]
    for worker_id, worker in _kind(dump, "worker").items():
        wanted["workers"][worker_id] = worker["beat"]
        silent = worker.get("silent", False)
        patience = worker.get("keep_ms", 86_400_000) if silent else worker.get("dead_after_ms", 30_000)
        wanted["due:reap"][f"worker:{worker_id}"] = worker["beat"] + patience
    wanted["due:reap"].update(_deadlines(dump))
    _want_locks(dump, wanted)
    _want_queues(dump, wanted)
    _want_limits(dump, wanted)
    _want_crons(dump, wanted)
    return {name: content for name, content in wanted.items() if content}


def _deadlines(dump: Dump) -> dict[str, int]:
    return {
        f"{kind}:{name}": record[field]
        for kind, field in DEADLINES.items()
        for name, record in _kind(dump, kind).items()
    }


def _want_crons(dump: Dump, wanted: dict[str, dict[str, int]]) -> None:
    for name, entry in _kind(dump, "cron").items():
        wanted["crons"][name] = 0
        if entry.get("enabled", True) and entry.get("next_at"):
            wanted["due:cron"][f"cron:{name}"] = entry["next_at"]


def _want_locks(dump: Dump, wanted: dict[str, dict[str, int]]) -> None:
    for key, lock in _kind(dump, "lock").items():
        holders = lock["holders"]
        wanted["locks"][key] = holders[0]["created"]
        ends = [one["created"] + one["period_ms"] for one in holders if one.get("period_ms")]
        if ends:
            wanted["due:reap"][f"lock:{key}"] = min(ends)


def _want_queues(dump: Dump, wanted: dict[str, dict[str, int]]) -> None:
    for name, queue in _kind(dump, "queue").items():
        if not queue.get("deleted"):
            wanted["queues"][name] = 0
        if queue.get("ending"):
            wanted["due:reap"][f"queue:{name}"] = queue["ending"]["look_at"]
        rate = (queue.get("limit") or {}).get("rate")
        if rate and queue.get("window") and queue.get("starts", 0) >= rate["limit"]:
            wanted["due:run"][f"queue:{name}"] = queue["window"] + rate["period_ms"]


def _want_limits(dump: Dump, wanted: dict[str, dict[str, int]]) -> None:
    for key, limit in _kind(dump, "limit").items():
        wanted["limits"][key] = 0
        for index, field in (("due:run", "wake_at"), ("due:reap", "forget_at")):
            if limit.get(field):
                wanted[index][f"limit:{key}"] = limit[field]
    for job_id, slot in _kind(dump, "slot").items():
        if slot["state"] == "waiting":
            wanted[f"waiting:{slot['key']}"][f"slot:{job_id}"] = slot["score"]
        elif slot["state"] == "granted":
            wanted[f"granted:{slot['key']}"][f"slot:{job_id}"] = slot["at"]
            wanted[f"worst:{slot['key']}"][f"slot:{job_id}"] = -slot["score"]


def _held(record: dict[str, Any]) -> bool:
    return record["job"]["state"] == "available" and bool(record["ctl"].get("held"))


def _place(job: dict[str, Any], ctl: dict[str, Any]) -> int:
    if job["state"] == "available":
        return int((100 - job["priority"]) * 17_592_186_044_416 + ctl["sequence"])
    if job["state"] in ("scheduled", "retryable"):
        return int(ctl["due"])
    return int(ctl["since"])


def _deadline(job: dict[str, Any], ctl: dict[str, Any]) -> list[tuple[str, int]]:
    state = job["state"]
    ends = [ctl["expires"]] if ctl.get("expires") else []
    total = ctl["created"] + ctl["total_timeout_ms"] if ctl.get("total_timeout_ms") else 0
    totals = [total] if total else []
    if state in ("scheduled", "retryable"):
        return [("run", min([ctl["due"], *ends, *totals]))]
    if state == "active":
        return [("reap", min([ctl["lease"], ctl["timeout_at"], *totals]))]
    if state == "available":
        return [("reap", min(ends + totals))] if ends + totals else []
    if state in FINAL:
        keep = ctl["retention"]["dead_ms" if state == "discarded" and ctl.get("dead") else FINAL[state]]
        return [("reap", ctl["since"] + keep)] if keep >= 0 else []
    return []


def _indexes(dump: Dump) -> list[str]:
    stored = {name: content for name, content in dump.items() if isinstance(content, dict) and name != "events"}
    wanted = _wanted(dump)
    for name, entries in workflow_indexes(dump).items():
        wanted.setdefault(name, {}).update(entries)
    problems: list[str] = []
    for name in sorted(stored.keys() | wanted.keys()):
        have, want = stored.get(name, {}), wanted.get(name, {})
        problems.extend(
            f"{name} has {member!r} at {have.get(member)}, the records say {want.get(member)}"
            for member in sorted(have.keys() | want.keys())
            if have.get(member) != want.get(member)
        )
    return problems


def _counters(dump: Dump) -> list[str]:
    found: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(STATES, 0))
    for record in jobs(dump).values():
        found[record["job"]["queue"]][record["job"]["state"]] += 1
    held = Counter(record["job"]["queue"] for record in jobs(dump).values() if _held(record))
    queues = _kind(dump, "queue")
    problems = [f"queue {name} has jobs and no record" for name in found.keys() - queues.keys()]
    for name, queue in queues.items():
        have = {state: queue.get("counts", {}).get(state, 0) for state in STATES}
        if have != found[name]:
            problems.append(f"queue {name} counts {have}, there are {found[name]}")
        if queue.get("held", 0) != held[name]:
            problems.append(f"queue {name} counts {queue.get('held', 0)} held jobs, there are {held[name]}")
    return problems + _slots(dump)


def _slots(dump: Dump) -> list[str]:
    found = Counter((slot["key"], slot["state"]) for slot in _kind(dump, "slot").values())
    limits = _kind(dump, "limit")
    problems = [f"slots of {key} and no such limit" for key, _ in found if key not in limits]
    for key, limit in limits.items():
        problems += [
            f"limit {key}: {limit.get(state, 0)} {state}, there are {found[key, state]}"
            for state in ("waiting", "granted", "active")
            if limit.get(state, 0) != found[key, state]
        ]
    return problems


def _watched(dump: Dump) -> list[str]:
    if "home" not in dump:
        return []
    want = sum(record["job"]["state"] == "active" for record in jobs(dump).values())
    want += sum(not worker.get("silent", False) for worker in _kind(dump, "worker").values())
    have = decode_json(dump["home"]).get("watched", 0)
    return [] if have == want else [f"home watches {have}, there is {want} to watch"]


def _sequences(dump: Dump) -> list[str]:
    last = decode_json(dump["home"]).get("sequence", 0) if "home" in dump else 0
    # Of an imported log the jobs of two queues may have the same sequence: they come from two homes.
    available = [r for r in jobs(dump).values() if r["job"]["state"] == "available"]
    ready = [(r["job"]["queue"], r["ctl"]["sequence"]) for r in available]
    problems = [f"two jobs of a queue have sequence {one}" for one in set(ready) if ready.count(one) > 1]
    return problems + [f"sequence {one} is above the home's {last}" for one in ready if one[1] > last]


def _checkpoints(dump: Dump) -> list[str]:
    """Each is of a job of this home that knows of it."""
    have = {job_id: one["sequence"] for job_id, one in _kind(dump, "checkpoint").items()}
    want = {job_id: r["ctl"]["checkpoint"] for job_id, r in jobs(dump).items() if r["ctl"].get("checkpoint")}
    return [
        f"job {job_id} has checkpoint {have.get(job_id)}, its record says {want.get(job_id)}"
        for job_id in sorted(have.keys() | want.keys())
        if have.get(job_id) != want.get(job_id)
    ]


def _references(dumps: Sequence[Dump]) -> list[str]:
    """Ids that are held while a batch is being decided have no job yet."""
    found = Counter(job_id for dump in dumps for job_id in jobs(dump))
    staged = any(_kind(dump, "stage") for dump in dumps)
    problems = [f"job {job_id} is at {count} homes" for job_id, count in found.items() if count > 1]
    for home, dump in enumerate(dumps):
        held = [] if staged else [job_id for job_id in _kind(dump, "id") if job_id not in found]
        problems += [f"home {home} holds id {job_id}, and there is no such job" for job_id in held]
        moved = [job_id for job_id, note in _kind(dump, "job").items() if "moved" in note]
        problems += [
            f"home {home} says that {job_id} moved: it is nowhere" for job_id in moved if job_id not in found
        ]
    return problems


def _locks(dumps: Sequence[Dump]) -> list[str]:
    """A lock knows every living unique job and its state, and no job that is gone. No message is on its way."""
    if any(_kind(dump, "stage") for dump in dumps):
        return []
    found = {job_id: record for dump in dumps for job_id, record in jobs(dump).items()}
    held = {
        (key, one["job"]): one
        for dump in dumps
        for key, lock in _kind(dump, "lock").items()
        for one in lock["holders"]
    }
    problems = [f"lock {key} is held by {job_id}: it is gone" for key, job_id in held if job_id not in found]
    problems += [
        f"lock {key} waits for the stage of {job_id}" for (key, job_id), one in held.items() if "stage" in one
    ]
    for job_id, record in found.items():
        rule = record["ctl"].get("unique")
        if rule is None or rule.get("period_ms"):
            continue
        state = record["job"]["state"]
        wanted = state if state not in FINAL or state in rule["states"] else None
        have = held.get((rule["key"], job_id), {}).get("state")
        if have != wanted:
            problems.append(f"job {job_id} is {state}, its lock knows it as {have}")
    return problems
