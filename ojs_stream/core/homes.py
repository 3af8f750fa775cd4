"""Which home owns what (DESIGN.md section 4): murmur2 as Kafka's Java client and aiokafka partition keys."""

from __future__ import annotations

from functools import lru_cache

HOMES_MAX = 1024
_MASK = 0xFFFFFFFF


def _murmur2(data: bytes) -> int:
    length = len(data)
    mixed = (0x9747B28C ^ length) & _MASK
    for start in range(0, length - length % 4, 4):
        word = int.from_bytes(data[start : start + 4], "little") * 0x5BD1E995 & _MASK
        word = (word ^ word >> 24) * 0x5BD1E995 & _MASK
        mixed = (mixed * 0x5BD1E995 & _MASK) ^ word
    rest = data[length - length % 4 :]
    if rest:
        mixed = (mixed ^ int.from_bytes(rest, "little")) * 0x5BD1E995 & _MASK
    mixed = (mixed ^ mixed >> 13) * 0x5BD1E995 & _MASK
    return mixed ^ mixed >> 15


@lru_cache(maxsize=65_536)
def home_of(name: str, homes: int) -> int:
    """The home of a queue, worker or client-supplied id."""
    if homes == 1:
        return 0
    return (_murmur2(name.encode()) & 0x7FFFFFFF) % homes


def note_home(job_id: str, homes: int) -> int:
    """Where whoever goes by a server-made id finds its job, or a note of where it is.

    It is the home in the id, unless the job comes from a log with more homes than this one has.
    """
    return home_in_id(job_id) % homes


def home_in_id(job_id: str) -> int:
    """The home written into a server-made job id. A client's id has arbitrary bits here: it may be wrong."""
    return int(job_id[-3:], 16) & (HOMES_MAX - 1)
