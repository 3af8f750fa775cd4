"""Workers as the store knows them: who has beaten, when, and what is asked of them."""

from __future__ import annotations

from ojs_stream.core.homes import home_of
from ojs_stream.core.records import WorkerRecord, decode_record
from ojs_stream.store.reads import Read, Reads

WORKERS_MAX = 10_000
"""So many workers (of each home) a list looks at, the last to beat first."""


class WorkerReads:
    """Reads of worker records; a worker lives at hash(its id)."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def record(self, worker_id: str) -> WorkerRecord | None:
        """The record of one worker."""
        home = home_of(worker_id, self._reads.homes)
        return _worker_of(await self._reads.one(home, "GET", ("worker", worker_id)))

    async def all(self) -> list[WorkerRecord]:
        """Every worker, sorted by id."""
        homes = range(self._reads.homes)
        wanted: list[Read] = [(home, "ZRANGE", ("workers",), (0, WORKERS_MAX - 1, "REV")) for home in homes]
        ids = [
            (home, name.decode())
            for home, names in zip(homes, await self._reads.many(wanted), strict=True)
            for name in names
        ]
        if not ids:
            return []
        reads: list[Read] = [(home, "GET", ("worker", name), ()) for home, name in ids]
        found = [_worker_of(data) for data in await self._reads.many(reads)]
        return sorted((record for record in found if record), key=lambda record: record.id)


def _worker_of(data: bytes | None) -> WorkerRecord | None:
    record = decode_record(("worker", ""), data) if data else None
    return record if isinstance(record, WorkerRecord) else None
