"""The JSON cases: found, decoded and checked for words that the judge does not know.

A body keeps its bytes (``msgspec.Raw``), so that what a case writes is what the server reads. A key that is
neither judged nor on the list of ignored keys is named in ``Case.unknown``: the runner fails such a case and
does not judge half of it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

Json = Any
"""A decoded JSON value."""

SUITES_ENV = "OJS_CONFORMANCE_SUITES"
EXTENSION_LEVEL = 99
LONG_WAIT_MS = 30_000
"""A case that waits longer than this in all runs beside the others, on servers of its own."""

IGNORED_CASE_KEYS = frozenset({"description", "preconditions", "spec_ref", "tags"})
IGNORED_STEP_KEYS = frozenset(
    {"capture", "captures", "description", "expect", "intent", "raw_body", "repeat", "request", "store"}
)
IGNORED_ASSERTION_KEYS = frozenset(
    {"body_comment", "equality", "exclusive_claim", "headers_comment", "status_one_of"}
)


class CaseError(Exception):
    """The cases cannot be loaded."""


class TimingMs(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds for the time of one HTTP exchange, in milliseconds."""

    less_than: int | None = None
    greater_than: int | None = None
    approximate: int | None = None


class Assertions(msgspec.Struct, frozen=True, kw_only=True):
    """What a step expects of its answer: `body` maps paths to matchers, `headers` names to theirs."""

    status: Json = None
    status_in: list[int] | None = None
    body: dict[str, Json] = {}
    body_absent: list[str] = []
    body_contains: list[str] = []
    headers: dict[str, Json] = {}
    timing_ms: TimingMs | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange, or a pause when `action` is WAIT."""

    action: str
    id: str = ""
    path: str = ""
    headers: dict[str, str] = {}
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    delay_ms: int = 0
    duration_ms: int = 0
    parallel_with: str = ""
    assertions: Assertions | None = None

    @property
    def is_wait(self) -> bool:
        """Whether the step only waits."""
        return self.action.upper() == "WAIT"

    @property
    def pause_ms(self) -> int:
        """How long the step waits: `delay_ms` before anything, and a WAIT step its duration on top."""
        return self.delay_ms + ((self.duration_ms or self.delay_ms) if self.is_wait else 0)


class _File(msgspec.Struct, frozen=True, kw_only=True):
    test_id: str
    name: str
    category: str
    steps: list[Step]
    level: int | str = 0


_TIMING_KEYS = frozenset(TimingMs.__struct_fields__)
_ASSERTION_KEYS = frozenset(Assertions.__struct_fields__) | IGNORED_ASSERTION_KEYS
_STEP_KEYS = frozenset(Step.__struct_fields__) | IGNORED_STEP_KEYS
_CASE_KEYS = frozenset(_File.__struct_fields__) | IGNORED_CASE_KEYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case. `file` is its path inside the suite; `id` is not unique (six level 0 ids are used twice)."""

    id: str
    name: str
    level: int
    category: str
    file: str
    steps: tuple[Step, ...]
    #: Keys that the judge does not know; the case fails because of them.
    unknown: tuple[str, ...] = ()

    @property
    def wait_ms(self) -> int:
        """How long all steps wait together."""
        return sum(step.pause_ms for step in self.steps)


def suites_root() -> Path:
    """Name the folder of the suites: the environment's, or ``../shared/conformance`` beside the checkout."""
    named = os.environ.get(SUITES_ENV)
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "conformance"


def load_cases(suite: Path | None = None, *, levels: Collection[int] | None = None, text: str = "") -> list[Case]:
    """Load the cases of a folder, sorted by id and file; a file's `level` decides, not its folder.

    Without `suite` these are the core suites, the folders ``level-*`` of `suites_root`. `text` keeps the
    cases that have it in their id, name, category or file. Raises CaseError.
    """
    folders = [suite] if suite else sorted(suites_root().glob("level-*"))
    root = suite or suites_root()
    cases = [_load(file, root) for file in _files(folders, root)]
    kept = [case for case in cases if levels is None or case.level in levels]
    return sorted((case for case in kept if _has(case, text)), key=lambda case: (case.id, case.file))


def _files(folders: Iterable[Path], root: Path) -> list[Path]:
    found = [file for folder in folders for file in sorted(folder.rglob("*.json"))]
    if not found:
        raise CaseError(
            f"No case found in {root}. Set {SUITES_ENV} or --suite to a folder with OJS conformance cases."
        )
    return found


def _has(case: Case, text: str) -> bool:
    return any(text.lower() in word.lower() for word in (case.id, case.name, case.category, case.file))


def _load(file: Path, root: Path) -> Case:
    content = file.read_bytes()
    try:
        parsed = msgspec.json.decode(content, type=_File)
        unknown = tuple(_unknown_keys(msgspec.json.decode(content)))
        level = _level(parsed.level)
    except (msgspec.DecodeError, ValueError) as problem:
        raise CaseError(f"{file} is not a case that this runner can read: {problem}") from problem
    return Case(
        id=parsed.test_id,
        name=parsed.name,
        level=level,
        category=parsed.category,
        file=str(file.relative_to(root)),
        steps=tuple(parsed.steps),
        unknown=unknown,
    )


def _level(level: int | str) -> int:
    return EXTENSION_LEVEL if level in {"ext", "extension"} else int(level)


def _unknown_keys(case: dict[str, Json]) -> Iterator[str]:
    yield from sorted(case.keys() - _CASE_KEYS)
    for number, step in enumerate(case["steps"]):
        where = f"steps[{number}]"
        assertions = step.get("assertions") or {}
        yield from _beyond(where, step, _STEP_KEYS)
        yield from _beyond(f"{where}.assertions", assertions, _ASSERTION_KEYS)
        yield from _beyond(f"{where}.assertions.timing_ms", assertions.get("timing_ms") or {}, _TIMING_KEYS)


def _beyond(where: str, keys: Iterable[str], known: frozenset[str]) -> Iterator[str]:
    return (f"{where}.{key}" for key in sorted(set(keys) - known))
