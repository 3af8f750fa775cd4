"""Queue names that cover all partitions: a queue's home is murmur2 of its name, as in Java and aiokafka."""

from __future__ import annotations

from itertools import count

from aiokafka.partitioner import murmur2

_POSITIVE = 0x7FFFFFFF


def home_of(queue: str, partitions: int) -> int:
    """Return the partition that a queue lives in."""
    hashed: int = murmur2(queue.encode())
    return (hashed & _POSITIVE) % partitions


def covering_queues(prefix: str, partitions: int) -> tuple[str, ...]:
    """Return one queue name for each partition, in partition order."""
    found: dict[int, str] = {}
    for number in count():
        if len(found) == partitions:
            break
        name = f"{prefix}-{number}"
        found.setdefault(home_of(name, partitions), name)
    return tuple(found[partition] for partition in sorted(found))
