"""The checks of the demo: results, dead letters, events against the records, and the workflow."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError

from tools.demo.accounts import difference, expected_counts
from tools.demo.library import hash_file, inspect_named, total_of
from tools.demo.topic import TopicError, read_ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tools.demo.accounts import EventCounts, Ledger
    from tools.demo.checks import Checks
    from tools.demo.run import Outcome
    from tools.demo.workflow import WorkflowOutcome

SHOWN_MAX = 3
_CHUNK_FILES = 20

Direct = dict[str, dict[str, str | int] | None]
"""The result of each file as computed here, None where the file does not tokenize."""


def compute_directly(root: str, names: Sequence[str], processes: int) -> Direct:
    """Return what every file's result must be, computed without the server."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        return dict(pool.map(inspect_named, [root] * len(names), names, chunksize=_CHUNK_FILES))


def check_records(checks: Checks, outcome: Outcome, direct: Direct) -> None:
    """Compare every record with the direct computation."""
    states = Counter(str(record["state"]) for record in outcome.records.values())
    missing = len(direct) - len(outcome.names)
    checks.add(
        "every file became a job", passed=missing == 0, found=f"{len(outcome.names)} of {len(direct)} files"
    )
    checks.add("the run came to its end", passed=not outcome.stalled, found=_shown_states(states, outcome))
    _check_results(checks, outcome, direct)
    _check_failures(checks, outcome, direct)


def _check_results(checks: Checks, outcome: Outcome, direct: Direct) -> None:
    good = [job_id for job_id, name in outcome.names.items() if direct[name] is not None]
    wrong = [
        f"{outcome.names[job_id]}: {_brief(outcome.records[job_id])}, direct {direct[outcome.names[job_id]]}"
        for job_id in good
        if not _is_right(outcome.records[job_id], direct[outcome.names[job_id]])
    ]
    found = f"{len(good) - len(wrong)} of {len(good)} equal{_sample(wrong)}"
    checks.add("every result equals a direct computation", passed=bool(good) and not wrong, found=found)


def _is_right(record: Mapping[str, Any], result: object) -> bool:
    return (record["state"], record["attempt"], record.get("result")) == ("completed", 1, result)


def _check_failures(checks: Checks, outcome: Outcome, direct: Direct) -> None:
    bad = {job_id for job_id, name in outcome.names.items() if direct[name] is None}
    wrong = [
        f"{outcome.names[job_id]}: {_brief(outcome.records[job_id])}"
        for job_id in sorted(bad)
        if not _is_exhausted(outcome.records[job_id])
    ]
    found = f"{len(bad) - len(wrong)} of {len(bad)} discarded after 2 attempts with 2 errors{_sample(wrong)}"
    checks.add("every file that does not tokenize failed twice", passed=bool(bad) and not wrong, found=found)
    listed = Counter(outcome.dead_letters)
    found = f"{len(outcome.dead_letters)} listed, {len(bad)} expected"
    checks.add(
        "the dead-letter list holds exactly those", passed=bool(bad) and listed == Counter(bad), found=found
    )


def _is_exhausted(record: Mapping[str, Any]) -> bool:
    return (record["state"], record["attempt"], len(record.get("errors", ()))) == ("discarded", 2, 2)


async def check_events(checks: Checks, outcome: Outcome, *, brokers: str, topic: str) -> None:
    """Count the distinct events of the topic against the transitions that the records show."""
    expected = expected_counts(outcome.records)
    try:
        ledger = await read_ledger(brokers, topic, job_ids=outcome.names, expected=expected)
    except (TopicError, KafkaError) as error:
        checks.add(f"{topic} can be read", passed=False, found=str(error))
        return
    found = ledger.counts(outcome.names)
    wrong = difference(expected, found)
    checks.add(
        f"the distinct events in {topic} are the transitions of the records",
        passed=bool(expected) and not wrong,
        found=f"{found.total()} events, {expected.total()} transitions ({_by_type(found)}){_sample(wrong)}",
    )
    _check_positions(checks, ledger)


def _check_positions(checks: Checks, ledger: Ledger) -> None:
    gaps = ledger.gaps()
    partitions = len({event.partition for event in ledger.distinct.values()})
    repeats = f"{ledger.repeats} records only repeat an event"
    found = f"{len(ledger.distinct)} events in {partitions} partitions, {repeats}, irregular: {gaps or 'none'}"
    checks.add(
        "event positions are contiguous in each partition",
        passed=bool(ledger.distinct) and not gaps,
        found=found,
    )
    checks.add(
        "a repeated event says the same as the first",
        passed=not ledger.contradictions,
        found=f"{len(ledger.contradictions)} contradictions",
    )


def check_workflow(checks: Checks, outcome: WorkflowOutcome, *, root: str, names: Sequence[str]) -> None:
    """Compare the workflow's end, and what its callback made of all results, with a direct computation."""
    shown = outcome.shown
    ended = tuple(shown.get(field) for field in ("state", "jobs_total", "jobs_completed", "jobs_failed"))
    checks.add(
        "the workflow completed with every file",
        passed=ended == ("completed", len(names), len(names), 0),
        found=f"{ended[0]}, {ended[2]} of {ended[1]} jobs completed, {ended[3]} failed",
    )
    runs = [f"{job['state']}, attempt {job['attempt']}" for job in outcome.callbacks]
    checks.add(
        "its callback ran once", passed=runs == ["completed, attempt 1"], found="; ".join(runs) or "no callback"
    )
    _check_total(checks, outcome, total_of(hash_file(Path(root) / name) for name in names))


def _check_total(checks: Checks, outcome: WorkflowOutcome, direct: Mapping[str, str | int]) -> None:
    reported = [job.get("result") for job in outcome.callbacks]
    right = reported == [direct]
    found = f"{direct['files']} files, {direct['size']:,} bytes, sha256 over all {str(direct['sha256'])[:12]}"
    checks.add(
        "what it made of all results, in order, equals a direct computation",
        passed=right,
        found=found if right else f"{reported}, direct {direct}",
    )


def _by_type(counts: EventCounts) -> str:
    totals: Counter[str] = Counter()
    for (_, event_type), count in counts.items():
        totals[event_type] += count
    return ", ".join(f"{event_type} {count}" for event_type, count in sorted(totals.items()))


def _shown_states(states: Mapping[str, int], outcome: Outcome) -> str:
    shown = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return f"{shown}; {outcome.conflicts} answers refused with 409"


def _brief(record: Mapping[str, Any]) -> str:
    return f"{record['state']}, attempt {record['attempt']}, result {record.get('result')}"


def _sample(sentences: Iterable[str]) -> str:
    shown = list(sentences)
    if not shown:
        return ""
    more = f" and {len(shown) - SHOWN_MAX} more" if len(shown) > SHOWN_MAX else ""
    return ": " + "; ".join(shown[:SHOWN_MAX]) + more
