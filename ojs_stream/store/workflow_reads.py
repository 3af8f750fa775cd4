"""Workflows as the store knows them; a workflow and its steps are at the home in its id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ojs_stream.core.homes import note_home
from ojs_stream.core.names import is_job_id
from ojs_stream.core.records import JobRecord, StepRecord, WorkflowRecord, decode_record
from ojs_stream.store import keys
from ojs_stream.store.reads import Read, Reads
from ojs_stream.store.scans import CHUNK, Listed, Newest, Page, Window, newest_page, resumed

LIVE_JOBS_MAX = 250
"""So many jobs of steps that run are looked at for their present state."""

Keep = Callable[[WorkflowRecord], bool]
Lookup = Callable[[list[str]], Awaitable[dict[str, tuple[int, JobRecord]]]]
"""(home, record) of jobs by id, wherever they are."""


@dataclass(frozen=True, slots=True)
class WholeWorkflow:
    """A workflow with its steps in the order of their numbers, and jobs of those that run, by id."""

    record: WorkflowRecord
    steps: list[StepRecord]
    jobs: dict[str, JobRecord] = field(default_factory=dict)


FoundWorkflows = Listed[WorkflowRecord]


class WorkflowReads:
    """Reads of workflow records."""

    def __init__(self, reads: Reads, jobs: Lookup) -> None:
        self._reads = reads
        self._jobs = jobs

    async def whole(self, workflow_id: str) -> WholeWorkflow | None:
        """The workflow and everything in it; ``None`` if there is none."""
        if not is_job_id(workflow_id):
            return None
        home = note_home(workflow_id, self._reads.homes)
        record = _workflow_of(await self._reads.one(home, "GET", ("workflow", workflow_id)))
        if record is None:
            return None
        steps = await self._steps(home, record)
        running = [step.job_id for step in steps if step.state == "pending"][:LIVE_JOBS_MAX]
        found = await self._jobs(running)
        return WholeWorkflow(record, steps, {job_id: job for job_id, (_, job) in found.items()})

    async def _steps(self, home: int, record: WorkflowRecord) -> list[StepRecord]:
        namespace = self._reads.namespace
        names = [keys.record(namespace, home, ("step", record.id, str(number))) for number in range(record.steps)]
        wanted: list[Read] = [
            (home, "MGET", names[start], tuple(names[start + 1 : start + CHUNK]))
            for start in range(0, len(names), CHUNK)
        ]
        answers = await self._reads.many(wanted)
        found = [decode_record(("step", ""), data) for answer in answers for data in answer if data]
        return [step for step in found if isinstance(step, StepRecord)]

    async def page(self, page: Page, keep: Keep | None) -> FoundWorkflows:
        """Workflows of all homes, newest first; ``keep`` filters, then the total counts what was seen so far."""
        after, progress = resumed(page)
        index = Newest(self._reads, ("workflows",), Window(after=after))
        return await newest_page(index, self._at, page, keep, progress)

    async def _at(self, places: Sequence[tuple[int, str]]) -> list[WorkflowRecord | None]:
        wanted: list[Read] = [(home, "GET", ("workflow", workflow_id), ()) for home, workflow_id in places]
        return [_workflow_of(data) for data in await self._reads.many(wanted)]


def _workflow_of(data: Any) -> WorkflowRecord | None:
    record = decode_record(("workflow", ""), data) if data else None
    return record if isinstance(record, WorkflowRecord) and not record.closing else None
