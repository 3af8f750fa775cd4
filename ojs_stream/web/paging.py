"""Pagination as every family of clients reads it (OJS.md 2.3): limit/offset/cursor and page/per_page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from ojs_stream.store.scans import Page, pack_cursor, unpack_cursor

T = TypeVar("T")


def pagination_of(total: int, page: Page, next_cursor: str) -> dict[str, Any]:
    """The ``pagination`` object of a list answer."""
    return {
        "total": total,
        "limit": page.limit,
        "offset": page.offset,
        "page": page.offset // page.limit + 1,
        "per_page": page.limit,
        "has_more": bool(next_cursor),
        "next_cursor": next_cursor or None,
    }


def part_of(items: Sequence[T], page: Page) -> tuple[Sequence[T], dict[str, Any]]:
    """A page of a list that is already in memory, and its ``pagination``."""
    start = int(unpack_cursor(page.cursor, int)[0]) if page.cursor else page.offset
    end = start + page.limit
    onward = pack_cursor(end) if end < len(items) else ""
    return items[start:end], pagination_of(len(items), page, onward)
