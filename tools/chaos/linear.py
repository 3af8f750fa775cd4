"""Whether what clients were told of one job could have happened one thing after the other.

Wing and Gong's search with the memory of porcupine, for one job at a time: an order of its operations is looked
for in which each takes effect somewhere between its request and its answer and says what a job in that state
must say. An operation without an answer (503, timeout, cut connection) may have taken effect at any time after
its request, or never. So may what the server does by itself: it ends a lease, it promotes a retry.

It shares no code with the server: the rules of ``step`` are written from the specification.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

TERMINAL = frozenset({"completed", "cancelled", "discarded"})
VISITS_MAX = 200_000
"""A job whose history needs more is reported: nobody can say that it is right."""


class State(NamedTuple):
    """A job as far as operations tell: its state ("" before its birth), its attempts, who has it."""

    name: str = ""
    attempt: int = 0
    worker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation on one job. ``ended`` is ``inf`` when nobody knows whether it took effect."""

    kind: str
    begun: float
    ended: float = inf
    said: str = ""
    """What the client was told: ``done``, ``made``, ``repeated``, ``duplicate``, ``conflict``, ``missing``."""
    to: str = ""
    """The state that it leads to, or that was read."""
    attempt: int = 0
    worker: str = ""

    def __str__(self) -> str:
        end = "?" if self.ended == inf else f"{self.ended:.3f}"
        words = (self.kind, self.said, self.to, str(self.attempt or ""), self.worker)
        return f"[{self.begun:.3f}-{end} {' '.join(word for word in words if word)}]"

    @property
    def effect(self) -> tuple[str, str, int, str]:
        """What tells it from others without an answer: those of one effect replace each other."""
        return (self.kind, self.to, self.attempt, self.worker)


def step(state: State, op: Op) -> State | None:
    """The state after ``op``, ``None`` if a job in ``state`` cannot have answered so."""
    if op.said in _REFUSALS:
        return state if _REFUSALS[op.said](state, op) else None
    return _STEPS[op.kind](state, op)


def _holds(state: State, op: Op) -> bool:
    return state.name == "active" and (not op.worker or state.worker in ("", op.worker))


def _refusable(state: State, op: Op) -> bool:
    """A conflict is the answer of a job that is there and not in the state that was needed."""
    if op.kind == "cancel":
        return state.name in TERMINAL
    return state.name != "" and not _holds(state, op)


_REFUSALS = {
    "duplicate": lambda state, _op: state.name != "",
    "repeated": lambda state, _op: state.name != "",
    "missing": lambda state, _op: state.name == "",
    "conflict": _refusable,
}


def _enqueue(state: State, op: Op) -> State | None:
    return State(op.to) if state.name == "" else None


def _claim(state: State, op: Op) -> State | None:
    ready = state.name == "available" and op.attempt == state.attempt + 1
    return State("active", op.attempt, op.worker) if ready else None


def _end(state: State, op: Op) -> State | None:
    """An ack or a nack."""
    return State(op.to, state.attempt) if _holds(state, op) else None


def _cancel(state: State, _op: Op) -> State | None:
    return None if state.name in TERMINAL or state.name == "" else State("cancelled", state.attempt)


def _extend(state: State, op: Op) -> State | None:
    return state if _holds(state, op) else None


def _get(state: State, op: Op) -> State | None:
    return state if (state.name, state.attempt) == (op.to, op.attempt) else None


def _release(state: State, op: Op) -> State | None:
    """A lease that ended, or a job that its worker never got."""
    held = state.name == "active" and state.attempt == op.attempt
    return State("available", state.attempt) if held else None


def _promote(state: State, op: Op) -> State | None:
    due = state.name == "retryable" and op.attempt in (0, state.attempt)
    return State("available", state.attempt) if due else None


_STEPS = {
    "enqueue": _enqueue,
    "claim": _claim,
    "ack": _end,
    "nack": _end,
    "cancel": _cancel,
    "extend": _extend,
    "get": _get,
    "release": _release,
    "promote": _promote,
}


class _Search:
    """All orders of one job's operations, depth first, never twice from the same place."""

    def __init__(self, ops: Sequence[Op]) -> None:
        self._ops = sorted(ops, key=lambda op: (op.begun, op.ended))
        self._needed = sum(1 << place for place, op in enumerate(self._ops) if op.ended < inf)
        self._twins = self._earlier_twins()

    def _earlier_twins(self) -> list[int]:
        """For each operation without an answer the one before it that would do the same: it goes first."""
        last: dict[tuple[str, str, int, str], int] = {}
        found = []
        for place, op in enumerate(self._ops):
            found.append(last.get(op.effect, -1) if op.ended == inf else -1)
            if op.ended == inf:
                last[op.effect] = place
        return found

    def run(self) -> str:
        """Nothing when there is an order; else what is wrong."""
        seen: set[tuple[int, State]] = set()
        todo: list[tuple[int, State]] = [(0, State())]
        while todo:
            at = todo.pop()
            if at in seen:
                continue
            seen.add(at)
            if len(seen) > VISITS_MAX:
                return f"no order was found in {VISITS_MAX} steps"
            if at[0] & self._needed == self._needed:
                return ""
            todo.extend(self._next(*at))
        return "there is no order in which these can have happened"

    def _next(self, done: int, state: State) -> Iterator[tuple[int, State]]:
        """What may come next. The latest are given first: the search takes the earliest first."""
        open_ops = [(place, op) for place, op in enumerate(self._ops) if not done >> place & 1]
        first_end = min((op.ended for _, op in open_ops), default=inf)
        for place, op in reversed(open_ops):
            twin = self._twins[place]
            if op.begun > first_end or (twin >= 0 and not done >> twin & 1):
                continue
            after = step(state, op)
            # An operation that nobody has to have seen is of use only if it changes something.
            if after is not None and (op.ended < inf or after != state):
                yield done | 1 << place, after


def violation(ops: Sequence[Op]) -> str:
    """What is wrong with the history of one job; nothing if it is linearizable."""
    return _Search(ops).run()


def violations(histories: Mapping[str, Sequence[Op]]) -> list[str]:
    """A sentence for every job whose history is not linearizable."""
    problems = []
    for job_id, ops in histories.items():
        wrong = violation(ops)
        if wrong:
            told = " ".join(map(str, sorted(ops, key=lambda op: op.begun)[:60]))
            problems.append(f"{job_id}: {wrong}: {told}")
    return problems
