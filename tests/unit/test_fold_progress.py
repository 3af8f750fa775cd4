"""What a worker says of a job while it runs: progress and checkpoints."""

from __future__ import annotations

import pytest
from msgspec import Raw

from ojs_stream.core.commands import (
    Ack,
    Cancel,
    DeleteDead,
    DropCheckpoint,
    Report,
    RetryDead,
    SaveCheckpoint,
)
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import CheckpointRecord, decode_record
from tests.support.builders import SECOND, Fold, claim, command, jobs_of, nack, policy, queue_at
from tests.support.recount import recount_all


def said(fold: Fold, job_id: str, fraction: float | None = None, **fields: object) -> Outcome:
    return fold.do(command(Report, job_id=job_id, fraction=fraction, **fields))


def saved(fold: Fold, job_id: str, state: bytes = b'{"row":7}', **fields: object) -> Outcome:
    return fold.do(command(SaveCheckpoint, job_id=job_id, state=Raw(state), **fields))


def kept(fold: Fold, job_id: str) -> CheckpointRecord | None:
    data = fold.dump(fold.where(job_id)).get(f"checkpoint:{job_id}")
    if data is None:
        return None
    record = decode_record(("checkpoint", job_id), data)
    assert isinstance(record, CheckpointRecord)
    return record


# -- progress -----------------------------------------------------------------------------------------------


def test_progress_never_goes_back_and_what_is_not_said_stays() -> None:
    fold = Fold()
    made = fold.active()
    assert said(fold, made, 0.5, message="half", data=Raw(b'{"rows":1e400}')).data["progress"] == 0.5
    told = said(fold, made, 0.25)
    assert (told.data["progress"], told.data["message"], told.data["accepted"]) == (0.5, "half", True)
    progress = fold.record(made).ctl.progress
    assert progress is not None
    assert bytes(progress.data) == b'{"rows":1e400}'
    assert recount_all(fold.dumps()) == []


def test_only_news_is_an_event() -> None:
    fold = Fold()
    made = fold.active()
    for fraction in (0.101, 0.102, 0.109, 0.11):
        said(fold, made, fraction)
    said(fold, made, 0.11, message="still there")
    events = [event.data for event in fold.events if event.type == "job.progress"]
    assert [(one.progress_percent, one.progress_message) for one in events] == [
        (10, None),
        (11, None),
        (11, "still there"),
    ]
    assert (events[0].worker_id, events[0].attempt) == ("w1", 1)


def test_a_report_is_a_sign_of_life() -> None:
    fold = Fold()
    made = fold.active(visibility_timeout_ms=3 * SECOND)
    for _ in range(3):
        fold.ticks(after=2 * SECOND)
        said(fold, made, 0.1)
        assert fold.record(made).ctl.lease == fold.now + 3 * SECOND
    assert fold.state(made) == "active"


@pytest.mark.parametrize("worker", ["w2", "w1"])
def test_what_comes_too_late_is_ignored_and_no_error(worker: str) -> None:
    fold = Fold()
    made = fold.active(worker="w1")
    if worker == "w1":
        fold.do(command(Cancel, job_id=made))
    told = said(fold, made, 0.9, worker_id=worker)
    assert not told.refused
    assert (told.data["accepted"], told.data["progress"]) == (False, None)
    assert said(fold, "0197f0a0-0000-7000-8000-ffffffffffff", 0.9).code == "not_found"


def test_each_attempt_begins_at_nothing_and_a_completed_job_is_all_done() -> None:
    fold = Fold()
    made = fold.active()
    said(fold, made, 0.7)
    fold.do(nack(made))
    assert fold.record(made).ctl.progress is not None
    fold.now += 2 * SECOND
    fold.take()
    assert fold.record(made).ctl.progress is None
    said(fold, made, 0.2)
    fold.do(command(Ack, job_id=made))
    progress = fold.record(made).ctl.progress
    assert progress is not None
    assert progress.fraction == 1.0
    quiet = fold.active()
    fold.do(command(Ack, job_id=quiet))
    assert fold.record(quiet).ctl.progress is None


# -- checkpoints --------------------------------------------------------------------------------------------


def test_a_checkpoint_is_kept_byte_for_byte_and_counted() -> None:
    fold = Fold()
    made = fold.put()
    assert saved(fold, made, step_index=1).data["sequence"] == 1
    told = saved(fold, made, b"[18446744073709551616]", step_index=2, metadata=Raw(b'{"_replay_log":"[]"}'))
    assert told.data["sequence"] == 2
    checkpoint = kept(fold, made)
    assert checkpoint is not None
    assert bytes(checkpoint.state) == b"[18446744073709551616]"
    assert checkpoint.step_index == 2
    assert fold.do(command(DropCheckpoint, job_id=made)).data == {"deleted": True}
    assert fold.do(command(DropCheckpoint, job_id=made)).data == {"deleted": False}
    assert kept(fold, made) is None
    assert saved(fold, made).data["sequence"] == 1
    assert recount_all(fold.dumps()) == []


def test_the_next_attempt_gets_the_checkpoint_with_its_job() -> None:
    fold = Fold()
    made = fold.active(visibility_timeout_ms=3 * SECOND)
    fold.now += 2 * SECOND
    saved(fold, made)
    assert fold.record(made).ctl.lease == fold.now + 3 * SECOND
    fold.do(nack(made))
    fold.now += 2 * SECOND
    (job,) = jobs_of(fold.do(claim()))
    assert (job["attempt"], job["checkpoint"]["state"], job["checkpoint"]["sequence"]) == (2, {"row": 7}, 1)


def test_only_the_holder_saves_and_nobody_after_the_end() -> None:
    fold = Fold()
    made = fold.active(worker="w1")
    assert saved(fold, made, worker_id="w2").code == "conflict"
    assert not saved(fold, made, worker_id="w1").refused
    fold.do(command(Ack, job_id=made))
    assert saved(fold, made).code == "conflict"
    # It may be read until the job goes.
    assert kept(fold, made) is not None
    assert saved(fold, "0197f0a0-0000-7000-8000-ffffffffffff").code == "not_found"


def test_a_checkpoint_goes_with_its_job() -> None:
    fold = Fold()
    made = fold.active(retry=policy(max_attempts=1, on_exhaustion="dead_letter"))
    saved(fold, made)
    fold.do(nack(made))
    fold.do(command(DeleteDead, job_id=made))
    assert not [name for name in fold.dump() if name.startswith("checkpoint")]
    assert recount_all(fold.dumps()) == []


def test_a_checkpoint_moves_with_its_job() -> None:
    fold = Fold(4)
    here, there = queue_at(1, 4), queue_at(2, 4)
    made = fold.active(here, retry=policy(max_attempts=1, on_exhaustion="dead_letter"))
    saved(fold, made)
    fold.do(nack(made))
    fold.do(command(RetryDead, job_id=made, queue=there), home=1)
    assert fold.where(made) == 2
    assert kept(fold, made) is not None
    assert saved(fold, made).data["sequence"] == 2
    assert fold.do(command(DropCheckpoint, job_id=made), home=1).data == {"deleted": True}
    assert recount_all(fold.dumps()) == []
