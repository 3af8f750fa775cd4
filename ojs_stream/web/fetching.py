"""POST /workers/fetch: look, claim home by home, wait if asked, give back what a vanished client left."""

from __future__ import annotations

import asyncio
from itertools import groupby
from time import monotonic

from ojs_stream import stamp
from ojs_stream.core.bodies import ClaimRequest, parse_claim
from ojs_stream.core.commands import Claim, GiveBack
from ojs_stream.core.outcomes import Outcome
from ojs_stream.errors import UnavailableError
from ojs_stream.web.answer import Answer
from ojs_stream.web.beats import is_resting
from ojs_stream.web.middleware import Call
from ojs_stream.web.problems import raise_if_refused
from ojs_stream.web.responses import id_of, jobs_body

LOOK_EVERY_S = 0.5
"""A long poll looks this often itself: work at homes of other processes may come without a sign here."""

PAUSE_S = 0.005
PAUSE_MAX_S = 0.1

Claimed = list[tuple[int, bytes]]
"""(home, whole job)"""


async def fetch(call: Call) -> Answer:
    """POST /workers/fetch ``{queues, count?, worker_id?, wait_ms?, ...}`` -> ``{jobs: [...]}``, always 200."""
    limits = call.ctx.limits
    wanted = parse_claim(await call.body(), jobs_max=limits.fetch_jobs_max, wait_ms_max=limits.wait_ms_max)
    if wanted.worker_id and await is_resting(call, wanted.worker_id):
        return call.answer(jobs_body([]))
    claimed = await claim_once(call, wanted)
    if not claimed and wanted.wait_ms:
        claimed = await _claim_waiting(call, wanted)
    if claimed and call.gone():
        _give_back(call, wanted, claimed)
    return call.answer(jobs_body([raw for _, raw in claimed]))


async def _claim_waiting(call: Call, wanted: ClaimRequest) -> Claimed:
    deadline = monotonic() + wanted.wait_ms / 1_000
    pause_s = PAUSE_S
    while (left_s := deadline - monotonic()) > 0 and not call.gone():
        await call.ctx.wait_for_work(wanted.queues, min(left_s, LOOK_EVERY_S))
        if wanted.worker_id and await is_resting(call, wanted.worker_id):
            break
        claimed = await claim_once(call, wanted)
        if claimed:
            return claimed
        # Woken for nothing: somebody else was faster. Without a pause a stale sign of work would spin.
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, PAUSE_MAX_S)
    return []


async def claim_once(call: Call, wanted: ClaimRequest) -> Claimed:
    """What there is now, home by home from the left, up to ``count``."""
    queues = await _worth_asking(call, wanted.queues)
    claimed: Claimed = []
    failure: UnavailableError | None = None
    for home, names in groupby(queues, key=call.site.home_of):
        try:
            claimed += await _claim_at(call, home, tuple(names), wanted, wanted.count - len(claimed))
        except UnavailableError as error:
            # Another home may have work all the same; what is claimed must not be lost.
            failure = error
        if len(claimed) >= wanted.count:
            break
    if failure and not claimed:
        raise failure
    return claimed


async def _worth_asking(call: Call, queues: tuple[str, ...]) -> list[str]:
    """The queues that have something: an idle poll costs the log nothing (DESIGN.md section 10)."""
    unsure = [queue for queue in queues if not call.ctx.hint(queue)]
    if not unsure:
        return list(queues)
    seen = await call.ctx.queries.look(unsure, stamp.now_ms())
    return [queue for queue in queues if seen.get(queue, True)]


async def _claim_at(call: Call, home: int, queues: tuple[str, ...], wanted: ClaimRequest, count: int) -> Claimed:
    command = Claim(
        queues=queues,
        count=count,
        worker_id=wanted.worker_id,
        visibility_ms=wanted.visibility_ms,
        **call.base,
    )

    def late(outcome: Outcome) -> None:
        # The client was told that nobody knows: without this its jobs would wait for their visibility timeout.
        _give_back(call, wanted, [(home, bytes(raw)) for raw in outcome.jobs])

    # aiohttp does not cancel the handler of a client that went away: who hears of the claim is always here.
    outcome = raise_if_refused(await call.ctx.gateway.submit(home, command, late=late))
    return [(home, bytes(raw)) for raw in outcome.jobs]


def _give_back(call: Call, wanted: ClaimRequest, claimed: Claimed) -> None:
    for home, jobs in groupby(claimed, key=lambda pair: pair[0]):
        ids = tuple(id_of(raw) for _, raw in jobs)
        command = GiveBack(job_ids=ids, worker_id=wanted.worker_id, **call.base)
        call.site.spawn(call.ctx.gateway.submit(home, command))
