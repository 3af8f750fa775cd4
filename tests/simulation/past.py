"""A store in memory that can be set back to any earlier commit, as a whole or one home alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ojs_stream.store import keys
from ojs_stream.store.commit import Commit
from ojs_stream.store.memory import MemoryStore

_ABSENT = object()


class Before(NamedTuple):
    """What a write has found in its place."""

    home: int
    whole: dict[str, Any]
    """key -> its content, of keys that were replaced"""
    parts: dict[str, dict[str, Any]]
    """key -> field -> its content, of hashes and sorted sets that were changed"""


class PastStore(MemoryStore):
    """Every commit, clear and wipe is remembered with what it has overwritten."""

    def __init__(self, namespace: str) -> None:
        super().__init__(namespace)
        self.past: list[Before] = []

    def _commit(self, commit: Commit) -> Exception | None:
        if self._is_fenced(commit.home, commit.expected):
            return super()._commit(commit)
        data = self.data
        whole = {name: data.get(name, _ABSENT) for name in (*commit.deletes, *commit.strings, *commit.expiring)}
        parts: dict[str, dict[str, Any]] = {}
        for changes in (commit.zsets, commit.hashes):
            for name, fields in changes.items():
                content = data.get(name)
                if name not in whole and content is None:
                    whole[name] = _ABSENT
                elif name not in whole:
                    parts[name] = {field: content.get(field, _ABSENT) for field in fields}
        self.past.append(Before(commit.home, whole, parts))
        return super()._commit(commit)

    def land(self, commit: Commit) -> None:
        """A commit that nobody waits for any more: written, or fenced."""
        self._commit(commit)

    async def clear(self, home: int, expected: int | None) -> None:
        """See ``Store``."""
        if not self._is_fenced(home, expected):
            self.past.append(Before(home, self._all(home), {}))
        await super().clear(home, expected)

    def _all(self, home: int) -> dict[str, Any]:
        prefix = keys.home_prefix(self.namespace, home)
        return {name: content for name, content in self.data.items() if name.startswith(prefix)}

    def wipe(self, homes: Iterable[int]) -> None:
        """FLUSHALL of the Redis that has these homes."""
        for home in homes:
            gone = self._all(home)
            self.past.append(Before(home, gone, {}))
            for name in gone:
                del self.data[name]

    def set_back(self, to: int, homes: Iterable[int]) -> None:
        """As it was when ``past`` had ``to`` entries; what came later is of no backup any more."""
        chosen = set(homes)
        kept = self.past[:to]
        for before in reversed(self.past[to:]):
            if before.home in chosen:
                self._undo(before)
        kept += [before for before in self.past[to:] if before.home not in chosen]
        self.past = kept

    def _undo(self, before: Before) -> None:
        for name, fields in before.parts.items():
            # A content that is another one than before is another object, too.
            content = {**self.data.get(name, {})}
            _put_back(content, fields)
            _put_back(self.data, {name: content or _ABSENT})
        _put_back(self.data, before.whole)


def _put_back(content: dict[str, Any], before: dict[str, Any]) -> None:
    for name, value in before.items():
        if value is _ABSENT:
            content.pop(name, None)
        else:
            content[name] = value
