"""What a heartbeat does: leases extended home by home, the worker's record kept fresh, a directive told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import msgspec

from ojs_stream import stamp
from ojs_stream.core.bodies import BeatRequest
from ojs_stream.core.commands import Beat, Extend
from ojs_stream.core.records import JobRecord, WorkerRecord
from ojs_stream.errors import UnavailableError
from ojs_stream.web.addressing import homes_of
from ojs_stream.web.middleware import Call, Site

ANSWER_WITHIN_S = 2.0
"""A heartbeat is answered with what is known by then (DESIGN.md section 13)."""
FRESH_MS = 10_000
"""A stored beat younger than this is not written again."""
KNOWN_FOR_S = 2.0
"""So long this process trusts what it knows of a worker's directive."""
RESTING_MAX = 50_000
_RANK = {"running": 0, "quiet": 1, "terminate": 2}
_RESTING = frozenset(
    ("quiet", "terminate", "terminated", "drain", "draining", "shutting_down", "stopped", "stopping")
)


@dataclass(slots=True)
class Extended:
    """Leases that now last longer and jobs that were cancelled meanwhile, as far as homes have answered."""

    extended: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    asked: int = 0
    answered: int = 0


class _Directive(msgspec.Struct):
    test_directive: Any = None


_directive = msgspec.json.Decoder(_Directive)


async def is_resting(call: Call, worker_id: str) -> bool:
    """Whether a worker must get no jobs: it was told to be quiet, or says itself that it drains."""
    known = call.site.resting.get(worker_id)
    if known and monotonic() - known[1] < KNOWN_FOR_S:
        return known[0]
    if known:
        # One of a worker's fetches looks again; those beside it take what was known.
        call.site.resting[worker_id] = (known[0], monotonic())
    record = await call.ctx.queries.workers.record(worker_id)
    return remember(call.site, worker_id, record.directive if record else "", record.reported if record else "")


def remember(site: Site, worker_id: str, directive: str, reported: str) -> bool:
    """Keep what is known of a worker, so that most fetches need no read."""
    if len(site.resting) >= RESTING_MAX:
        site.resting.clear()
    resting = directive in _RESTING or reported in _RESTING
    site.resting[worker_id] = (resting, monotonic())
    return resting


async def extend(call: Call, beat: BeatRequest, known: Extended) -> None:
    """Extend leases, noting them in ``known``. ``UnavailableError`` if no home answered."""
    await _extend_at(call, beat, await homes_of(call, beat.job_ids), known)
    done = {*known.extended, *known.cancelled}
    missing = [job_id for job_id in beat.job_ids if job_id not in done]
    if missing and known.answered:
        await _extend_at(call, beat, await _elsewhere(call, missing), known)
    if known.asked and not known.answered:
        raise UnavailableError("no home of these jobs answered: their leases were not extended", unknown=True)


async def _elsewhere(call: Call, missing: list[str]) -> dict[int, list[str]]:
    """Active jobs that are not where their ids say: ids that a client made, or jobs that moved."""
    homes: dict[int, list[str]] = {}
    first = await homes_of(call, tuple(missing))
    asked = {job_id: home for home, ids in first.items() for job_id in ids}
    for job_id, (home, record) in (await call.ctx.queries.jobs(missing)).items():
        if record.job.state == "active" and asked.get(job_id) != home:
            homes.setdefault(home, []).append(job_id)
    return homes


async def _extend_at(call: Call, beat: BeatRequest, homes: dict[int, list[str]], known: Extended) -> None:
    known.asked += len(homes)
    await asyncio.gather(*(_extend_home(call, beat, (home, tuple(ids)), known) for home, ids in homes.items()))


async def _extend_home(call: Call, beat: BeatRequest, share: tuple[int, tuple[str, ...]], known: Extended) -> None:
    home, ids = share
    command = Extend(worker_id=beat.worker_id, job_ids=ids, visibility_ms=beat.visibility_ms, **call.base)
    try:
        outcome = await call.submit(home, command)
    except UnavailableError:
        return
    known.answered += 1
    known.extended.extend(outcome.data.get("extended", ()))
    known.cancelled.extend(outcome.data.get("cancelled", ()))


async def keep_record(call: Call, beat: BeatRequest, *, always: bool = False) -> str:
    """The worker's directive; a ``beat`` is submitted only if the stored record is old or differs."""
    record = await call.ctx.queries.workers.record(beat.worker_id)
    if record and not always and not _stale(record, beat):
        directive = record.directive
    else:
        outcome = await call.submit(call.site.home_of(beat.worker_id), _command(call, beat))
        directive = str(outcome.data.get("directive", "running"))
    reported = beat.state or (record.reported if record else "")
    remember(call.site, beat.worker_id, directive, reported)
    return directive


def _stale(record: WorkerRecord, beat: BeatRequest) -> bool:
    if stamp.now_ms() - record.beat > FRESH_MS or record.silent:
        return True
    return bool(beat.state) and beat.state != record.reported


def _command(call: Call, beat: BeatRequest) -> Beat:
    return Beat(
        worker_id=beat.worker_id,
        state=beat.state,
        hostname=beat.hostname,
        pid=beat.pid,
        concurrency=beat.concurrency,
        queues=beat.queues,
        active_jobs=beat.active,
        labels=beat.labels,
        version=beat.version,
        **call.base,
    )


async def test_directive(call: Call, worker_id: str) -> str:
    """The strongest ``meta.test_directive`` of its active jobs: in production no job steers a worker."""
    strongest = "running"
    for record in await call.ctx.queries.leases(worker_id):
        strongest = stronger(strongest, _directive_of(record))
    return strongest


def stronger(one: str, other: str) -> str:
    """A directive never weakens: running, quiet, terminate."""
    return one if _RANK.get(one, 0) >= _RANK.get(other, 0) else other


def _directive_of(record: JobRecord) -> str:
    asked = _directive.decode(record.job.meta).test_directive
    return asked if isinstance(asked, str) and asked in _RANK else "running"
