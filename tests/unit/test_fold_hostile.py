"""Whatever is in the log and decodes: the home folds on. A command can hurt itself, never the partition."""

from __future__ import annotations

from random import Random

import pytest

from ojs_stream.core.commands import BadCommand, Claim
from ojs_stream.log.codec import decode_pack, encode_pack
from tests.support.builders import Fold, claim, command, enqueue, job, tick
from tests.support.hostile import KINDS, hostile

SEEDS = 40
STEPS = 6


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_command_stops_a_home(seed: int) -> None:
    dice = Random(seed)
    fold = Fold(homes=2, deliver=False)
    names = [fold.put(), fold.put(priority=5), fold.active("q1"), fold.put(scheduled=fold.now + 60_000)]
    for _ in range(STEPS):
        fold.append(dice.randrange(2), [hostile(dice, names)])
        fold.now += dice.choice((0, 1, 10**6, 10**10))
        for home in range(2):
            fold.append(home, [tick(dice.choice(("run", "reap"))), claim("default", "q1")])
    assert fold.put("untouched") not in names, "it takes jobs"


def test_hostile_commands_are_of_every_kind_and_most_of_them_decode() -> None:
    dice = Random(1)
    made = [hostile(dice, ["a"]) for _ in range(2_000)]
    decoded = [decode_pack(encode_pack([data]))[0] for data in made]
    good = [each for each in decoded if not isinstance(each, BadCommand)]
    assert {str(each.__struct_config__.tag) for each in good} == set(KINDS)
    assert len(good) > len(made) // 2


def test_a_claim_of_no_queue_gets_nothing() -> None:
    fold = Fold()
    fold.put()
    assert fold.do(command(Claim, queues=(), count=1), home=0).jobs == ()


def test_a_claim_of_more_jobs_than_there_can_be_gets_what_there_is() -> None:
    fold = Fold()
    ids = [fold.put() for _ in range(3)]
    assert fold.take(count=2**63 - 1) == ids


def test_a_claim_of_very_many_jobs_looks_at_a_part_at_a_time() -> None:
    fold = Fold()
    assert not fold.do(enqueue(*[job() for _ in range(1_500)])).refused
    assert len(fold.take(count=1_200)) == 1_200
