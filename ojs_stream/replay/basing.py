"""Where a fold begins: at the newest whole snapshot, or at the first record of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ojs_stream.agents.owner import Reader
from ojs_stream.agents.restore import LogSpan, Restore, nothing_fits
from ojs_stream.log.topics import Topics

if TYPE_CHECKING:
    from ojs_stream.replay.folding import FoldStore


async def base(reader: Reader, store: FoldStore, topics: Topics, span: LogSpan) -> None:
    """Load the newest snapshot that fits into a store that has nothing of the home.

    ``LogRefusedError`` when there is none and the beginning of the log is gone.
    """
    restore = Restore(store=store, namespace=store.namespace, topic=topics.snapshots)
    if not await restore.home(reader, span) and span.begin > 0:
        raise nothing_fits(span, None)


async def base_if_trimmed(
    reader: Reader, store: FoldStore, topics: Topics, home: int, *, homes: int, applied: int | None = None
) -> None:
    """A log that has its beginning is folded from there: what checks or remakes a state should rely on little.

    ``applied``: the snapshot must not be newer.
    """
    begin, end = await reader.bounds(topics.commands, home)
    if begin > 0:
        stop = end if applied is None else applied + 1
        span = LogSpan(topic=topics.commands, home=home, homes=homes, begin=begin, end=stop, log_id="")
        await base(reader, store, topics, span)
