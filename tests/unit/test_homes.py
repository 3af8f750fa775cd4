"""Homes are partitions: hashed as every Kafka client hashes."""

from __future__ import annotations

from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from ojs_stream import stamp
from ojs_stream.core.homes import HOMES_MAX, home_in_id, home_of


@given(st.text(), st.integers(1, HOMES_MAX))
def test_the_home_of_a_name_is_what_aiokafkas_partitioner_says(name: str, homes: int) -> None:
    assert home_of(name, homes) == (murmur2(name.encode()) & 0x7FFFFFFF) % homes


@given(st.integers(0, HOMES_MAX - 1))
def test_a_server_made_id_names_its_home(home: int) -> None:
    assert home_in_id(stamp.new_job_id(home)) == home


def test_names_spread_over_homes() -> None:
    found = [home_of(f"queue-{number}", 8) for number in range(4_000)]
    assert all(400 < found.count(home) < 600 for home in range(8))
