"""The server with consumers that fall silent: ``faust -A tests.support.frozen worker``.

From the moment that the file ``FROZEN_FLAG`` exists, the group's consumer gets nothing any more, as after a
reconnect that went wrong. With ``FROZEN_WHAT=everything`` the readers without a group hang, too.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from aiokafka.consumer.fetcher import Fetcher

from ojs_stream.main import app

__all__ = ["app"]

_flag = Path(os.environ["FROZEN_FLAG"])
_readers_too = os.environ["FROZEN_WHAT"] == "everything"
_fetched_records = Fetcher.fetched_records
SILENCE_S = 0.1


async def _frozen(self: Any, *arguments: Any, **named: Any) -> Any:
    if not _flag.exists():
        return await _fetched_records(self, *arguments, **named)
    if self._subscriptions.partitions_auto_assigned():
        await asyncio.sleep(SILENCE_S)
        return {}
    if _readers_too:
        await asyncio.Event().wait()
    return await _fetched_records(self, *arguments, **named)


Fetcher.fetched_records = _frozen
