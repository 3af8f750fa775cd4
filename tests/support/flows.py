"""Workflows in a ``Fold``: asked for as clients do, worked on step by step, looked at as they are stored."""

from __future__ import annotations

import json
from typing import Any

from msgspec import Raw

from ojs_stream.core.commands import Ack, CancelWorkflow, StartWorkflow
from ojs_stream.core.homes import home_in_id, home_of
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import StepRecord, WorkflowRecord, decode_record
from ojs_stream.core.validation import Rules
from ojs_stream.core.workflows import parse_workflow
from tests.support.builders import KEEP, Fold, claim, command, jobs_of, nack, server_id

RULES = Rules(retention=KEEP)


def leaf(kind: str, queue: str = "default", **options: Any) -> dict[str, Any]:
    """A step that is a job; it is tried once."""
    return {"type": kind, "args": [kind], "options": {"queue": queue, "retry": {"max_attempts": 1}, **options}}


def start_of(body: dict[str, Any], homes: int) -> StartWorkflow:
    """The command that the view makes of a request."""
    asked = parse_workflow(json.dumps(body).encode(), RULES, lambda queue: server_id(home_of(queue, homes)))
    made: StartWorkflow = command(
        StartWorkflow,
        id=server_id(home_of(asked.queue, homes)),
        name=asked.name,
        flow=asked.flow,
        steps=asked.steps,
        retention=KEEP,
    )
    return made


class Play:
    """One workflow in a fold; its steps are named by their ids."""

    def __init__(self, fold: Fold, body: dict[str, Any]) -> None:
        self.fold = fold
        asked = start_of(body, fold.homes)
        self.id = asked.id
        self.home = home_in_id(asked.id)
        self.queues = sorted({new.job.queue for new in asked.steps if new.job is not None})
        outcome = fold.do(asked)
        assert not outcome.refused, outcome

    # -- what is stored -----------------------------------------------------------------------------------

    @property
    def record(self) -> WorkflowRecord:
        """The workflow."""
        record = decode_record(("workflow", ""), self.fold.dump(self.home)[f"workflow:{self.id}"])
        assert isinstance(record, WorkflowRecord)
        return record

    @property
    def state(self) -> str:
        """The workflow's state."""
        return self.record.state

    def steps(self) -> dict[str, StepRecord]:
        """All steps, nested ones and callbacks too."""
        dump = self.fold.dump(self.home)
        found = [
            decode_record(("step", ""), data) for name, data in dump.items() if name.startswith(f"step:{self.id}:")
        ]
        steps = [step for step in found if isinstance(step, StepRecord)]
        return {step.id: step for step in sorted(steps, key=lambda step: step.number)}

    def states(self) -> dict[str, str]:
        """The states of all steps."""
        return {name: step.state for name, step in self.steps().items()}

    def plans(self) -> list[str]:
        """Records of what waiting steps need."""
        return [name for name in self.fold.dump(self.home) if name.startswith(f"plan:{self.id}:")]

    def events(self) -> list[str]:
        """What happened to the workflow, in order."""
        return self.fold.event_types(self.id)

    # -- work ---------------------------------------------------------------------------------------------

    def take(self) -> dict[str, dict[str, Any]]:
        """Claim all that there is in its queues, in order; by the ids of the steps."""
        taken: dict[str, dict[str, Any]] = {}
        for queue in self.queues:
            for job in jobs_of(self.fold.do(claim(queue, count=1_000))):
                taken[job["workflow_step"]] = job
        return taken

    def job_of(self, step: str) -> str:
        """The id of a step's job."""
        return self.steps()[step].job_id

    def ack(self, step: str, result: Any = None) -> Outcome:
        """The step's job is done."""
        raw = Raw(json.dumps(result if result is not None else {"of": step}).encode())
        outcome = self.fold.do(command(Ack, job_id=self.job_of(step), result=raw))
        assert not outcome.refused, outcome
        return outcome

    def fail(self, step: str) -> Outcome:
        """The step's job has failed for good."""
        outcome = self.fold.do(nack(self.job_of(step), retryable=False))
        assert not outcome.refused, outcome
        return outcome

    def cancel(self) -> Outcome:
        """Cancel the workflow."""
        return self.fold.do(command(CancelWorkflow, id=self.id))


def parents(job: dict[str, Any]) -> Any:
    """What a step was given of the steps before it."""
    return job["parent_results"]
