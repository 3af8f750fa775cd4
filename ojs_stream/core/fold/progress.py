"""How far a job is, as its worker says (ojs-progress): kept for the present attempt, and a sign of life."""

from __future__ import annotations

from msgspec import structs

from ojs_stream.core.commands import Report
from ojs_stream.core.fold.jobs import about, change, here, store
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import JobRecord, Progress, own
from ojs_stream.core.times import iso
from ojs_stream.core.world import World


def report(world: World, command: Report) -> Outcome | None:
    """``data``: what is known now, and whether this report was ``accepted``: one that comes late is not.

    A worker need not care whether its report arrives: nothing but an unknown job is refused.
    """
    record = here(world, command.job_id, command)
    if record is None:
        return None
    holder = record.job.worker_id
    accepted = record.job.state == "active" and (not command.worker_id or holder in (None, command.worker_id))
    if accepted:
        record = _told(world, record, command)
    known = record.ctl.progress
    return Outcome(
        data={
            "job_id": record.job.id,
            "state": record.job.state,
            "accepted": accepted,
            "progress": known.fraction if known else None,
            "message": known.message if known else None,
            "updated_at": iso(known.at) if known else None,
        }
    )


def _told(world: World, record: JobRecord, command: Report) -> JobRecord:
    before = record.ctl.progress
    kept = before if before is not None else Progress(at=0)
    after = Progress(
        at=world.now,
        fraction=_farther(kept.fraction, command.fraction),
        message=kept.message if command.message is None else command.message,
        data=own(command.data) or kept.data,
    )
    world.needs_release(2)
    told = store(world, change(record, {}, {"progress": after, "lease": world.now + record.ctl.lease_ms}))
    if _is_news(before, after):
        job = told.job
        data = about(
            job,
            worker_id=job.worker_id,
            attempt=job.attempt,
            progress_percent=percent_of(after.fraction),
            progress_message=after.message,
        )
        world.emit("job.progress", job.id, data, told)
    return told


def _farther(known: float | None, said: float | None) -> float | None:
    if known is None or said is None:
        return said if known is None else known
    return max(known, said)


def _is_news(before: Progress | None, after: Progress) -> bool:
    """A report a thousand times a second is a hundred events an attempt, not a thousand a second."""
    if before is None or before.message != after.message:
        return True
    return percent_of(before.fraction) != percent_of(after.fraction)


def percent_of(fraction: float | None) -> int | None:
    """In whole percent; 100 only when it is all done."""
    return None if fraction is None else int(fraction * 100 + 1e-9)


def finished(known: Progress | None) -> Progress | None:
    """Of a completed job: all done, if its worker ever said anything."""
    return None if known is None else structs.replace(known, fraction=1.0)
