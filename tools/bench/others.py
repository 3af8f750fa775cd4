"""What else ran on the machine while the bench did: the ratios of a shared machine are worth less.

Read from `/proc`, so only on Linux. Time that the hypervisor gave to somebody else counts as theirs.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

_PROC = Path("/proc")
_IDLE_FIELDS = (3, 4)
"""Idle and waiting for a disk, of the first line of `/proc/stat`."""
_GUEST_FIELD = 8
"""Guests are counted in user time already."""
_PARENT, _USER, _SYSTEM = 1, 11, 12
"""Of a process, counted after its name."""


class Others:
    """How much of the machine processes used that are not ours, from `begin` on."""

    def __init__(self) -> None:
        self._began = monotonic()
        self._busy_s, self._own_s = _busy_s(), _own_s()

    def share(self) -> float:
        """Return the share of all cores, from 0 to 1; ours are this process and all below it."""
        if not (_PROC / "stat").is_file():
            return 0.0
        available_s = (monotonic() - self._began) * (os.cpu_count() or 1)
        theirs_s = (_busy_s() - self._busy_s) - (_own_s() - self._own_s)
        return min(max(theirs_s / available_s, 0.0), 1.0)


def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK")


def _busy_s() -> float:
    if not (_PROC / "stat").is_file():
        return 0.0
    fields = [int(field) for field in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:]]
    busy = sum(value for place, value in enumerate(fields[:_GUEST_FIELD]) if place not in _IDLE_FIELDS)
    return busy / _ticks_per_s()


def _own_s() -> float:
    processes = {int(path.parent.name): _fields(path) for path in _PROC.glob("[0-9]*/stat")}
    ours = {os.getpid()}
    while more := {pid for pid, fields in processes.items() if fields and int(fields[_PARENT]) in ours} - ours:
        ours |= more
    ticks = sum(int(processes[pid][_USER]) + int(processes[pid][_SYSTEM]) for pid in ours if processes.get(pid))
    return ticks / _ticks_per_s()


def _fields(path: Path) -> list[str]:
    try:
        return path.read_text().rpartition(") ")[2].split()
    except OSError:  # it has ended meanwhile
        return []
