"""The embedded broker's own inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ojs_stream.dev import java, kafka
from ojs_stream.dev.process import ServerError


@pytest.mark.parametrize("token", ["f8" + "0" * 30, "fb" * 16, "00" * 16])
def test_a_cluster_id_is_never_taken_for_an_option(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "new_token", lambda _: token)
    cluster_id = kafka.new_cluster_id()
    assert len(cluster_id) == 22
    assert cluster_id.startswith("K")


class Registry:
    """What jgo finds: jars in a folder that it takes apart at its next call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = 0
        self.broken = False

    async def resolve(self, coordinates: str, _progress: Callable[[int], None]) -> list[Path]:
        self.calls += 1
        if self.broken and self.calls % 2 == 0:
            raise ServerError("the line is cut")
        jar = self.folder / f"{coordinates.split(':')[1]}.jar"
        jar.write_bytes(coordinates.encode())
        return [jar]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    found = Registry(tmp_path / "jgo")
    found.folder.mkdir()
    monkeypatch.setattr(java, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(java, "_resolve", found.resolve)
    return found


async def test_jars_stay_where_they_are_when_jgo_rebuilds_its_folder(registry: Registry) -> None:
    """A Kafka that starts now must not miss what another start takes away from jgo's folder."""
    first = await java.kafka_class_path()
    for jar in registry.folder.iterdir():
        jar.unlink()
    assert await java.kafka_class_path() == first
    assert [jar.read_bytes().decode() for jar in first] == sorted(
        java.KAFKA_JARS, key=lambda one: one.split(":")[1]
    )
    assert registry.calls == len(java.KAFKA_JARS)


async def test_half_a_download_is_no_class_path(registry: Registry) -> None:
    registry.broken = True
    with pytest.raises(ServerError):
        await java.kafka_class_path()
    registry.broken = False
    assert len(await java.kafka_class_path()) == len(java.KAFKA_JARS)
