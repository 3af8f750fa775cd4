"""The second act: one batch workflow hashes files, and its callback gets all results and adds them up."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tools.demo.library import HASH_TYPE, TOTAL_TYPE
from tools.demo.run import STALL_S
from tools.demo.worker import Crew, new_progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from tools.demo.api import Api

FILES_MAX = 1_000
"""So many steps a workflow may have."""

QUEUES = 4
"""The files are spread over so many queues, which are at home in different partitions."""

_POLL_S = 0.3


@dataclass(slots=True)
class WorkflowOutcome:
    """What the workflow did, before anything is checked."""

    #: The workflow as the server shows it at the end.
    shown: dict[str, Any] = field(default_factory=dict)
    #: Every callback job; there should be one.
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ended(self) -> bool:
        """Return whether the workflow and its callback have come to their ends."""
        running = self.shown.get("state", "running") == "running"
        return not running and any(job["state"] == "completed" for job in self.callbacks)


class WorkflowRun:
    """One batch workflow on queues of its own."""

    def __init__(self, api: Api, *, queue: str, files: list[str], bars: Bars) -> None:
        self._api = api
        self._queues = [f"{queue}-{number}" for number in range(QUEUES)]
        self._files = files
        self._bars = bars
        self._outcome = WorkflowOutcome()

    async def execute(self, *, url: str, root: str, workers: int) -> WorkflowOutcome:
        """Start the workflow and let the workers run until its callback has reported."""
        crew = Crew(url=url, queues=self._queues, root=root, count=workers, progress=new_progress())
        crew.start()
        began = time.perf_counter()
        try:
            created = await self._api.start_workflow(self._body())
            await self._watch(str(created["id"]), crew)
        finally:
            crew.stop()
        self._outcome.seconds = time.perf_counter() - began
        return self._outcome

    def _body(self) -> dict[str, Any]:
        return {
            "type": "batch",
            "name": "demo: hash every file",
            "jobs": [
                _job(HASH_TYPE, self._queues[number % QUEUES], name) for number, name in enumerate(self._files)
            ],
            "callbacks": {"on_complete": _job(TOTAL_TYPE, self._queues[0])},
        }

    async def _watch(self, workflow_id: str, crew: Crew) -> None:
        """Look until the workflow has ended; give up when nothing moves any more: the checks will say so."""
        line = self._bars.add_task("workflow", total=len(self._files))
        before: tuple[object, ...] = ()
        moved_at = time.monotonic()
        while not self._outcome.ended:
            await asyncio.sleep(_POLL_S)
            now = await self._look(workflow_id)
            self._bars.update(line, completed=self._outcome.shown["jobs_completed"])
            if now != before:
                before, moved_at = now, time.monotonic()
            elif time.monotonic() - moved_at > STALL_S or not crew.all_alive():
                return

    async def _look(self, workflow_id: str) -> tuple[object, ...]:
        """Read the workflow and its callback again, and return what tells one look from the next."""
        shown = self._outcome.shown = await self._api.workflow(workflow_id)
        if shown["jobs_completed"] == len(self._files):
            self._outcome.callbacks = await self._api.jobs(queue=self._queues[0], job_type=TOTAL_TYPE)
        return shown["state"], shown["jobs_completed"], [job["state"] for job in self._outcome.callbacks]


def _job(job_type: str, queue: str, *args: str) -> dict[str, Any]:
    return {"type": job_type, "args": list(args), "options": {"queue": queue}}
