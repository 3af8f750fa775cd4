"""The embedded broker's own inputs."""

from __future__ import annotations

import pytest

from ojs_stream.dev import kafka


@pytest.mark.parametrize("token", ["f8" + "0" * 30, "fb" * 16, "00" * 16])
def test_a_cluster_id_is_never_taken_for_an_option(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "new_token", lambda _: token)
    cluster_id = kafka.new_cluster_id()
    assert len(cluster_id) == 22
    assert cluster_id.startswith("K")
