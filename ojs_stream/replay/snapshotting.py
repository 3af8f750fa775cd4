"""The next snapshot of a home: the fold of the last one and of the log since then. ``ojs-stream snapshot``.

The live home is not asked for anything but how far it is and what it has still to send: one small read. The
snapshot ends there, at an offset whose effects are either in their topics or in the snapshot's own outbox, so that
whoever begins with it loses no event and no message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ojs_stream.agents.restore import CANDIDATES_MAX, LogSpan, parts_in
from ojs_stream.core.world import World
from ojs_stream.errors import LogRefusedError, SnapshotDamagedError, UnavailableError
from ojs_stream.log import snapshots
from ojs_stream.log.snapshots import Found, Manifest, Origin, Sender
from ojs_stream.replay.basing import base
from ojs_stream.replay.folding import HomeFold, Tell, fold_log, tell_nobody
from ojs_stream.store.base import Dump
from ojs_stream.store.commit import Trim
from ojs_stream.store.memory import MemoryStore
from ojs_stream.store.snapshot import chunks_of, parts_of

if TYPE_CHECKING:
    from ojs_stream.agents.owner import Reader
    from ojs_stream.log.topics import Topics
    from ojs_stream.store.unsent import Unsent

_encoder = msgspec.json.Encoder()


class StillUnsent:
    """Keeps of effects and messages what the live home had not sent at the snapshot's offset."""

    def __init__(self, unsent: Unsent) -> None:
        self._fields = unsent.outbox

    def trim(self) -> Trim | None:
        """See ``Outgoing``."""
        return None

    def sift(self, outbox: dict[str, bytes | None], _world: World) -> None:
        """See ``Outgoing``."""
        for name in outbox.keys() - self._fields:
            del outbox[name]

    def left(self, outbox: dict[str, bytes]) -> dict[str, bytes]:
        """Of an outbox that began with the last snapshot: what is still unsent now."""
        return {name: data for name, data in outbox.items() if name in self._fields}


class Stamps(Struct, frozen=True, kw_only=True):
    """Clock, dice and version, thrown outside."""

    token: str
    now_ms: int
    code: str


class Snapshots(Struct, frozen=True, kw_only=True):
    """Makes snapshots of the homes of one log."""

    reader: Reader
    sender: Sender
    topics: Topics
    namespace: str
    homes: int
    tell: Tell = tell_nobody
    """Hears of the fold after every step."""

    async def make(self, home: int, unsent: Unsent | None, stamps: Stamps) -> Manifest | None:
        """Write a snapshot of a home; ``None`` when it has nothing new.

        ``LogRefusedError`` when log, snapshots and Redis do not fit together.
        """
        if unsent is None:
            raise UnavailableError(
                f"Redis has no state of home {home}: it is empty or being rebuilt. Start a worker and wait for "
                "/ready."
            )
        span = await self._span(home, unsent)
        kept = await self._newest(home, unsent.log_id)
        if kept and kept[0].manifest.offset >= unsent.applied:
            return None
        store = MemoryStore(self.namespace)
        fold = await self._folded(store, span, unsent)
        await self._bury(home, kept, stamps.now_ms)
        return await self._publish(fold, await _content(store, home, unsent), stamps)

    async def _span(self, home: int, unsent: Unsent) -> LogSpan:
        topic = self.topics.commands
        begin, end = await self.reader.bounds(topic, home)
        if end <= unsent.applied:
            raise LogRefusedError(
                f"Partition {home} of {topic} ends at offset {end - 1}, but Redis has applied offset "
                f"{unsent.applied}: this is another or a truncated log."
            )
        return LogSpan(
            topic=topic, home=home, homes=self.homes, begin=begin, end=unsent.applied + 1, log_id=unsent.log_id
        )

    async def _newest(self, home: int, log_id: str) -> list[Found]:
        found = await snapshots.newest(self.reader, self.topics.snapshots, home, limit=CANDIDATES_MAX)
        return [each for each in found if each.manifest.log_id == log_id][: snapshots.KEPT]

    async def _folded(self, store: MemoryStore, span: LogSpan, unsent: Unsent) -> HomeFold:
        await base(self.reader, store, self.topics, span)
        fold = await HomeFold.begin(store, span.home, homes=self.homes, outgoing=StillUnsent(unsent))
        await fold_log(fold, self.reader, span.topic, span.end, tell=self.tell)
        if fold.state.log_id != unsent.log_id:
            raise LogRefusedError(
                f"Partition {span.home} of {span.topic} is log {fold.state.log_id}, Redis has records of log "
                f"{unsent.log_id}: the topic was recreated or the cluster is another one."
            )
        return fold

    async def _bury(self, home: int, kept: list[Found], now_ms: int) -> None:
        """Before the new one is written, so that its manifest is the last record of the topic."""
        topic = self.topics.snapshots
        ids = [each.manifest.id for each in kept]
        keys = await snapshots.superseded(self.reader, topic, home, kept=ids, now_ms=now_ms)
        await snapshots.bury(self.sender, topic, home, keys)

    async def _publish(self, fold: HomeFold, content: Dump, stamps: Stamps) -> Manifest:
        assert fold.applied is not None
        topic = self.topics.snapshots
        _, first = await self.reader.bounds(topic, fold.home)
        origin = Origin(
            id=f"{fold.applied}-{stamps.token}",
            home=fold.home,
            homes=self.homes,
            log_id=fold.state.log_id,
            offset=fold.applied,
            keys=len(content),
            code=stamps.code,
            made_ms=stamps.now_ms,
        )
        return await snapshots.publish(
            self.sender, topic, origin, first=first, content=chunks_of(parts_of(content))
        )

    async def superfluous_before(self, home: int, log_id: str) -> int | None:
        """The offset before which the log is not needed; ``None`` unless two snapshots have proved to be whole.

        The older one and the log after it stay enough for everything, should the newer one rot.
        """
        kept = await self._newest(home, log_id)
        if len(kept) < snapshots.KEPT or not all([await self._is_whole(found) for found in kept]):
            return None
        return kept[-1].manifest.offset + 1

    async def _is_whole(self, found: Found) -> bool:
        try:
            async for _ in parts_in(self.reader, self.topics.snapshots, found):
                pass
        except SnapshotDamagedError:
            return False
        return True


async def _content(store: MemoryStore, home: int, unsent: Unsent) -> Dump:
    content = await store.dump(home)
    content["acked"] = _encoder.encode(unsent.acked)
    outbox = StillUnsent(unsent).left(await store.outbox(home))
    return {**content, "outbox": outbox} if outbox else content
