"""Which release can read what a fold has left: until something new is used, the one before (ADR 12)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw, structs

from ojs_stream.core.commands import Adopt, Maintain, Report, Reset, SaveCheckpoint, version_of
from ojs_stream.core.homes import home_of
from ojs_stream.core.names import MAINTENANCE
from ojs_stream.core.records import CheckpointRecord
from tests.support.builders import Fold, command


def version(fold: Fold, home: int = 0) -> int:
    return int(json.loads(fold.dump(home)["home"]).get("v", 1))


@pytest.mark.parametrize(
    ("kind", "fields"), [(Report, {"fraction": 0.5}), (SaveCheckpoint, {"state": Raw(b"{}")})]
)
def test_a_home_whose_jobs_were_told_of_is_of_version_2(kind: type[Any], fields: dict[str, Any]) -> None:
    fold = Fold()
    made = fold.active()
    assert version(fold) == 1
    fold.do(command(kind, job_id=made, **fields))
    assert version(fold) == 2
    fold.do(command(Reset), home=0)
    assert version(fold) == 1, "nothing of it is left"


def test_a_report_that_comes_too_late_changes_nothing() -> None:
    fold = Fold()
    made = fold.put()
    fold.do(command(Report, job_id=made, fraction=0.5))
    assert version(fold) == 1


def test_maintenance_is_known_at_every_home() -> None:
    fold = Fold(3)
    fold.do(command(Maintain, enabled=True), home=home_of(MAINTENANCE, 3))
    assert [version(fold, home) for home in range(3)] == [2, 2, 2]


def test_a_job_that_moves_carries_the_version_that_it_needs() -> None:
    fold = Fold()
    record = fold.record(fold.active())
    plain: Adopt = command(Adopt, record=record)
    assert version_of(plain) == 1
    told = structs.replace(record, ctl=structs.replace(record.ctl, checkpoint=1))
    kept = CheckpointRecord(job=record.job.id, sequence=1, at=1, state=Raw(b"{}"))
    moved = structs.replace(plain, record=told, checkpoint=kept)
    assert version_of(moved) == 2
    there = Fold()
    there.do(moved)
    assert version(there) == 2
