"""Cases against servers over HTTP: reset, steps in order with their waits, verdicts.

Cases of one namespace run one after the other, because they share queue names and ids; every case begins with
a reset. With several URLs each request goes to the next one. No ``OJS-Version`` header is ever sent. A case that
waits for minutes has a lane, and with it a namespace, of its own: it runs beside the others.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
from yarl import URL

from tools.conformance.cases import LONG_WAIT_MS, Case, Json, Step, load_cases
from tools.conformance.judge import Answer, Failure, judge
from tools.conformance.templates import fill

RESET_PATH = "/ojs/v1/admin/reset"
MEDIA_TYPE = "application/openjobspec+json"
REQUEST_TIMEOUT_S = 30.0
CORE_LEVELS = frozenset(range(5))
_MS = 1_000
_SUCCESS = range(200, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """The verdict on one case; it passed when nothing failed."""

    case: Case
    failures: tuple[Failure, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every judged assertion held."""
        return not self.failures


OnResult = Callable[[CaseResult], None]


async def run_suite(
    urls: Sequence[str],
    levels: Collection[int] = CORE_LEVELS,
    *,
    suite: Path | None = None,
    text: str = "",
) -> list[CaseResult]:
    """Run the chosen cases against the servers at `urls` (all of one namespace) and give a verdict on each.

    `suite` is a folder of cases instead of the core suites, `text` keeps cases that have it in id, name,
    category or file. Raises CaseError when none loads.
    """
    return await run_cases(urls, load_cases(suite, levels=levels, text=text))


def split_long(cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Part the cases into the short ones and those that wait longer than LONG_WAIT_MS."""
    return (
        [case for case in cases if case.wait_ms <= LONG_WAIT_MS],
        [case for case in cases if case.wait_ms > LONG_WAIT_MS],
    )


def lanes_of(cases: Sequence[Case]) -> list[list[Case]]:
    """Part the cases into lanes that run side by side: the short ones, and each long one by itself."""
    short, long = split_long(cases)
    return [*([short] if short else []), *([case] for case in long)]


async def run_lanes(
    servers: Sequence[Sequence[str]], lanes: Sequence[Sequence[Case]], *, on_result: OnResult | None = None
) -> list[CaseResult]:
    """Run each lane of cases against servers of its own, all at once; the verdicts come in the cases' order."""
    runs = [run_cases(urls, cases, on_result=on_result) for urls, cases in zip(servers, lanes, strict=True)]
    results = [result for of_lane in await asyncio.gather(*runs) for result in of_lane]
    return sorted(results, key=lambda result: (result.case.id, result.case.file))


async def run_cases(
    urls: Sequence[str], cases: Sequence[Case], *, on_result: OnResult | None = None
) -> list[CaseResult]:
    """Run cases one after the other; `on_result` hears of each verdict at once."""
    results = []
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        target = Target(session, urls)
        for case in cases:
            result = await run_case(target, case)
            results.append(result)
            if on_result is not None:
                on_result(result)
    return results


async def run_case(target: Target, case: Case) -> CaseResult:
    """Reset the server, run the steps and judge them. A failed step does not end the case."""
    begun = time.monotonic()
    failures = [*_not_understood(case)] or [*await target.reset()] or await _run_steps(target, case.steps)
    return CaseResult(case=case, failures=tuple(failures), seconds=time.monotonic() - begun)


class Target:
    """The servers under test, asked in turn."""

    def __init__(self, session: aiohttp.ClientSession, urls: Sequence[str]) -> None:
        self._session = session
        self._urls = itertools.cycle([url.rstrip("/") for url in urls])

    async def reset(self) -> list[Failure]:
        """Empty the server; a server that does not is not judged."""
        try:
            answer = await self._ask("POST", RESET_PATH, {}, None)
        except (aiohttp.ClientError, TimeoutError) as problem:
            return [_unanswered("reset", f"POST {RESET_PATH}", problem)]
        if answer.status in _SUCCESS:
            return []
        why = f"the reset answered {answer.status}; the server needs OJS_TEST_MODE=1"
        got = answer.content[:300].decode(errors="replace")
        return [Failure(step="reset", path=f"POST {RESET_PATH}", expected='"2xx"', got=got, why=why)]

    async def send(self, step: Step, bodies: dict[str, dict[str, Json]]) -> Answer:
        """Send a step's request with its templates filled."""
        data = (
            None if isinstance(step.body, msgspec.UnsetType) else fill(bytes(step.body).decode(), bodies).encode()
        )
        return await self._ask(step.action, fill(step.path, bodies), _headers(step, data), data)

    async def _ask(self, method: str, path: str, headers: dict[str, str], data: bytes | None) -> Answer:
        begun = time.perf_counter()
        async with self._session.request(
            method, URL(next(self._urls) + path), headers=headers, data=data
        ) as response:
            content = await response.read()
            return Answer(
                status=response.status,
                headers=response.headers,
                content=content,
                body=_object(content),
                ms=(time.perf_counter() - begun) * _MS,
            )


def _headers(step: Step, data: bytes | None) -> dict[str, str]:
    named = {name.lower() for name in step.headers}
    default = {"Content-Type": MEDIA_TYPE} if data is not None and "content-type" not in named else {}
    return {**default, **step.headers}


def _object(content: bytes) -> dict[str, Json] | None:
    try:
        body = json.loads(content, parse_constant=_refuse_constant)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


async def _run_steps(target: Target, steps: Sequence[Step]) -> list[Failure]:
    bodies: dict[str, dict[str, Json]] = {}
    failures = []
    for group in _groups(steps):
        for found in await asyncio.gather(*(_run_step(target, step, bodies) for step in group)):
            failures += found
    return failures


def _groups(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Give the steps in order; neighbours that name each other in `parallel_with` come together."""
    group: list[Step] = []
    for step in steps:
        if group and not _together(group, step):
            yield group
            group = []
        group.append(step)
    yield group


def _together(group: list[Step], step: Step) -> bool:
    return any(step.parallel_with == other.id or other.parallel_with == step.id for other in group if other.id)


async def _run_step(target: Target, step: Step, bodies: dict[str, dict[str, Json]]) -> list[Failure]:
    await asyncio.sleep(step.pause_ms / _MS)
    if step.is_wait:
        return []
    try:
        answer = await target.send(step, bodies)
    except (aiohttp.ClientError, TimeoutError, ValueError) as problem:
        return [_unanswered(step.id, f"{step.action} {step.path}", problem)]
    if answer.body is not None:
        bodies[step.id] = answer.body
    return judge(step, answer, bodies)


def _unanswered(step: str, request: str, problem: Exception) -> Failure:
    why = f"no answer: {type(problem).__name__} {problem}".rstrip()
    return Failure(step=step, path=request, expected='"an answer"', got='"none"', why=why)


def _not_understood(case: Case) -> list[Failure]:
    return [
        Failure(
            step="case",
            path=key,
            expected='"a known key"',
            got=f'"{key}"',
            why=f"unknown key {key!r} in the case",
        )
        for key in case.unknown
    ]
