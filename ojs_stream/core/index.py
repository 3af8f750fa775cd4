"""The loaded head of a sorted index, with the round's own changes merged in."""

from __future__ import annotations

from bisect import bisect_left, insort

MISSING = object()


class Index:
    """A window on a ZSET: members with integer scores, lowest first.

    ``complete`` says that the window is the whole index. ``changes`` (member -> score, ``None`` = gone) is
    what the round has to write. Members beyond the window are known only to the store.
    """

    __slots__ = ("_limit", "_loaded", "_order", "_scores", "changes", "complete")

    def __init__(self, loaded: list[tuple[int, str]], *, complete: bool) -> None:
        self.complete = complete
        self.changes: dict[str, int | None] = {}
        self._reload(loaded)

    def _reload(self, loaded: list[tuple[int, str]]) -> None:
        self._loaded = {member: score for score, member in loaded}
        self._scores = dict(self._loaded)
        self._order = sorted(loaded)
        self._limit = self._order[-1] if self._order else None

    def extend(self, loaded: list[tuple[int, str]], *, complete: bool) -> None:
        """Replace the window by a larger one, keeping what the round has changed."""
        self.complete = complete
        self._reload(loaded)
        for member, score in self.changes.items():
            self._place(member, score)

    def set(self, member: str, score: int | None) -> object:
        """Move ``member`` to ``score`` (``None`` removes it); gives what ``undo`` needs."""
        before = self.changes.get(member, MISSING)
        self.changes[member] = score
        if self.complete or self._limit is not None:
            self._place(member, score)
        return before

    def undo(self, member: str, before: object) -> None:
        """Take one ``set`` back."""
        if before is MISSING:
            del self.changes[member]
            self._place(member, self._loaded.get(member))
        else:
            assert before is None or isinstance(before, int)
            self.changes[member] = before
            self._place(member, before)

    def settle(self, entries_max: int) -> None:
        """The changes are in the store: the window is what it has loaded. A long one is cut to its head."""
        if len(self._order) > entries_max:
            del self._order[entries_max // 2 :]
            self._scores = {member: score for score, member in self._order}
            self._loaded = dict(self._scores)
            self._limit = self._order[-1]
            self.complete = False
        for member in self.changes:
            score = self._scores.get(member)
            if score is None:
                self._loaded.pop(member, None)
            else:
                self._loaded[member] = score
        self.changes = {}

    def _place(self, member: str, score: int | None) -> None:
        known = self._scores.pop(member, None)
        if known is not None:
            del self._order[bisect_left(self._order, (known, member))]
        if score is not None and self._covers(score, member):
            self._scores[member] = score
            entry = (score, member)
            if not self._order or entry > self._order[-1]:
                self._order.append(entry)
            else:
                insort(self._order, entry)

    def _covers(self, score: int, member: str) -> bool:
        return self.complete or (self._limit is not None and (score, member) <= self._limit)

    def head(self, count: int) -> list[tuple[int, str]] | None:
        """The ``count`` lowest entries (fewer at the end of the index); ``None`` if the window is too small."""
        if len(self._order) < count and not self.complete:
            return None
        return self._order[:count]

    def __contains__(self, member: str) -> bool:
        return member in self._scores

    def __len__(self) -> int:
        return len(self._order)

    @property
    def loaded(self) -> int:
        """How many entries of the store are in the window, whatever the round made of them."""
        return len(self._loaded)
