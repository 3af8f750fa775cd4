"""What a step gets from the steps before it: ``parent_results``, an array of raw results (OJS.md 5.8).

What would make a record or a message too large is passed by reference: the job at that address has the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import UNSET, Raw, UnsetType

from ojs_stream.core.commands import JobNote
from ojs_stream.core.records import StepRecord
from ojs_stream.core.world import raw

RESULT_BYTES_MAX = 64 * 1024
"""Larger results are kept at their job alone (the specification asks for at least this, ojs-workflows 7.5)."""
JOB_RESULTS_BYTES_MAX = 1024 * 1024
"""So much of the results before it one job gets in full."""
COMMAND_RESULTS_BYTES_MAX = 2 * 1024 * 1024
"""So much all jobs together that one command starts: they may travel in one message."""

Load = Callable[[Sequence[int]], list[StepRecord]]
"""Steps by their numbers."""


def kept(note: JobNote) -> Raw | UnsetType:
    """The result of a job as its step remembers it."""
    if note.result is UNSET:
        return UNSET
    return note.result.copy() if len(note.result) <= RESULT_BYTES_MAX else reference(note.id, len(note.result))


def reference(job_id: str, size_bytes: int) -> Raw:
    """In the place of a large result: where it is, and how large."""
    return raw({"result_ref": f"/ojs/v1/jobs/{job_id}", "result_size_bytes": size_bytes})


class Gathering:
    """Results for the jobs that one command starts; those with the same inputs share them."""

    def __init__(self, load: Load, jobs: int) -> None:
        self._load = load
        self._bytes_max = min(JOB_RESULTS_BYTES_MAX, COMMAND_RESULTS_BYTES_MAX // max(jobs, 1))
        self._left = 0
        self._made: dict[Sequence[int], Raw] = {}

    def of(self, inputs: Sequence[int]) -> Raw:
        """The results of these steps, in this order, ``null`` for a step without one."""
        if inputs not in self._made:
            self._load_levels(inputs)
            self._left = self._bytes_max
            self._made[inputs] = Raw(self._array(inputs))
        return self._made[inputs]

    def _load_levels(self, numbers: Sequence[int]) -> None:
        """All that will be looked at, level by level of the nesting: a few loads instead of one for each flow."""
        while numbers:
            flows = [step.flow for step in self._load(numbers) if step.flow is not None]
            numbers = [number for flow in flows for number in flow.members]

    def _array(self, numbers: Sequence[int]) -> bytes:
        return b"[" + b",".join([self._one(step) for step in self._load(numbers)]) + b"]"

    def _one(self, step: StepRecord) -> bytes:
        """A job's result; of a chain that of its last step, of a group or batch an array."""
        flow = step.flow
        if flow is None:
            return self._bounded(step)
        if flow.kind == "chain":
            return self._one(self._load(flow.members[-1:])[0])
        return self._array(flow.members)

    def _bounded(self, step: StepRecord) -> bytes:
        if isinstance(step.result, UnsetType):
            return b"null"
        result = bytes(step.result)
        if len(result) > self._left:
            result = bytes(reference(step.job_id, len(result)))
        self._left -= len(result)
        return result
