"""How a workflow advances. One algorithm for every kind: a step starts when all that it depends on has completed.

A step that ends in any other way takes its dependants with it: they are cancelled and never become jobs. A flow
ends with its last member; a batch then fires its callbacks. Whatever ends is put on a list first, so that a long
chain never becomes a deep recursion.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Raw, structs

from ojs_stream.core.commands import JobNote, NewJob, NewStep
from ojs_stream.core.fold.results import Gathering, kept
from ojs_stream.core.outcomes import EventData
from ojs_stream.core.records import Flow, Key, PlanRecord, StepRecord, Watcher, WorkflowRecord
from ojs_stream.core.world import World

ROOT = -1
"""The number of the workflow itself, as the parent of its steps."""
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(NewJob)


def step_key(workflow_id: str, number: int) -> Key:
    """The key of a step."""
    return "step", workflow_id, str(number)


def plan_key(workflow_id: str, number: int) -> Key:
    """The key of what a waiting step needs to start."""
    return "plan", workflow_id, str(number)


def decider_of(world: World, new: NewJob) -> int:
    """The home that decides on a step's job: then nothing of it needs a stage."""
    return new.unique.home if new.unique is not None else world.home_of(new.queue)


class Run:
    """One workflow during one command. ``finish`` writes it back and gives the jobs that start."""

    def __init__(self, world: World, record: WorkflowRecord, fresh: dict[int, NewStep] | None = None) -> None:
        self.record = record
        self._world = world
        self._fresh = fresh if fresh is not None else {}
        """Steps of the present command that have not started: they have no plan record yet."""
        self._all_loaded = False
        self._ended: deque[int] = deque()
        self._started: list[tuple[NewJob, Sequence[int]]] = []

    # -- records ------------------------------------------------------------------------------------------

    def steps(self, numbers: Sequence[int]) -> list[StepRecord]:
        """These steps; what is not in memory is loaded at once."""
        keys = [step_key(self.record.id, number) for number in numbers]
        self._world.require(keys)
        found = [self._world.find(key, StepRecord) for key in keys]
        return [step for step in found if step is not None]

    def _step(self, number: int) -> StepRecord:
        (step,) = self.steps((number,))
        return step

    def put(self, step: StepRecord) -> None:
        """Write a step."""
        self._world.put(step_key(self.record.id, step.number), step)

    def load(self, numbers: Iterable[int]) -> None:
        """Say at once that these steps are needed, with their plans."""
        wanted = [number for number in numbers if number not in self._fresh]
        self._world.require([step_key(self.record.id, number) for number in wanted])
        self._world.require([plan_key(self.record.id, number) for number in wanted])

    def _take_job(self, number: int) -> NewJob | None:
        """The job of a step that starts, or never will: its plan is not needed again."""
        new = self._fresh.pop(number, None)
        if new is not None:
            return new.job
        key = plan_key(self.record.id, number)
        plan = self._world.find(key, PlanRecord)
        if plan is None:
            return None
        self._world.put(key, None)
        return _decoder.decode(plan.job) if isinstance(plan.job, Raw) else None

    def _flow(self, number: int) -> Flow:
        flow = self.record.flow if number == ROOT else self._step(number).flow
        assert flow is not None
        return flow

    def _set_flow(self, number: int, flow: Flow) -> None:
        if number == ROOT:
            self.record = structs.replace(self.record, flow=flow)
        else:
            self.put(structs.replace(self._step(number), flow=flow))

    # -- starting -----------------------------------------------------------------------------------------

    def begin(self, flow: Flow, inputs: Sequence[int]) -> None:
        """Start the members that wait for nothing, in their order; they get the results of ``inputs``."""
        members = flow.members
        first = members[:1] if flow.kind == "chain" else members
        self.load(first)
        for step in self.steps(first):
            if not step.open:
                self._start(step, inputs)

    def _start(self, step: StepRecord, inputs: Sequence[int]) -> None:
        new = self._take_job(step.number)
        now = self._world.now
        if step.flow is not None:
            self.put(structs.replace(step, state="running", started=now))
            self.begin(step.flow, inputs)
            return
        assert new is not None
        via = decider_of(self._world, new)
        self.put(structs.replace(step, state="pending", started=now, job_id=new.id, via=via))
        watcher = Watcher("workflow", self._world.home, f"{self.record.id}:{step.number}")
        known = structs.replace(
            new, workflow_id=self.record.id, workflow_step=step.id, watchers=(*new.watchers, watcher)
        )
        self._started.append((known, inputs))

    def _inputs(self, step: StepRecord) -> Sequence[int]:
        """Whose results a step gets that starts because all that it waited for has completed.

        In a chain all steps before it, so that the places in the array are those of the steps.
        """
        flow = self._flow(step.parent)
        if flow.kind == "chain":
            return range(flow.first, step.number)
        plan = self._world.find(plan_key(self.record.id, step.number), PlanRecord)
        return plan.depends if plan is not None else ()

    # -- ending -------------------------------------------------------------------------------------------

    def end_job(self, step: StepRecord, note: JobNote) -> None:
        """The job of a step has come to its end; a retry of its dead letter later does not concern us."""
        state = note.state if note.state in ("completed", "cancelled") else "failed"
        ended = structs.replace(
            step,
            state=state,
            ended=self._world.now,
            result=kept(note),
            error=None if state == "completed" else note.error,
            reason=note.reason,
        )
        self.put(ended)
        if not step.callback:
            self._count_job(ended)
        self._ended.append(step.number)

    def _count_job(self, step: StepRecord) -> None:
        record = self.record
        if step.state == "completed":
            self.record = structs.replace(record, jobs_completed=record.jobs_completed + 1)
        else:
            first = step.number if record.failed_step < 0 else record.failed_step
            self.record = structs.replace(record, jobs_failed=record.jobs_failed + 1, failed_step=first)

    def _leave(self, step: StepRecord) -> None:
        """A step has ended: tell those that wait for it, then the flow that it is part of."""
        completed = step.state == "completed"
        waiting = [one.number for one in self.steps(step.dependants) if one.state == "waiting"]
        if waiting and not completed and not self._all_loaded:
            # What depends on these as well will be needed, one after another: better all at once.
            self.load(range(self.record.steps))
            self._all_loaded = True
        for number in waiting:
            self._meet(self._step(number), completed=completed)
        if self.record.state != "running":
            # A callback of the workflow itself: what it does is no part of the workflow's outcome.
            return
        flow = self._flow(step.parent)
        flow = structs.replace(
            flow,
            open=flow.open - 1,
            completed=flow.completed + (completed and not step.callback),
            failed=flow.failed + (not completed),
        )
        self._set_flow(step.parent, flow)
        self._tell_step(step, flow)
        if not flow.open:
            self._close(step.parent, flow)

    def _meet(self, step: StepRecord, *, completed: bool) -> None:
        """One of the steps that this one waits for has ended."""
        if not completed:
            self._cancel_tree(step)
            self._ended.append(step.number)
            return
        waiting = structs.replace(step, open=step.open - 1)
        if waiting.open:
            self.put(waiting)
        else:
            self._start(waiting, self._inputs(step))

    def cancel(self, step: StepRecord) -> None:
        """The step has not ended, and is over."""
        if step.state == "waiting":
            self._take_job(step.number)
        self.put(structs.replace(step, state="cancelled", ended=self._world.now))

    def _cancel_tree(self, step: StepRecord) -> None:
        """A step that waits never starts, nor does what is inside of it."""
        tree = [step]
        while tree:
            one = tree.pop()
            self.cancel(one)
            if one.flow is not None:
                tree.extend(self.steps([*one.flow.members, *one.flow.callbacks]))

    def _close(self, number: int, flow: Flow) -> None:
        """The last member of a flow has ended: callbacks first, then the flow itself.

        A nested batch ends with its callbacks (ojs-workflows 10.1), so that the step after it finds their work
        done. A workflow that is a batch is decided as soon as they are enqueued: it has failed if a job has
        (OJS.md 8, row 38), whatever becomes of them.
        """
        if not flow.fired:
            fired = self._fire(flow)
            flow = structs.replace(flow, fired=True, open=0 if number == ROOT else fired)
            self._set_flow(number, flow)
            if flow.open:
                return
        state = "failed" if flow.failed else "completed"
        if number == ROOT:
            self.record = structs.replace(self.record, state=state, ended=self._world.now)
            self.tell(f"workflow.{state}")
        else:
            self.put(structs.replace(self._step(number), state=state, ended=self._world.now))
            self._ended.append(number)

    def _fire(self, flow: Flow) -> int:
        """Start the callbacks that the outcome asks for; how many."""
        fired = 0
        outcomes = {flow.on_complete: True, flow.on_success: not flow.failed, flow.on_failure: flow.failed > 0}
        self.load(flow.callbacks)
        for step in self.steps(flow.callbacks):
            if outcomes[step.number]:
                fired += 1
                self._start(step, flow.members)
                self._tell("workflow.callback_fired", step_id=step.id, step_type=step.type)
            else:
                self._take_job(step.number)
                self.put(structs.replace(step, state="skipped", ended=self._world.now))
        return fired

    # -- the end of the command ---------------------------------------------------------------------------

    def finish(self) -> list[NewJob]:
        """Follow what has ended to its consequences, write everything, give the jobs that start."""
        while self._ended:
            self._leave(self._step(self._ended.popleft()))
        self._world.put(("workflow", self.record.id), self.record)
        for number, new in self._fresh.items():
            plan = _plan_of(new)
            if plan is not None:
                self._world.put(plan_key(self.record.id, number), plan)
        gathering = Gathering(self.steps, len(self._started))
        return [structs.replace(new, parent_results=gathering.of(inputs)) for new, inputs in self._started]

    # -- events -------------------------------------------------------------------------------------------

    def tell(self, kind: str, reason: str | None = None) -> None:
        """An event of the whole workflow."""
        failed: StepRecord | None = None
        if kind == "workflow.failed" and self.record.failed_step >= 0:
            failed = self._step(self.record.failed_step)
        self._tell(
            kind,
            total_steps=self.record.flow.count,
            failed_step_id=failed.id if failed else None,
            error=failed.failure if failed else msgspec.UNSET,
            reason=reason,
        )

    def _tell_step(self, step: StepRecord, flow: Flow) -> None:
        if step.state == "cancelled" and not step.job_id:
            return
        completed = step.state == "completed"
        self._tell(
            "workflow.step_completed" if completed else "workflow.step_failed",
            job_id=step.job_id or None,
            step_id=step.id,
            step_type=step.type,
            duration_ms=max(0, step.ended - step.started),
            steps_remaining=flow.open,
            error=msgspec.UNSET if completed else step.failure,
        )

    def _tell(self, kind: str, **fields: object) -> None:
        record = self.record
        data = EventData(
            workflow_id=record.id,
            workflow_name=record.name,
            workflow_type=record.flow.kind,
            **fields,  # type: ignore[arg-type]
        )
        self._world.emit(kind, record.id, data)


def _plan_of(new: NewStep) -> PlanRecord | None:
    if new.job is None and not new.depends:
        return None
    job = Raw(_encoder.encode(new.job)) if new.job is not None else msgspec.UNSET
    return PlanRecord(job=job, depends=new.depends)


def records_of(workflow_id: str, steps: Iterable[NewStep]) -> list[StepRecord]:
    """The step records of a new workflow, all waiting."""
    steps = list(steps)
    dependants: list[list[int]] = [[] for _ in steps]
    for number, new in enumerate(steps):
        for depended in new.depends:
            dependants[depended].append(number)
    return [
        StepRecord(
            workflow=workflow_id,
            number=number,
            id=new.id,
            type=new.type,
            parent=new.parent,
            callback=new.callback,
            open=len(new.depends),
            dependants=tuple(dependants[number]),
            flow=new.flow,
        )
        for number, new in enumerate(steps)
    ]
