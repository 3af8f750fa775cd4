"""What is read of a home is not older than what is known of it, whatever happens to it between two reads."""

from __future__ import annotations

from typing import Any, Self, cast

import pytest

from ojs_stream.errors import UnavailableError
from ojs_stream.store.reads import Positions, Reads

FLOOR = 9


class Redis:
    """A pipeline whose ``applied`` is another one at its beginning than at its end."""

    def __init__(self, before: bytes | None, after: bytes | None) -> None:
        self._applied = [before, after]
        self._answers: list[bytes | None] = []

    def pipeline(self, **_: Any) -> Self:
        return self

    def get(self, name: str) -> None:
        assert name == "{ojs:0}:applied"
        self._answers.append(self._applied.pop(0))

    def execute_command(self, *_: Any) -> None:
        self._answers.append(None)

    async def execute(self) -> list[bytes | None]:
        return self._answers


@pytest.mark.parametrize(
    ("before", "after", "answered"),
    [
        (b"9", b"9", True),
        (b"9", b"12", True),
        (b"3", b"9", False),
        (None, b"9", False),
        (b"9", None, False),
        (b"9", b"3", False),
    ],
)
async def test_a_read_counts_if_the_home_was_as_far_before_and_after_it(
    before: bytes | None, after: bytes | None, answered: bool
) -> None:
    positions = Positions(1)
    positions.raise_to(0, FLOOR)
    reads = Reads(cast("Any", Redis(before, after)), namespace="ojs", homes=1, positions=positions)
    if answered:
        assert await _ask(reads) == [None]
    else:
        with pytest.raises(UnavailableError, match="is being rebuilt"):
            await _ask(reads)


async def _ask(reads: Reads) -> list[Any]:
    return await reads.many([(0, "GET", ("job", "x"), ())])
