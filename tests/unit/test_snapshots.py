"""The topic of snapshots: whole ones are found, damaged and unfinished ones are not, old ones go."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ojs_stream.errors import LogRefusedError, SnapshotDamagedError
from ojs_stream.log.producer import Record
from ojs_stream.log.snapshots import (
    SNAPSHOT_VERSION,
    UNFINISHED_KEEP_MS,
    Found,
    Manifest,
    Origin,
    bury,
    chunks,
    covers,
    newest,
    publish,
    refuse_other_log,
    superseded,
)
from tests.support.memory_topics import MemoryTopics, run

TOPIC = "t.snapshots"
HOME = 3
CHUNKS = [b"%d" % number * 50 for number in range(12)]


class Shop(MemoryTopics):
    """A topic with short words for the test."""

    def publish(self, offset: int, content: list[bytes] = CHUNKS, **fields: Any) -> Manifest:
        given = {"id": f"{offset}-x", "log_id": "log", **fields}
        origin = Origin(home=HOME, homes=8, offset=offset, keys=1, code="1", made_ms=self.now, **given)
        return run(publish(self, TOPIC, origin, first=self.end, content=content))

    @property
    def end(self) -> int:
        return len(self.partition(TOPIC, HOME))

    def begin_one(self, snapshot: str, count: int) -> None:
        """A writer that has crashed, or is still at work."""
        records = [Record(f"{snapshot}:{n}".encode(), b"chunk") for n in range(count)]
        run(self.send_many(TOPIC, HOME, records))

    def newest(self, limit: int = 2) -> list[Found]:
        return run(newest(self, TOPIC, HOME, limit=limit))

    def offsets(self, limit: int = 9) -> list[int]:
        return [found.manifest.offset for found in self.newest(limit)]

    def content(self, found: Found) -> list[bytes]:
        async def read() -> list[bytes]:
            return [chunk async for chunk in chunks(self, TOPIC, found)]

        return run(read())

    def superseded(self, *kept: str, after_ms: int = 0) -> list[bytes]:
        return run(superseded(self, TOPIC, HOME, kept=kept, now_ms=self.now + after_ms))

    def bury(self, keys: list[bytes]) -> None:
        run(bury(self, TOPIC, HOME, keys))


def test_the_newest_come_first_and_their_chunks_as_they_were_written() -> None:
    shop = Shop()
    shop.begin_one("crashed", 80)
    for offset in (10, 20, 30):
        shop.publish(offset, [b"%d" % offset, *CHUNKS])
    shop.begin_one("crashed-too", 80)
    assert shop.offsets(2) == [30, 20]
    assert shop.offsets() == [30, 20, 10]
    assert [shop.content(found)[0] for found in shop.newest(3)] == [b"30", b"20", b"10"]


def test_the_newest_one_is_found_without_reading_chunks() -> None:
    shop = Shop()
    for offset in (10, 20):
        shop.publish(offset, [b"x"] * 500)
    assert shop.offsets(1) == [20]
    assert shop.reads == [(shop.end - 1, shop.end)]


def test_an_empty_topic_has_none() -> None:
    assert Shop().newest() == []


def test_chunks_without_a_manifest_are_no_snapshot() -> None:
    shop = Shop()
    shop.begin_one("10-x", 12)
    assert shop.newest() == []


def test_two_writers_at_once_do_not_mix() -> None:
    shop = Shop()

    def slow() -> Any:
        yield b"one"
        shop.publish(21, [b"other"])
        yield b"two"

    shop.publish(20, slow())
    assert [shop.content(found) for found in shop.newest(1)] == [[b"one", b"two"]]
    both = {found.manifest.offset: shop.content(found) for found in shop.newest(9)}
    assert both[20] == [b"one", b"two"]


def test_a_chunk_that_was_written_twice_counts_once() -> None:
    shop = Shop()

    def repeated() -> Any:
        yield b"one"
        shop.partition(TOPIC, HOME).append(
            msgspec.structs.replace(shop.partition(TOPIC, HOME)[-1], offset=shop.end)
        )
        yield b"two"

    shop.publish(1, repeated())
    assert shop.content(shop.newest()[0]) == [b"one", b"two"]


@pytest.mark.parametrize("place", [0, 5, 11])
def test_a_changed_chunk_is_seen(place: int) -> None:
    shop = Shop()
    shop.publish(1)
    shop.replace(TOPIC, HOME, place, b"rotten")
    with pytest.raises(SnapshotDamagedError, match=f"checksum of chunk {place} of snapshot 1-x is wrong"):
        shop.content(shop.newest()[0])


def test_a_missing_chunk_is_seen() -> None:
    shop = Shop()
    shop.publish(1)
    run(shop.send_many(TOPIC, HOME, [Record(b"1-x:4", None)]))
    shop.publish(2)
    shop.compact(TOPIC, HOME)
    with pytest.raises(SnapshotDamagedError, match="has 4 of its 12 chunks"):
        shop.content(shop.newest()[1])
    assert shop.content(shop.newest()[0]) == CHUNKS


def test_chunks_that_were_exchanged_are_seen_by_the_checksum_of_all() -> None:
    shop = Shop()
    manifest = shop.publish(1, [b"a", b"b"])
    other = msgspec.structs.replace(manifest, checksum="0" * 64)
    with pytest.raises(SnapshotDamagedError, match="the checksum of snapshot 1-x is wrong"):
        shop.content(Found(other, shop.end - 1))


def test_a_manifest_of_a_later_release_or_none_at_all_is_passed_over() -> None:
    shop = Shop()
    manifest = shop.publish(1)
    later = msgspec.json.encode(msgspec.structs.replace(manifest, v=SNAPSHOT_VERSION + 1, offset=2))
    run(shop.send_many(TOPIC, HOME, [Record(b"2-x:manifest", later), Record(b"3-x:manifest", b"no json")]))
    assert shop.offsets() == [1]


def test_what_is_superseded_is_buried_and_compaction_takes_it() -> None:
    shop = Shop()
    for offset in (10, 20, 30):
        shop.publish(offset)
    keys = shop.superseded("20-x", "30-x")
    assert len(keys) == 13
    assert keys[-1] == b"10-x:manifest", "a burial that breaks off must be found again"
    shop.bury(keys)
    assert shop.offsets() == [30, 20]
    assert shop.superseded("20-x", "30-x") == []
    shop.compact(TOPIC, HOME)
    assert {(record.key or b"").split(b":")[0] for record in shop.partition(TOPIC, HOME)} == {
        b"",
        b"20-x",
        b"30-x",
    }
    assert [shop.content(found) for found in shop.newest()] == [CHUNKS, CHUNKS]


def test_what_is_being_written_is_left_alone_until_it_cannot_be_any_more() -> None:
    shop = Shop()
    shop.publish(10)
    shop.begin_one("20-x", 2)
    assert shop.superseded("10-x") == []
    assert shop.superseded("10-x", after_ms=UNFINISHED_KEEP_MS + 1) == [b"20-x:0", b"20-x:1"]


def test_a_snapshot_serves_a_log_that_goes_on_where_it_ends() -> None:
    manifest = Shop().publish(10)

    def serves(**log: Any) -> bool:
        return covers(manifest, **{"begin": 0, "end": 20, "homes": 8, "log_id": "log", **log})

    assert serves()
    assert serves(log_id="")
    assert serves(begin=11)
    assert serves(end=11)
    assert not serves(begin=12), "offset 11 is gone"
    assert not serves(end=10), "the log is shorter: another one"
    assert not serves(log_id="other")
    assert not serves(homes=4)


def test_a_log_without_a_beginning_is_known_by_its_newest_snapshot() -> None:
    manifest = Shop().publish(10)
    refuse_other_log("t.commands", manifest, "log")
    with pytest.raises(LogRefusedError, match=r"Partition 3 of t\.commands is log log .* records of log other"):
        refuse_other_log("t.commands", manifest, "other")
