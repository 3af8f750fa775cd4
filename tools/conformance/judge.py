"""One answer against the assertions of its step.

What is not judged (OJS.md section 0): a body that is not a JSON object, except for ``$or``; a header that
must only exist; the keys on the lists in `cases`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tools.conformance.cases import Assertions, Json, Step
from tools.conformance.matchers import TOLERANCE, Mismatch, match, match_status, show
from tools.conformance.paths import PathError, resolve
from tools.conformance.templates import Bodies, fill, fill_matcher

TIMING_TOLERANCE_MS_MIN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back for one step. `body` is None unless it is a JSON object."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    body: dict[str, Json] | None
    ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One assertion that does not hold; `why` is a sentence, `expected` and `got` are JSON texts."""

    step: str
    path: str
    expected: str
    got: str
    why: str

    def __str__(self) -> str:
        """Name the step, the path and the reason in one line."""
        return f"{self.step} {self.path}: {self.why}"


def judge(step: Step, answer: Answer, bodies: Bodies) -> list[Failure]:
    """Compare an answer with all assertions of its step; `bodies` fills their templates."""
    if step.assertions is None:
        return []
    judged = _Judged(step, step.assertions, answer, bodies)
    return [*judged.status(), *judged.headers(), *judged.alternatives(), *judged.members(), *judged.rest()]


class _Judged:
    """The assertions of one step, one method a kind."""

    def __init__(self, step: Step, wanted: Assertions, answer: Answer, bodies: Bodies) -> None:
        self._step = step
        self._wanted = wanted
        self._answer = answer
        self._bodies = bodies

    def status(self) -> Iterator[Failure]:
        got = self._answer.status
        if self._wanted.status is not None:
            yield from self._check("status", self._wanted.status, got, match_status(self._wanted.status, got))
        if self._wanted.status_in is not None:
            matcher = {"$in": self._wanted.status_in}
            yield from self._check("status", matcher, got, match_status(matcher, got))

    def headers(self) -> Iterator[Failure]:
        for name, matcher in self._wanted.headers.items():
            got = self._answer.headers.get(name, "")
            yield from self._check(f"header {name}", matcher, got, _match_header(matcher, got))

    def alternatives(self) -> Iterator[Failure]:
        choices = self._wanted.body.get("$or")
        if choices is None:
            return
        reasons = [self._first_mismatch(choice) for choice in choices]
        if None not in reasons:
            why = "; ".join(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))
            yield from self._check("$or", choices, self._answer.body, f"no alternative holds: {why}")

    def members(self) -> Iterator[Failure]:
        if self._answer.body is None:
            return
        for path, matcher in self._wanted.body.items():
            if path != "$or":
                yield from self._member(path, matcher)

    def rest(self) -> Iterator[Failure]:
        text = self._answer.content.decode(errors="replace")
        for path in self._wanted.body_absent:
            yield from self._member(path, "absent")
        for part in self._wanted.body_contains:
            mismatch = None if part in text else f"the body has no {part!r}"
            yield from self._check("body", part, text, mismatch)
        for bound, mismatch in _match_timing(self._wanted, self._answer.ms):
            yield from self._check("time in ms", bound, round(self._answer.ms), mismatch)

    def _member(self, path: str, matcher: Json) -> Iterator[Failure]:
        if path.startswith("$") and not path.startswith("$."):
            yield from self._check(path, matcher, None, f"unknown operator {path!r}")
            return
        got, mismatch = self._compare(path, matcher)
        yield from self._check(path, matcher, got, mismatch)

    def _first_mismatch(self, alternative: dict[str, Json]) -> Mismatch:
        for path, matcher in alternative.items():
            _, mismatch = self._compare(path, matcher)
            if mismatch:
                return f"{path}: {mismatch}"
        return None

    def _compare(self, path: str, matcher: Json) -> tuple[Json, Mismatch]:
        try:
            filled = fill_matcher(matcher, self._bodies)
        except ValueError as problem:
            return None, f"the matcher is no JSON once its templates are filled: {problem}"
        try:
            got = resolve(fill(path, self._bodies), self._answer.body or {})
        except PathError as problem:
            return None, None if filled == "absent" else str(problem)
        return got, match(filled, got)

    def _check(self, path: str, expected: Json, got: Json, mismatch: Mismatch) -> Iterator[Failure]:
        if mismatch:
            filled = fill(show(expected), self._bodies)
            yield Failure(
                step=self._step.id,
                path=fill(path, self._bodies),
                expected=filled,
                got=show(got),
                why=mismatch,
            )


def _match_header(matcher: Json, got: str) -> Mismatch:
    """Compare a header: a string or ``$eq`` exactly, ``$match`` by search, ``$exists`` never."""
    if isinstance(matcher, str):
        return None if got == matcher else f"expected exactly {matcher!r}, got {got!r}"
    if not isinstance(matcher, dict) or len(matcher) != 1:
        return f"unknown header matcher {show(matcher)}"
    ((operator, value),) = matcher.items()
    if operator == "$exists":
        return None
    if operator == "$eq":
        return _match_header(value, got)
    if operator == "$match":
        return None if re.search(value, got) else f"expected a match of {value!r}, got {got!r}"
    return f"unknown header matcher {show(matcher)}"


def _match_timing(wanted: Assertions, ms: float) -> Iterator[tuple[str, Mismatch]]:
    timing = wanted.timing_ms
    if timing is None:
        return
    if timing.less_than is not None:
        yield f"< {timing.less_than}", None if ms < timing.less_than else f"took {ms:.0f} ms"
    if timing.greater_than is not None:
        yield f"> {timing.greater_than}", None if ms > timing.greater_than else f"took {ms:.0f} ms"
    if timing.approximate is not None:
        distance_max = max(timing.approximate * TOLERANCE, TIMING_TOLERANCE_MS_MIN)
        near = abs(ms - timing.approximate) <= distance_max
        yield f"~{timing.approximate}", None if near else f"took {ms:.0f} ms"
