"""Did every record of the bulk topic become one job, or a dead record if it can be none?"""

from __future__ import annotations

from collections import Counter

from msgspec.json import decode as decode_json

from tests.simulation.evidence import BURIED_BULK, Evidence


def bulk_kept(evidence: Evidence) -> list[str]:
    """By the mark that each of them carries in its meta."""
    jobs = Counter(
        record["job"]["meta"]["mark"] for record in evidence.stored.values() if "mark" in record["job"]["meta"]
    )
    buried = {
        decode_json(decode_json(record.value)["command"])["meta"]["mark"]
        for home in range(len(evidence.homes))
        for record in evidence.records("commands.dead", home)
        if record.key is not None and record.key.startswith(BURIED_BULK)
    }
    problems = [f"bulk record {mark} became {n} jobs" for mark, n in jobs.items() if n > 1]
    for mark, good in evidence.history.bulk.items():
        if mark in buried and good:
            problems.append(f"bulk record {mark} was put aside")
        if not good and (mark in jobs or mark not in buried):
            problems.append(f"bulk record {mark} can be no job: stored {jobs[mark]}, put aside {mark in buried}")
        if good and mark not in jobs and not _deleted(evidence, mark):
            problems.append(f"bulk record {mark} is nowhere")
    return problems


def _deleted(evidence: Evidence, mark: str) -> bool:
    """Whether a client has chosen its id and may have had it deleted."""
    return evidence.history.bulk_ids.get(mark, "") in evidence.deleted.maybe
