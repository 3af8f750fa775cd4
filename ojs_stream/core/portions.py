"""Cut a sequence into portions that are bounded by count and by bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def portions(
    items: Iterable[T], size_of: Callable[[T], int], *, count_max: int, bytes_max: int
) -> Iterator[list[T]]:
    """Lists in order, never empty; an item larger than ``bytes_max`` is a portion of its own."""
    portion: list[T] = []
    size = 0
    for item in items:
        if portion and (len(portion) >= count_max or size + size_of(item) > bytes_max):
            yield portion
            portion, size = [], 0
        portion.append(item)
        size += size_of(item)
    if portion:
        yield portion
