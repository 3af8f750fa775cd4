"""Did what only a newer release knows happen once, and did no older worker forget it?"""

from __future__ import annotations

from collections import Counter

from msgspec.json import decode as decode_json

from tests.simulation.evidence import Evidence


def touches_kept(evidence: Evidence) -> list[str]:
    """Each told command has its event, and one from the home that it was passed on to; records remember all."""
    touched = [event for events in evidence.events for event in events if event["type"] == "queue.touched"]
    found = Counter(event["data"]["reason"] for event in touched)
    problems: list[str] = []
    for line in evidence.asked("touch"):
        low, high = {"ok": (1, 1), "unknown": (0, 1)}.get(line.answer, (0, 0))
        if not low <= found[line.tag] <= high:
            problems.append(f"touch {line.tag} was {line.answer}, it happened {found[line.tag]} times")
        if line.fields["far"] and found[f"{line.tag}-far"] != found[line.tag]:
            problems.append(
                f"touch {line.tag} happened {found[line.tag]} times, {found[f'{line.tag}-far']} far away"
            )
    if evidence.history.touches_are_stored:
        problems += _stored(evidence, Counter(event["subject"] for event in touched))
    return problems


def _stored(evidence: Evidence, found: Counter[str]) -> list[str]:
    stored = {
        name[6:]: decode_json(data).get("touched", 0)
        for dump in evidence.dumps
        for name, data in dump.items()
        if name.startswith("queue:")
    }
    return [
        f"queue {queue} was touched {n} times, its record knows of {stored.get(queue)}"
        for queue, n in found.items()
        if stored.get(queue) != n
    ]
