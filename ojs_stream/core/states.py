"""The eight states of a job and the legal edges between them (OJS.md 1.4)."""

from __future__ import annotations

from typing import Literal, get_args

State = Literal["scheduled", "available", "pending", "active", "completed", "retryable", "cancelled", "discarded"]
STATES: tuple[State, ...] = get_args(State)
TERMINAL: frozenset[State] = frozenset({"completed", "cancelled", "discarded"})

TRANSITIONS: dict[str, tuple[frozenset[State], frozenset[State]]] = {
    "claim": (frozenset({"available"}), frozenset({"active"})),
    "ack": (frozenset({"active"}), frozenset({"completed"})),
    "nack": (frozenset({"active"}), frozenset({"retryable", "discarded", "available"})),
    "cancel": (
        frozenset({"scheduled", "pending", "available", "retryable", "active"}),
        frozenset({"cancelled"}),
    ),
    "activate": (frozenset({"pending"}), frozenset({"available"})),
    "promote": (frozenset({"scheduled", "retryable"}), frozenset({"available"})),
    "lease_expired": (frozenset({"active"}), frozenset({"available", "discarded"})),
    "timed_out": (frozenset({"active"}), frozenset({"retryable", "discarded"})),
    "expire": (frozenset({"available", "scheduled", "retryable"}), frozenset({"discarded"})),
    "revive": (frozenset({"discarded"}), frozenset({"available"})),
    "reprioritize": (frozenset({"available", "scheduled"}), frozenset({"available", "scheduled"})),
    "retry": (frozenset({"discarded", "cancelled", "retryable"}), frozenset({"available"})),
    "delete": (TERMINAL, frozenset()),
}
"""trigger -> (states it is legal from, states it may lead to). One table; the tests are made from it."""


def is_legal(trigger: str, state: State) -> bool:
    """Whether ``trigger`` may happen to a job in ``state``."""
    return state in TRANSITIONS[trigger][0]
