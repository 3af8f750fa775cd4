"""From what the clients of a run saw to the operations on each job, as the linearizability checker wants them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from tests.support.history import Answer, History
from tools.chaos.crowd import FINAL, RETRY_MS, VISIBILITY_MS
from tools.chaos.linear import Op

WORKER_DEAD_S = 19.0
"""A worker whose last beat is so old may have lost what it has: 30 s, less the 10 s for which a beat is not
written again, and a second."""
CLOCK_SLACK_S = 0.05
"""Clients measure with another clock than the broker, whose time counts."""


@dataclass(frozen=True, slots=True)
class Start:
    """What the events topic says of one attempt."""

    attempt: int
    worker: str


Histories = dict[str, list[Op]]
Starts = Mapping[str, Iterable[Start]]
"""job id -> its attempts, as the events topic tells them."""


def operations(history: History, starts: Starts) -> tuple[Histories, list[str]]:
    """The operations on each job of the history, and attempts that nobody can have asked for."""
    found: Histories = defaultdict(list)
    for answer in history.answers:
        if not answer.refused_connection:
            for job_id, op in _ops_of(answer):
                found[job_id].append(op)
    strange = _add_unheard(found, history, starts)
    silent = _silences(history)
    for ops in found.values():
        ops.extend([mine for op in ops for mine in _by_itself(op, silent)])
    born = {job_id for job_id, ops in found.items() if any(op.kind == "enqueue" for op in ops)}
    return {job_id: found[job_id] for job_id in born}, strange


def _end(answer: Answer) -> float:
    return inf if answer.unknown else answer.begun + answer.took_s


def _said(answer: Answer) -> str:
    if answer.unknown:
        return ""
    refusals = {404: "missing", 409: "duplicate" if answer.code == "duplicate" else "conflict"}
    return refusals.get(answer.status, "done")


def _ops_of(answer: Answer) -> Iterator[tuple[str, Op]]:
    path, sent = answer.path.partition("?")[0], answer.sent
    if path == "/jobs" and answer.method == "POST":
        yield from _enqueues(answer)
    elif path.startswith("/jobs/") and answer.method == "GET":
        yield from _reads(path.removeprefix("/jobs/"), answer)
    elif path.endswith("/cancel"):
        yield path.split("/")[2], _op("cancel", answer)
    elif path in ("/workers/ack", "/workers/nack"):
        yield sent["job_id"], _op(path.rpartition("/")[2], answer, to=_led_to(answer), worker=_worker(answer))
    elif answer.accepted:
        yield from _told(path, answer)


def _told(path: str, answer: Answer) -> Iterator[tuple[str, Op]]:
    """What an answer says of several jobs."""
    if path == "/workers/fetch":
        for job in answer.body["jobs"]:
            yield job["id"], _op("claim", answer, attempt=job["attempt"], worker=_worker(answer))
    elif path == "/workers/heartbeat":
        for job_id in answer.body["jobs_extended"]:
            yield job_id, _op("extend", answer, worker=_worker(answer))


def _op(kind: str, answer: Answer, **more: Any) -> Op:
    return Op(kind=kind, begun=answer.begun, ended=_end(answer), said=_said(answer), **more)


def _worker(answer: Answer) -> str:
    return str(answer.sent.get("worker_id", ""))


def _enqueues(answer: Answer) -> Iterator[tuple[str, Op]]:
    """Of a job that a client named, or that an answer names as new."""
    named = answer.sent.get("id", "")
    made = answer.body["id"] if answer.status == 201 else ""
    if not (named or made):
        return
    state = "scheduled" if "scheduled_at" in answer.sent.get("options", {}) else "available"
    said = "repeated" if answer.replayed else "made" if made else _said(answer)
    yield (
        named or made,
        Op(kind="enqueue", begun=answer.begun, ended=_end(answer), said=said, to=state),
    )


def _reads(job_id: str, answer: Answer) -> Iterator[tuple[str, Op]]:
    if answer.accepted:
        job = answer.body["job"]
        yield job_id, _op("get", answer, to=job["state"], attempt=job["attempt"])
    elif answer.status == 404:
        yield job_id, _op("get", answer)


def _led_to(answer: Answer) -> str:
    if answer.accepted:
        return str(answer.body["state"])
    if answer.path.endswith("/ack"):
        return "completed"
    return "discarded" if answer.sent["error"]["code"] == FINAL else "retryable"


# ------------------------------------------------------------------ what no client was told


def _add_unheard(found: Histories, history: History, starts: Starts) -> list[str]:
    """Attempts that no answer told of; a repeated key tells of a job whose first request had none."""
    fetches: dict[str, list[float]] = defaultdict(list)
    for answer in history.of("/workers/fetch"):
        if _may_hide(answer):
            fetches[_worker(answer)].append(answer.begun)
    strange = []
    for job_id, ops in found.items():
        told = {op.attempt for op in ops if op.kind == "claim"}
        for start in starts.get(job_id, ()):
            if start.attempt in told:
                continue
            asked = fetches.get(start.worker)
            if not asked:
                strange.append(f"{job_id}: attempt {start.attempt} is of {start.worker!r}, who never asked for it")
            else:
                ops.append(Op(kind="claim", begun=asked[0], attempt=start.attempt, worker=start.worker))
    _add_first_requests(found, history)
    return strange


def _may_hide(fetch: Answer) -> bool:
    """Whether more may have been claimed than the client was told.

    A fetch over several queues is answered with what it has got, when one of their homes has no clear answer.
    """
    if fetch.accepted:
        got = len(fetch.body["jobs"])
        return len(fetch.sent.get("queues", ())) > 1 and 0 < got < fetch.sent.get("count", 1)
    return fetch.unknown and not fetch.refused_connection


def _add_first_requests(found: Histories, history: History) -> None:
    """A job that is only known by the repeat of its request was made by one before it."""
    first: dict[str, Answer] = {}
    for answer in history.of("/jobs"):
        if answer.key and answer.unknown and not answer.refused_connection:
            first.setdefault(answer.key, answer)
    for answer in history.of("/jobs"):
        if answer.replayed and answer.status == 201 and answer.key in first:
            found[answer.body["id"]].append(Op(kind="enqueue", begun=first[answer.key].begun, to="available"))


# ------------------------------------------------------------------ what the server does by itself

Silent = Callable[[str, float, float], bool]
"""Whether a worker may have been taken for dead between two moments."""


def _silences(history: History) -> Silent:
    beats: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for answer in history.of("/workers/heartbeat"):
        beats[_worker(answer)].append((answer.begun, answer.accepted))

    def silent(worker: str, since: float, until: float) -> bool:
        last = inf
        for at, heard in sorted(beats[worker]):
            if heard and last + WORKER_DEAD_S < min(at, until) and at > since:
                return True
            # A beat without an answer may have made the worker known; it may not have kept it alive.
            if heard or last == inf:
                last = at
        return last + WORKER_DEAD_S < until

    return silent


def _by_itself(op: Op, silent: Silent) -> Iterator[Op]:
    """The end of a lease, at the earliest when its time is over, and the promotion of a retry."""
    if op.kind == "claim":
        yield Op(kind="release", begun=_lease_end(op, silent), attempt=op.attempt)
    elif op.kind == "nack" and op.to == "retryable" and op.said in ("", "done"):
        yield Op(kind="promote", begun=op.begun + RETRY_MS / 1000 - CLOCK_SLACK_S)


def _lease_end(op: Op, silent: Silent) -> float:
    """A claim that nobody heard of is given back at any time."""
    end = op.begun + VISIBILITY_MS / 1000 - CLOCK_SLACK_S
    return op.begun if op.ended == inf or silent(op.worker, op.begun, end) else end
