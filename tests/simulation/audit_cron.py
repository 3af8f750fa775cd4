"""Did every cron entry fire once for each of its instants, and each run by hand once?"""

from __future__ import annotations

from collections import Counter

from tests.simulation.evidence import Event, Evidence

ENDS = ("job.completed", "job.discarded", "job.expired", "job.cancelled")


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
    asked = Counter(line.fields["name"] for line in evidence.asked("delete_cron"))
    # All are deleted at the end. One that was deleted before knew nothing more of its jobs when it was made anew.
    skipping = {name for name, policy in evidence.history.crons.items() if policy == "skip" and asked[name] == 1}
    problems: list[str] = []
    living: dict[str, Event] = {}
    for event in sorted(evidence.in_time(), key=_ends_first):
        name, job_id = event["subject"], event["data"].get("job_id", "")
        if event["type"] == "cron.triggered" and name in skipping:
            if name in living and not _is_by_hand(evidence, job_id):
                problems.append(f"cron entry {name} triggered {job_id} beside {living[name]['data']['job_id']}")
            living[name] = event
        elif event["type"] in ENDS or event["type"] == "cron.skipped":
            living = {name: run for name, run in living.items() if not _is_over(run, event)}
    return problems


def _is_over(run: Event, event: Event) -> bool:
    """Its job has ended, or was refused by the home that decided about it."""
    if event["type"] in ENDS:
        return bool(event["subject"] == run["data"]["job_id"])
    return bool(
        event["subject"] == run["subject"] and event["data"]["scheduled_at"] == run["data"]["scheduled_at"]
    )


def _ends_first(event: Event) -> tuple[str, bool]:
    return event["time"], event["type"] == "cron.triggered"


def _is_by_hand(evidence: Evidence, job_id: str) -> bool:
    """Whether it is told as one, or may be one whose answer nobody has heard."""
    lines = list(evidence.asked("trigger_cron"))
    told = (job["id"] for line in lines for job in line.jobs if job is not None)
    return job_id in told or any(line.answer == "unknown" for line in lines)
