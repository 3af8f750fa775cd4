"""Named checks with a measured figure, and the last line `N passed, N failed` that scripts read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.markup import escape

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One statement about a run, whether it held, and what was found."""

    name: str
    passed: bool
    found: str


@dataclass(slots=True)
class Checks:
    """The checks of one run, in the order in which they were made."""

    made: list[Check] = field(default_factory=list)

    def add(self, name: str, *, passed: bool, found: str) -> None:
        """Note one check."""
        self.made.append(Check(name=name, passed=passed, found=found))

    @property
    def failed(self) -> int:
        """Return how many checks did not hold."""
        return sum(not check.passed for check in self.made)

    @property
    def summary(self) -> str:
        """Return the line that ends the run."""
        return f"{len(self.made) - self.failed} passed, {self.failed} failed"

    def print(self, console: Console) -> None:
        """Print every check with what was found, then the summary as the last line."""
        for check in self.made:
            word = "[green]pass[/]" if check.passed else "[bold red]FAIL[/]"
            console.print(f"{word}  {escape(check.name)}: {escape(check.found)}", highlight=False, soft_wrap=True)
        console.print(self.summary, highlight=False)
