"""The bulk topic as a worker's own consumer reads it: on from what its group has committed."""

from __future__ import annotations

from collections.abc import Sequence

from ojs_stream.log.intake import BulkRecord
from tests.simulation.network import NAMESPACE, Link

WAIT_S = 0.5


class SimIntake:
    """See ``Intake``."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._at: dict[int, int] = {}
        """Partition -> where this consumer is."""

    def assign(self, partitions: set[int]) -> None:
        """These are this worker's."""
        for partition in partitions - self._at.keys():
            self._at[partition] = self._link.net.committed.get(partition, 0)

    def revoke(self, partitions: set[int]) -> None:
        """These are no more."""
        for partition in partitions:
            self._at.pop(partition, None)

    async def take(self, count_max: int) -> list[BulkRecord]:
        """See ``Intake``."""
        await self._link.step()
        taken: list[BulkRecord] = []
        for partition, at in self._at.items():
            records = self._link.net.partition(f"{NAMESPACE}.commands.bulk", partition)
            found = records[at : at + count_max - len(taken)]
            taken += [BulkRecord(partition, one.offset, one.timestamp_ms, one.value) for one in found]
            self._at[partition] = at + len(found)
        if not taken:
            await self._link.net.loop.after(WAIT_S)
        return taken

    async def done(self, records: Sequence[BulkRecord]) -> None:
        """See ``Intake``. A commit of what another worker has by now is refused."""
        await self._link.step()
        for record in records:
            if record.partition in self._at:
                self._link.net.committed[record.partition] = record.offset + 1
