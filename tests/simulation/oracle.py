"""What must have become of workflows: an oracle that knows nothing of the fold.

From the events of the jobs alone it follows which of them may have been born and how the workflow must have ended.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from tests.simulation.history import Drawn, Part

Event = dict[str, Any]
BIRTHS = ("job.enqueued", "job.scheduled", "job.pending")
ENDS = {
    "job.completed": "completed",
    "job.discarded": "failed",
    "job.expired": "failed",
    "job.cancelled": "failed",
}


class Oracle:
    """What the events say of all workflows; ``problems`` are sentences."""

    def __init__(self, events: list[list[Event]]) -> None:
        self.problems: list[str] = []
        self._born: Counter[str] = Counter()
        self._end: dict[str, str] = {}
        """job -> how it ended the first time"""
        self._end_kind: dict[str, str] = {}
        self._told: dict[str, Counter[str]] = defaultdict(Counter)
        """workflow -> its events"""
        self._steps: Counter[tuple[str, str]] = Counter()
        # A job is at another home only after a retry of its dead letter: its first end is at its own home.
        for own in (True, False):
            for home, of_home in enumerate(events):
                for event in of_home:
                    if event["subject"].endswith(f"{home:03x}") is own:
                        self._note(event)

    def _note(self, event: Event) -> None:
        kind, subject = event["type"], event["subject"]
        if kind in BIRTHS:
            self._born[subject] += 1
        elif kind in ENDS:
            self._end.setdefault(subject, ENDS[kind])
            self._end_kind.setdefault(subject, kind)
        elif kind.startswith("workflow."):
            self._told[subject][kind] += 1
            if kind in ("workflow.step_completed", "workflow.step_failed"):
                self._steps[subject, event["data"]["step_id"]] += 1

    def twice(self) -> None:
        """A step ends once, a workflow starts and ends once."""
        self.problems += [
            f"step {step} of {name} ended {n} times" for (name, step), n in self._steps.items() if n > 1
        ]
        for name, told in self._told.items():
            ends = sum(told[f"workflow.{end}"] for end in ("completed", "failed", "cancelled"))
            if told["workflow.started"] != 1 or ends != 1:
                self.problems.append(f"workflow {name} started and ended with {dict(told)}")

    def check(self, name: str, drawn: Drawn, state: str) -> None:
        """A workflow that is stored with this state."""
        ends = [self._end.get(part.job, "") for part in drawn.parts]
        wanted = self._wanted(drawn.parts, ends)
        for part, want in zip(drawn.parts, wanted, strict=True):
            born = bool(self._born[part.job])
            if born and not want:
                self.problems.append(f"workflow {name}: job {part.job} should not be there: {ends}")
            if want and not born and state != "cancelled":
                self.problems.append(f"workflow {name}: job {part.job} was never born: {ends}")
            if born and part.job not in self._end:
                self.problems.append(f"workflow {name}: job {part.job} has not ended")
        members = [end for part, end in zip(drawn.parts, ends, strict=True) if not part.callback]
        outcome = "completed" if set(members) == {"completed"} else "failed"
        if state not in (outcome, "cancelled"):
            self.problems.append(f"workflow {name} is {state}, its jobs ended {ends}")

    def cancelled(self, name: str, job: str) -> None:
        """The job of a step that was cancelled with its workflow, both of one home: nothing could come between."""
        if self._end_kind.get(job) != "job.cancelled":
            self.problems.append(f"workflow {name} was cancelled, its job {job} had {self._end_kind.get(job)}")

    @staticmethod
    def _wanted(parts: tuple[Part, ...], ends: list[str]) -> list[bool]:
        wanted: list[bool] = []
        for part in parts:
            if not part.callback:
                wanted.append(all(ends[each] == "completed" for each in part.needs))
                continue
            bad = any(ends[each] != "completed" for each in part.after)
            wanted.append({"on_complete": True, "on_success": not bad, "on_failure": bad}[part.callback])
        return wanted
