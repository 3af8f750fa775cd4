"""What is left: queues that were paused, leases that were extended, workers that were heard of."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from msgspec.json import decode as decode_json

from tests.simulation.evidence import Event, Evidence
from tests.simulation.history import EPOCH_MS

SWITCHES = {"queue.paused": ("pause", "paused_by"), "queue.resumed": ("resume", "resumed_by")}


def switches_kept(evidence: Evidence) -> list[str]:
    """A queue was paused and resumed by those who asked for it, once each, and is as the last one has left it."""
    switched: Counter[tuple[str, str]] = Counter()
    last: dict[str, bool] = {}
    for events in evidence.events:
        for event in events:
            if event["type"] in SWITCHES:
                kind, who = SWITCHES[event["type"]]
                switched[kind, event["data"][who]] += 1
                last[event["subject"]] = kind == "pause"
    problems = []
    for line in evidence.asked("pause", "resume"):
        found = switched.pop((line.kind, line.tag), 0)
        if found > (line.answer in ("ok", "unknown")):
            problems.append(f"{line.kind} {line.tag} was {line.answer}, it happened {found} times")
    problems += [f"nobody asked for {kind} {tag}" for kind, tag in switched]
    return problems + _left(evidence, last)


def _left(evidence: Evidence, last: dict[str, bool]) -> list[str]:
    stored = {
        name[6:]: decode_json(data).get("paused", False)
        for dump in evidence.dumps
        for name, data in dump.items()
        if name.startswith("queue:")
    }
    return [
        f"queue {queue} has paused {paused}, its events say {last.get(queue)}"
        for queue, paused in stored.items()
        if paused != last.get(queue, False)
    ]


def workers_known(evidence: Evidence) -> list[str]:
    """Whoever was answered to a heartbeat is known since then."""
    started = {
        event["subject"] for events in evidence.events for event in events if event["type"] == "worker.started"
    }
    return [
        f"worker {line.fields['worker_id']} was answered and is unknown"
        for line in evidence.asked("beat")
        if line.answer == "ok" and line.fields["worker_id"] not in started
    ]


def leases_kept(evidence: Evidence) -> list[str]:
    """A lease that was extended does not end before its time. By times: no clock may ever have been set."""
    lost: dict[str, list[int]] = {}
    for event in evidence.job_events():
        if _is_lost(event):
            at = int(datetime.fromisoformat(event["time"]).timestamp() * 1000)
            lost.setdefault(event["subject"], []).append(at)
    problems = []
    for line in evidence.asked("extend"):
        asked_ms = EPOCH_MS + int(line.at * 1000)
        for job_id in line.data.get("extended", []):
            record = evidence.stored.get(job_id)
            lease_ms = record["job"]["visibility_timeout_ms"] if record else 0
            early = [at for at in lost.get(job_id, []) if asked_ms <= at < asked_ms + lease_ms]
            if early:
                problems.append(f"the lease of {job_id} was extended at {asked_ms} and lost at {early}")
    return problems


def _is_lost(event: Event) -> bool:
    error = event["data"].get("error") or {}
    return "visibility_timeout" in (event["data"].get("reason"), error.get("code"))
