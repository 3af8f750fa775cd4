"""Did every cron entry fire once for each of its instants, and each run by hand once?"""

from __future__ import annotations

from collections import Counter

from tests.simulation.evidence import Event, Evidence


def crons_kept(evidence: Evidence) -> list[str]:
    """From the events of the entries, their jobs and what clients were told."""
    triggered = [event for events in evidence.events for event in events if event["type"] == "cron.triggered"]
    skipped = [event for events in evidence.events for event in events if event["type"] == "cron.skipped"]
    runs = Counter(event["data"]["job_id"] for event in triggered)
    problems = [f"cron job {job_id} was triggered {n} times" for job_id, n in runs.items() if n > 1]
    born = {event["subject"] for event in evidence.job_events()}
    refused = {(event["subject"], event["data"]["scheduled_at"]) for event in skipped}
    problems += [
        f"cron job {event['data']['job_id']} was triggered and is nowhere"
        for event in triggered
        if event["data"]["job_id"] not in born and (event["subject"], event["data"]["scheduled_at"]) not in refused
    ]
    made = {
        job_id
        for job_id, record in evidence.stored.items()
        if any(watcher["kind"] == "cron" for watcher in record["ctl"].get("watchers", ()))
    }
    problems += [f"job {job_id} is of a cron entry that never triggered it" for job_id in made - runs.keys()]
    return problems + _by_hand(evidence) + _registered(evidence)


def _by_hand(evidence: Evidence) -> list[str]:
    """A run by hand that was told as a job is that job."""
    born = {event["subject"] for event in evidence.job_events()}
    return [
        f"a run by hand was told as job {job['id']}, which is nowhere"
        for line in evidence.asked("trigger_cron")
        if line.answer == "ok"
        for job in line.jobs
        if job is not None and job["id"] not in born
    ]


def _registered(evidence: Evidence) -> list[str]:
    """At the end all were deleted, and that was told."""
    return [
        f"cron entry {name[5:]} is there after its deletion"
        for dump in evidence.dumps
        for name in dump
        if name.startswith("cron:")
    ]


def overlaps(evidence: Evidence) -> list[str]:
    """An entry that skips has never two jobs at once. By times: the clock of the log must never have been set."""
    problems: list[str] = []
    living: dict[str, str] = {}
    owner: dict[str, str] = {}
    for event in sorted(evidence.in_time(), key=_ends_first):
        job_id = event["data"].get("job_id", "")
        if event["type"] == "cron.triggered" and evidence.history.crons.get(event["subject"]) == "skip":
            before = living.get(event["subject"], "")
            if before and not _is_by_hand(evidence, job_id):
                problems.append(f"cron entry {event['subject']} triggered {job_id} beside {before}")
            living[event["subject"]] = job_id
            owner[job_id] = event["subject"]
        elif event["type"] in ("job.completed", "job.discarded", "job.expired", "job.cancelled") and job_id in owner:
            if living.get(owner[job_id]) == job_id:
                living[owner[job_id]] = ""
    return problems


def _ends_first(event: Event) -> tuple[str, bool]:
    return event["time"], event["type"] == "cron.triggered"


def _is_by_hand(evidence: Evidence, job_id: str) -> bool:
    return any(
        job is not None and job["id"] == job_id for line in evidence.asked("trigger_cron") for job in line.jobs
    ) or any(line.answer == "unknown" for line in evidence.asked("trigger_cron"))
