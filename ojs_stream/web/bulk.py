"""Views of many jobs at once: enqueue each for itself or all or none; cancel, retry, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from time import monotonic
from typing import Any

import msgspec
from msgspec import Raw

from ojs_stream import stamp
from ojs_stream.core.bodies import parse_object_or_nothing
from ojs_stream.core.commands import Bulk, BulkAction, Enqueue, Rejection
from ojs_stream.core.config_body import length_of
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.selection import (
    DeadFilter,
    Filter,
    Selection,
    legal_states,
    parse_dead_filter,
    parse_selection,
)
from ojs_stream.core.states import State
from ojs_stream.core.validation import BulkJobs, parse_bulk
from ojs_stream.errors import RefusedError, UnavailableError
from ojs_stream.store.queries import JobFilter
from ojs_stream.store.scans import Page
from ojs_stream.web.addressing import homes_of
from ojs_stream.web.answer import Answer
from ojs_stream.web.enqueuing import NO_JOB, decider_of, headers_of, jobs_of, name_state, submit_jobs, taken_ids
from ojs_stream.web.middleware import Call, Handler
from ojs_stream.web.problems import problem_of
from ojs_stream.web.replays import Replay, replay_of

BULK_S = 6.0
"""A change by filter goes on for so long; ``more`` says that jobs are left."""
PORTION = 200
"""So many jobs are changed by one command: other commands of the home come in between."""
ITEMS_MAX = 1_000
"""So many items an answer lists; its counts are of all."""
DONE = {"cancel": "cancelled", "retry": "retried", "delete": "deleted"}

Item = dict[str, Any]


# -- enqueue --------------------------------------------------------------------------------------------------


async def enqueue(call: Call) -> Answer:
    """POST /jobs/bulk ``{jobs, atomicity?, idempotency_key?}`` -> ``{total, succeeded, failed, items}``.

    200 when all are stored, 207 when some are, 422 when none is (``atomic``: or when one cannot be).
    """
    body = await call.body()
    bulk = parse_bulk(body, call.site.rules, call.site.new_job_id)
    replay = replay_of(call, "bulk", body, bulk.key)
    if bulk.atomic:
        return await _all_or_none(call, bulk, replay)
    outcome = await _each_for_itself(call, bulk, replay)
    total = len(outcome.jobs) + len(outcome.data.get("rejected", {}))
    return _summed_up(call, await _items(call, outcome, total), outcome)


async def _all_or_none(call: Call, bulk: BulkJobs, replay: Replay) -> Answer:
    total = len(bulk.jobs) + len(bulk.rejected)
    if bulk.rejected:
        return _summed_up(call, _none_stored(total, bulk.rejected))
    try:
        outcome = await submit_jobs(call, tuple(bulk.jobs.values()), batch=True, replay=replay)
    except RefusedError as refusal:
        if "index" not in refusal.details:
            raise
        return _summed_up(call, _none_stored(total, {int(refusal.details["index"]): refusal}))
    return _summed_up(call, await _items(call, outcome, total), outcome)


def _none_stored(total: int, refusals: Mapping[int, RefusedError]) -> list[Item]:
    other = {"code": "bulk_failed", "message": "Not stored, since another job of this atomic request was refused."}
    return [
        {"index": index, "status": "failed", "error": _error(refusals[index]) if index in refusals else other}
        for index in range(total)
    ]


def _error(refusal: RefusedError | Rejection) -> dict[str, Any]:
    return {"code": refusal.code, "message": refusal.message, "details": refusal.details}


async def _each_for_itself(call: Call, bulk: BulkJobs, replay: Replay) -> Outcome:
    """What the view refuses travels in the command, so that a repeat is told the same of every job."""
    taken = await taken_ids(call, tuple(bulk.jobs.values()), replay)
    rejected = dict(bulk.rejected)
    rejected.update((index, taken[job.id]) for index, job in bulk.jobs.items() if job.id in taken)
    jobs = tuple(job for index, job in bulk.jobs.items() if index not in rejected)
    said = {
        str(index): Rejection(code=error.code, message=error.message, details=error.details)
        for index, error in sorted(rejected.items())
    }
    if not jobs:
        shown = {index: msgspec.structs.asdict(one) for index, one in said.items()}
        return Outcome(data={"rejected": shown})
    command = Enqueue(jobs=jobs, batch=True, partial=True, rejected=said, **replay, **call.base)
    return await call.submit(decider_of(call, command), command)


async def _items(call: Call, outcome: Outcome, total: int) -> list[Item]:
    """An item for each job of the request, in its order."""
    rejected: dict[str, Any] = outcome.data.get("rejected", {})
    raws = iter(enumerate(await jobs_of(call, outcome)))
    items: list[Item] = []
    for index in range(total):
        error = rejected.get(str(index))
        if error is not None:
            items.append({"index": index, "status": "failed", "error": error})
        else:
            place, raw = next(raws)
            items.append({"index": index, **(await _item(call, outcome, place, raw))})
    return items


async def _item(call: Call, outcome: Outcome, place: int, raw: bytes) -> Item:
    if raw == NO_JOB:
        error = outcome.data["refused"][str(place)]
        await name_state(call, error["code"], error["details"])
        return {"status": "failed", "error": error}
    existing = str(place) in outcome.data.get("existing", {})
    return {"status": "duplicate" if existing else "created", "job": Raw(raw)}


def _summed_up(call: Call, items: list[Item], outcome: Outcome | None = None) -> Answer:
    failed = sum(item["status"] == "failed" for item in items)
    sums = {"total": len(items), "succeeded": len(items) - failed, "failed": failed, "items": items}
    headers = {"x_ojs_batch_size": str(len(items)), **(headers_of(outcome) if outcome is not None else {})}
    if failed == len(items):
        refusal = RefusedError("bulk_failed", "No job was stored; items has the reason of each.")
        return _refused(call, refusal, sums, headers)
    return call.json(sums, 207 if failed else 200, **headers)


def _refused(call: Call, refusal: RefusedError, sums: dict[str, Any], headers: dict[str, str]) -> Answer:
    """An error envelope with the items beside it."""
    problem = problem_of(refusal, call.request_id)
    return call.answer(problem.body[:-1] + b"," + msgspec.json.encode(sums)[1:], problem.status, **headers)


# -- cancel, retry, delete ------------------------------------------------------------------------------------


def changing(action: BulkAction, *, confirm: bool = False) -> Handler:
    """The view of POST /jobs/bulk/{action}; of POST /admin/jobs/bulk/{action} with ``confirm``."""

    async def view(call: Call) -> Answer:
        selection = parse_selection(
            await call.body(),
            action,
            ids_max=call.ctx.limits.batch_jobs_max,
            confirm=confirm,
            now_ms=stamp.now_ms(),
        )
        change = _Change(call, action, selection)
        await (
            change.by_ids(selection.job_ids) if selection.filter is None else change.by_filter(selection.filter)
        )
        return change.answer()

    return view


async def retry_dead(call: Call) -> Answer:
    """POST /admin/dead-letter/retry ``{filter: {queue?, type?, ...}, confirm: true}`` -> as a bulk retry."""
    wanted = parse_dead_filter(await call.body(), stamp.now_ms())
    return await _change_dead(call, "retry", wanted)


async def purge_dead(call: Call) -> Answer:
    """POST /dead-letter/purge?older_than -> ``{deleted, ...}``: dead letters that have been such for so long."""
    parse_object_or_nothing(await call.body())
    length = call.request.query.get("older_than")
    until = stamp.now_ms() - length_of(length, "older_than") if length else None
    return await _change_dead(call, "delete", DeadFilter(until=until))


async def _change_dead(call: Call, action: BulkAction, wanted: DeadFilter) -> Answer:
    """Page by page, for at most ``BULK_S``; what is changed is no dead letter any more."""
    change = _Change(call, action, Selection(job_ids=(), filter=None))
    await change.by_dead(JobFilter(**msgspec.structs.asdict(wanted)))
    return change.answer()


class _Change:
    """A bulk change under way, and what became of each job."""

    def __init__(self, call: Call, action: BulkAction, selection: Selection) -> None:
        self._call = call
        self._action = action
        self._reason = selection.reason
        self._said: dict[str, Item] = {}
        """job id -> its item, in the order of the request, at most ``ITEMS_MAX``"""
        self._sums = {"done": 0, "skipped": 0, "failed": 0}
        self._missing = 0
        self._more = False
        self._down: UnavailableError | None = None

    async def by_ids(self, job_ids: tuple[str, ...]) -> None:
        """Each home gets its ids; one that it does not have is looked for, once."""
        self._said = {job_id: {} for job_id in job_ids}
        await self._change_ids(job_ids, legal_states(self._action))

    async def _change_ids(self, job_ids: tuple[str, ...], states: tuple[State, ...]) -> None:
        astray = set(job_ids)
        homes = await homes_of(self._call, job_ids)
        for ids in homes.values():
            astray.difference_update(ids)
        lost = await asyncio.gather(*(self._change_all(home, ids, states) for home, ids in homes.items()))
        astray.update(job_id for ids in lost for job_id in ids)
        found = await self._call.ctx.queries.jobs(astray) if astray else {}
        again: dict[int, list[str]] = {}
        for job_id, (home, _) in found.items():
            again.setdefault(home, []).append(job_id)
        lost = await asyncio.gather(*(self._change_all(home, ids, states) for home, ids in again.items()))
        gone = (astray - found.keys()).union(*lost)
        self._missing += len(gone)
        self._fail(gone, "not_found", "There is no such job.")

    async def by_filter(self, wanted: Filter) -> None:
        """Page by page until nothing is left, or for ``BULK_S``."""
        until = monotonic() + BULK_S
        async with aclosing(self._call.ctx.queries.matching(wanted)) as pages:
            async for home, job_ids in pages:
                # What is gone since the page was read is no match any more.
                await self._change_all(home, job_ids, wanted.states)
                if self._down is not None or monotonic() > until:
                    self._more = True
                    return

    async def by_dead(self, wanted: JobFilter) -> None:
        """The dead letters that fit, the newest first."""
        until = monotonic() + BULK_S
        cursor = ""
        while True:
            page = Page(limit=ITEMS_MAX, cursor=cursor)
            found = await self._call.ctx.queries.dead_letters(wanted, page)
            await self._change_ids(tuple(record.job.id for record in found.records), ("discarded",))
            if not found.next_cursor:
                return
            cursor = found.next_cursor
            if self._down is not None or monotonic() > until:
                self._more = True
                return

    async def _change_all(self, home: int, job_ids: list[str], states: tuple[State, ...]) -> list[str]:
        """Change jobs of one home; gives the ids that it does not have."""
        missing: list[str] = []
        for start in range(0, len(job_ids), PORTION):
            portion = tuple(job_ids[start : start + PORTION])
            command = Bulk(
                action=self._action, job_ids=portion, states=states, reason=self._reason, **self._call.base
            )
            try:
                outcome = await self._call.submit(home, command)
            except UnavailableError as error:
                self._down = error
                self._fail(job_ids[start:], "backend_error", str(error))
                break
            self._note(outcome)
            missing.extend(outcome.data["missing"])
        return missing

    def _note(self, outcome: Outcome) -> None:
        for job_id in outcome.data["done"]:
            self._say("done", job_id, {"status": DONE[self._action]})
        for job_id, reason in outcome.data["skipped"].items():
            self._say("skipped", job_id, {"status": "skipped", "reason": reason, "error": _conflict(reason)})

    def _fail(self, job_ids: Iterable[str], code: str, message: str) -> None:
        for job_id in job_ids:
            self._say("failed", job_id, {"status": "failed", "error": {"code": code, "message": message}})

    def _say(self, kind: str, job_id: str, item: Item) -> None:
        self._sums[kind] += 1
        if job_id in self._said or len(self._said) < ITEMS_MAX:
            self._said[job_id] = {"job_id": job_id, **item}

    def answer(self) -> Answer:
        """The sums, an item for each job, and the errors once more by themselves."""
        done, skipped, failed = (self._sums[kind] for kind in ("done", "skipped", "failed"))
        total = done + skipped + failed
        if self._down is not None and failed == total:
            raise self._down
        items = [{"index": index, **item} for index, item in enumerate(self._said.values())]
        sums = {
            "action": self._action,
            "total_matched": total - self._missing,
            "matched": total - self._missing,
            DONE[self._action]: done,
            "succeeded": done,
            "skipped": skipped,
            "failed": failed,
            "errors": [
                {"job_id": item["job_id"], **item["error"]} for item in items if item["status"] == "failed"
            ],
            "items": items,
            "items_truncated": total > len(items),
            "more": self._more,
        }
        headers = {"x_ojs_batch_size": str(total)}
        if failed and failed == total:
            refusal = RefusedError("bulk_failed", "No job was changed; items has the reason of each.")
            return _refused(self._call, refusal, sums, headers)
        return self._call.json(sums, 207 if failed else 200, **headers)


def _conflict(reason: str) -> dict[str, str]:
    return {"code": "conflict", "message": reason}
