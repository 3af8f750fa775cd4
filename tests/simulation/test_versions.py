"""A rolling upgrade: an older worker meets what a newer one has written. It waits, and nothing is put aside."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from ojs_stream.agents import owner as owner_module
from ojs_stream.core.records import STATE_VERSION
from ojs_stream.core.world import World
from ojs_stream.errors import UnavailableError
from ojs_stream.log import codec
from ojs_stream.log.producer import Record
from ojs_stream.store import keys
from tests.simulation.network import NAMESPACE
from tests.simulation.test_takeover import SOON_S, Story, told
from tests.support.builders import enqueue, job

COMMANDS = f"{NAMESPACE}.commands"
NEWER = STATE_VERSION + 1


def _written(*versions: int) -> tuple[list[str], list[Record]]:
    """Packs of one enqueue each, as releases of these versions would write them; and the ids of their jobs."""
    ids, records = [], []
    for version in versions:
        command = enqueue(job("q", homes=1))
        ids.append(command.jobs[0].id)
        data = msgspec.json.encode(msgspec.structs.replace(command, v=version))
        records.append(Record(None, codec.encode_pack([data]), []))
    return ids, records


def _stored(story: Story, ids: list[str]) -> list[bool]:
    data = story.net.store.data
    return [keys.record(NAMESPACE, 0, ("job", job_id)) in data for job_id in ids]


def _upgrade(patch: pytest.MonkeyPatch) -> None:
    """From here on every worker is of a release that reads the next version, and writes it."""
    patch.setattr(codec, "COMMAND_VERSION", NEWER)
    patch.setattr(owner_module, "STATE_VERSION", NEWER)
    written_today = World.state
    patch.setattr(World, "state", lambda world: msgspec.structs.replace(written_today(world), v=NEWER))


def test_an_older_worker_folds_up_to_a_newer_command_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    async def tell(story: Story) -> None:
        ids, records = _written(1, 1, NEWER, 1)
        story.net.land(COMMANDS, 0, records)
        await asyncio.sleep(SOON_S)
        old = story.owner(0)
        end = len(story.net.partition(COMMANDS, 0))
        assert (old.phase, old.applied) == ("refused", end - 3)
        assert _stored(story, ids) == [True, True, False, False]
        assert old.progress.reason.startswith(
            f"At offset {end - 2} of partition 0 of {COMMANDS} is command version {NEWER}, "
            "this release reads 1 to 1: upgrade this worker."
        )
        with pytest.raises(UnavailableError, match=r"home 0 is refused: .* upgrade this worker"):
            old._wiring.positions.check_not_refused(0)
        await asyncio.sleep(4 * SOON_S)
        assert (old.phase, old.applied) == ("refused", end - 3), "it tries again and finds the same"
        _upgrade(monkeypatch)
        await story.take_over()
        assert story.owner(0).live
        assert _stored(story, ids) == [True] * 4
        story.owner(0)._wiring.positions.check_not_refused(0)

    story = told(tell)
    assert story.net.partition(f"{NAMESPACE}.commands.dead", 0) == []


def test_a_catch_up_ends_before_a_newer_command(monkeypatch: pytest.MonkeyPatch) -> None:
    async def tell(story: Story) -> None:
        await story.enqueue(3)
        ids, records = _written(1, NEWER, 1)

        def meanwhile() -> None:
            story.net.wipe()
            story.net.land(COMMANDS, 0, records)

        await story.take_over(meanwhile)
        assert story.owner(0).phase == "refused"
        assert _stored(story, ids) == [True, False, False]
        _upgrade(monkeypatch)
        await asyncio.sleep(4 * SOON_S)
        assert story.owner(0).live

    told(tell)


def test_an_older_worker_leaves_the_records_of_a_newer_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would decode them, drop the fields that it does not know, and write them back without."""

    async def tell(story: Story) -> None:
        with monkeypatch.context() as newer:
            _upgrade(newer)
            await story.enqueue(1)
        state = story.net.store.data[keys.home_state(NAMESPACE, 0)]
        assert b'"v":%d' % NEWER in state
        await story.take_over()
        older = story.owner(0)
        assert older.phase == "refused"
        assert older.progress.reason.startswith(
            f"Redis holds the records of partition 0 in version {NEWER}, this release reads 1 to {STATE_VERSION}: "
            "upgrade this worker."
        )
        story.net.land(COMMANDS, 0, _written(1)[1])
        await asyncio.sleep(SOON_S)
        assert story.net.store.data[keys.home_state(NAMESPACE, 0)] == state
        _upgrade(monkeypatch)
        await asyncio.sleep(4 * SOON_S)
        assert story.owner(0).live

    told(tell)


def test_version_1_is_not_written() -> None:
    """What an older release wrote and what this one writes is the same, byte for byte."""

    async def tell(story: Story) -> None:
        await story.enqueue(1)
        data = story.net.store.data[keys.home_state(NAMESPACE, 0)]
        assert b'"v":' not in data

    told(tell)
