"""A Redis made anew from the log: ``ojs-stream replay``.

All homes are folded in turns, a part of each: what one has sent another has folded soon after, so that outboxes
stay small. What is left in them at the end was under way when the log ended; the workers that are started on this
Redis send it, as after any crash.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from ojs_stream.agents.owner import OUTBOX_TOPICS
from ojs_stream.core.world import World
from ojs_stream.errors import OjsError
from ojs_stream.log.reader import LogReader
from ojs_stream.log.topics import Topics
from ojs_stream.replay.basing import base_if_trimmed
from ojs_stream.replay.folding import HomeFold, Tell, fold_log, tell_nobody
from ojs_stream.store import keys
from ojs_stream.store.commit import Acked, Commit, Trim, effect_field, message_field
from ojs_stream.store.redis import RedisStore

TURN_RECORDS = 2_000
"""Records of one home before the next has its turn."""


class NotEmptyError(OjsError):
    """There are records where a replay is to write."""


class Arrivals:
    """What a home has sent, and how much of it is known to be where it was to go."""

    def __init__(self, tails: Mapping[str, int], mark: Callable[[int], int]) -> None:
        self._tails = tails
        self._mark = mark
        """How far a destination has folded the messages of this home."""
        self._held: dict[int, deque[int]] = {}
        """By destination the numbers of messages that were put into the outbox."""

    def trim(self) -> Trim:
        """See ``Outgoing``."""
        fields: list[str] = []
        for destination, numbers in self._held.items():
            mark = self._mark(destination)
            while numbers and numbers[0] <= mark:
                fields.append(message_field(destination, numbers.popleft()))
        return Trim(Acked(events=self._tails["events"]), fields)

    def sift(self, outbox: dict[str, bytes | None], world: World) -> None:
        """See ``Outgoing``."""
        for effect in world.effects:
            if effect.number <= self._tails[effect.effect.topic]:
                del outbox[effect_field(effect.number)]
        for message in world.messages:
            if message.number <= self._mark(message.destination):
                del outbox[message_field(message.destination, message.number)]
            else:
                self._held.setdefault(message.destination, deque()).append(message.number)


async def replay(
    reader: LogReader,
    store: RedisStore,
    topics: Topics,
    chosen: Sequence[int],
    *,
    homes: int,
    tell: Tell = tell_nobody,
) -> list[HomeFold]:
    """Fold the chosen homes from their logs, as these are now, into a store that has nothing of them."""
    for home in chosen:
        if not await store.is_empty(home):
            raise NotEmptyError(
                f"Redis has keys of home {home} of the namespace {store.namespace} already. A replay writes into "
                "an empty Redis only: name another one, or another database of it. To make a home of a running "
                "server anew, use `ojs-stream rebuild`."
            )
    folds: dict[int, HomeFold] = {}
    others = {home: await HomeFold.begin(store, home, homes=homes) for home in range(homes) if home not in chosen}
    for home in chosen:
        tails = {name: await reader.tail_position(topics.of(name), home) for name in OUTBOX_TOPICS}
        arrivals = Arrivals(tails, _marks_of(home, others, folds))
        await base_if_trimmed(reader, store, topics, home, homes=homes)
        folds[home] = await HomeFold.begin(store, home, homes=homes, outgoing=arrivals, overlaps=True)
    await _take_turns(reader, topics.commands, folds, tell)
    for fold in folds.values():
        await _tidy(store, fold)
    return list(folds.values())


def _marks_of(source: int, others: Mapping[int, HomeFold], folds: Mapping[int, HomeFold]) -> Callable[[int], int]:
    name = str(source)

    def mark(destination: int) -> int:
        fold = folds.get(destination) or others[destination]
        return fold.state.marks.get(name, 0)

    return mark


async def _take_turns(reader: LogReader, topic: str, folds: Mapping[int, HomeFold], tell: Tell) -> None:
    stops = {home: (await reader.bounds(topic, home))[1] for home in folds}
    reached = dict.fromkeys(folds, 0)
    while left := [home for home, stop in stops.items() if reached[home] < stop]:
        for home in left:
            reached[home] = min(reached[home] + TURN_RECORDS, stops[home])
            await fold_log(folds[home], reader, topic, reached[home], tell=tell)


async def _tidy(store: RedisStore, fold: HomeFold) -> None:
    """Everybody is at the end of the log: what has arrived by now leaves the outbox."""
    assert fold.outgoing is not None
    trim = fold.outgoing.trim()
    if fold.applied is None or trim is None or not trim.fields:
        return
    commit = Commit(
        home=fold.home,
        expected=fold.applied,
        strings={keys.applied(store.namespace, fold.home): b"%d" % fold.applied},
        hashes={keys.outbox(store.namespace, fold.home): dict.fromkeys(trim.fields)},
    )
    (error,) = await store.commit([commit])
    if error is not None:
        raise error
