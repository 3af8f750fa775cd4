"""Workflows as the store knows them; a workflow and its steps are at the home in its id."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from ojs_stream.core.homes import home_in_id
from ojs_stream.core.names import is_job_id
from ojs_stream.core.records import JobRecord, StepRecord, WorkflowRecord, decode_record
from ojs_stream.store import keys
from ojs_stream.store.reads import Read, Reads
from ojs_stream.store.scans import CHUNK, SCAN_MAX, Newest, Page, Window, pack_cursor, read_jobs, unpack_cursor

LIVE_JOBS_MAX = 250
"""So many jobs of steps that run are looked at for their present state."""

Keep = Callable[[WorkflowRecord], bool]


@dataclass(frozen=True, slots=True)
class WholeWorkflow:
    """A workflow with its steps in the order of their numbers, and jobs of those that run, by id."""

    record: WorkflowRecord
    steps: list[StepRecord]
    jobs: dict[str, JobRecord] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundWorkflows:
    """A page: records, how many there are (with a filter: as far as looked), and where to go on."""

    records: list[WorkflowRecord]
    total: int
    next_cursor: str = ""


class WorkflowReads:
    """Reads of workflow records."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def whole(self, workflow_id: str) -> WholeWorkflow | None:
        """The workflow and everything in it; ``None`` if there is none."""
        home = home_in_id(workflow_id) if is_job_id(workflow_id) else self._reads.homes
        if home >= self._reads.homes:
            return None
        record = _workflow_of(await self._reads.one(home, "GET", ("workflow", workflow_id)))
        if record is None:
            return None
        steps = await self._steps(home, record)
        running = [step.job_id for step in steps if step.state == "pending"][:LIVE_JOBS_MAX]
        found = await read_jobs(self._reads, [(home_in_id(job_id), job_id) for job_id in running])
        return WholeWorkflow(record, steps, {job.job.id: job for job in found if job})

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
        seen, after, skip = 0, None, page.offset
        if page.cursor:
            score, member, counted = unpack_cursor(page.cursor, int, str, int)
            seen, after, skip = int(counted), (int(score), str(member)), 0
        index = Newest(self._reads, ("workflows",), Window(after=after))
        total = await index.size()
        found: list[WorkflowRecord] = []
        onward = ""
        looked = 0
        async with aclosing(self._loaded(index)) as entries:
            async for score, member, record in entries:
                looked += 1
                if record and (keep is None or keep(record)):
                    seen += 1
                    if seen > skip:
                        found.append(record)
                if len(found) == page.limit or looked == SCAN_MAX:
                    onward = pack_cursor(score, member, seen)
                    break
        if keep is None:
            return FoundWorkflows(records=found, total=total, next_cursor=onward if seen < total else "")
        return FoundWorkflows(records=found, total=seen, next_cursor=onward)

    async def _loaded(self, index: Newest) -> AsyncGenerator[tuple[int, str, WorkflowRecord | None], None]:
        batch: list[tuple[int, str, int]] = []
        async with aclosing(index.entries()) as entries:
            async for entry in entries:
                batch.append(entry)
                if len(batch) == CHUNK:
                    for loaded in await self._records(batch):
                        yield loaded
                    batch = []
        for loaded in await self._records(batch):
            yield loaded

    async def _records(
        self, batch: Sequence[tuple[int, str, int]]
    ) -> list[tuple[int, str, WorkflowRecord | None]]:
        wanted: list[Read] = [(home, "GET", ("workflow", member), ()) for _, member, home in batch]
        answers = await self._reads.many(wanted) if wanted else []
        return [
            (score, member, _workflow_of(data)) for (score, member, _), data in zip(batch, answers, strict=True)
        ]


def _workflow_of(data: Any) -> WorkflowRecord | None:
    record = decode_record(("workflow", ""), data) if data else None
    return record if isinstance(record, WorkflowRecord) and not record.closing else None
