"""What the clients of a run saw: every request and every answer, in the order of the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

NO_ANSWER = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One request and what came back; status 0 when the connection broke or nothing came in time."""

    url: str
    method: str
    path: str
    sent: Any = None
    key: str = ""
    """Its ``Idempotency-Key``."""
    status: int = NO_ANSWER
    body: Any = None
    raw: bytes = b""
    retry_after: str = ""
    replayed: bool = False
    """It is the answer that an earlier request with this key has got."""
    problem: str = ""
    begun: float = 0.0
    took_s: float = 0.0

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300

    @property
    def unknown(self) -> bool:
        """Nobody can say whether it was applied."""
        return self.status == NO_ANSWER or self.status >= 500

    @property
    def refused_connection(self) -> bool:
        """Nobody listened: the request was never sent."""
        return "ClientConnectorError" in self.problem

    @property
    def code(self) -> str:
        return str(self.body.get("error", {}).get("code", "")) if isinstance(self.body, dict) else ""

    def __str__(self) -> str:
        said = self.problem or self.raw[:300].decode(errors="replace")
        return f"{self.method} {self.url}{self.path} -> {self.status} in {self.took_s:.2f} s: {said}"


@dataclass(slots=True)
class History:
    """Everything that all clients of a run asked."""

    answers: list[Answer] = field(default_factory=list)
    wanted: dict[str, dict[str, Any]] = field(default_factory=dict)
    """job id -> the job as it was asked for, of every job that a 2xx or a ``duplicate`` said to exist."""

    def add(self, answer: Answer) -> Answer:
        self.answers.append(answer)
        return answer

    def of(self, path_end: str) -> Iterator[Answer]:
        return (answer for answer in self.answers if answer.path.partition("?")[0].endswith(path_end))

    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)

    def longest_wait(self) -> Answer:
        return max(self.answers, key=lambda answer: answer.took_s)

    def longest_silence_s(self, since: float, url: str = "") -> float:
        """Seconds from ``since`` to the last start of the first 2xx write after it (of one server, if named)."""
        done = [
            answer.begun + answer.took_s
            for answer in self.answers
            if answer.accepted and answer.method == "POST" and answer.begun >= since and answer.url.startswith(url)
        ]
        return min(done, default=float("inf")) - since
