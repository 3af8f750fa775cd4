"""The first record of a partition."""

from __future__ import annotations

import msgspec

from ojs_stream import stamp
from ojs_stream.core.commands import Genesis
from ojs_stream.core.world import system_command
from ojs_stream.log.codec import encode_pack, pack_headers
from ojs_stream.log.producer import LogProducer


async def begin_log(producer: LogProducer, topic: str, home: int, *, homes: int) -> None:
    """Name the log of an empty partition. Two may do so at once: the first record counts."""
    command: Genesis = system_command(Genesis, log_id=stamp.new_token(8), partitions=homes)
    value = encode_pack([msgspec.json.encode(command)])
    await producer.send(topic, home, value, headers=pack_headers(1, ["genesis"]))
