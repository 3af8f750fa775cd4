"""The hub of event streams over a topic in memory."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from ojs_stream.errors import LogRefusedError, OjsError, UnavailableError
from ojs_stream.log.reader import LogRecord
from ojs_stream.web.hub import BUFFER_EVENTS_MAX, Hub, Subscription


class FakeTail:
    """What a test puts in comes out of ``step``."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed = 0
        self.coming: asyncio.Queue[list[tuple[int, LogRecord]] | OjsError] = asyncio.Queue()

    async def open(self) -> None:
        self.opened += 1

    async def step(self) -> list[tuple[int, LogRecord]]:
        got = await self.coming.get()
        if isinstance(got, OjsError):
            raise got
        return got

    async def close(self) -> None:
        self.closed += 1


def record(number: int, *, job: str = "j", queue: str = "q", kind: str = "job.enqueued") -> LogRecord:
    event = {"id": f"evt_{number}", "type": kind, "subject": job, "data": {"queue": queue}}
    return LogRecord(number, 0, None, msgspec.json.encode(event), (("ojs-position", b"%d" % number),))


async def end(hub: Hub, *subscriptions: Subscription) -> None:
    for one in subscriptions:
        await hub.leave(one)
    await hub.close()


async def numbers(subscription: Subscription) -> list[int]:
    await subscription.wait(10)
    return [frame.number for frame in subscription.take()[0]]


async def test_an_event_goes_to_those_who_want_it() -> None:
    tail = FakeTail()
    hub = Hub(lambda: tail)
    every, job, queue = Subscription("all"), Subscription("job:a"), Subscription("queue:x")
    typed, queued = Subscription("all", types=["job.started"]), Subscription("all", queues=["x"])
    for one in (every, job, queue, typed, queued):
        await hub.join(one)
    stranger = LogRecord(0, 0, None, b"no event", (("ojs-position", b"1"),))
    tail.coming.put_nowait(
        [
            (1, stranger),
            (0, record(1, job="a")),
            (0, record(2, queue="x")),
            (0, record(3, kind="job.started")),
            (0, record(2)),
        ]
    )
    assert await numbers(every) == [1, 2, 3], "and what the topic has twice, once"
    assert [await numbers(one) for one in (job, queue, typed, queued)] == [[1], [2], [3], [2]]
    assert tail.opened == 1
    await end(hub, every, job, queue, typed, queued)


async def test_the_topic_is_read_while_somebody_listens() -> None:
    tails: list[FakeTail] = []

    def new() -> FakeTail:
        tails.append(FakeTail())
        return tails[-1]

    hub = Hub(new)
    one, other, mute = Subscription("all"), Subscription("job:a"), Subscription("")
    await hub.join(mute)
    assert not tails, "statistics need no topic"
    await hub.join(one)
    await hub.join(other)
    await hub.leave(one)
    assert [tail.closed for tail in tails] == [0]
    await hub.leave(other)
    assert [tail.closed for tail in tails] == [1]
    await hub.join(one)
    assert [tail.opened for tail in tails] == [1, 1]
    await end(hub, one, mute)


async def test_a_slow_connection_loses_the_oldest_and_is_told() -> None:
    tail = FakeTail()
    hub = Hub(lambda: tail)
    slow, last = Subscription("all"), Subscription("job:last")
    await hub.join(slow)
    await hub.join(last)
    count = BUFFER_EVENTS_MAX + 7
    tail.coming.put_nowait([*((0, record(n)) for n in range(1, count + 1)), (1, record(1, job="last"))])
    await last.wait(10)
    frames, dropped, gap = slow.take()
    assert (len(frames), frames[0].number, dropped, gap) == (BUFFER_EVENTS_MAX, 9, 8, False)
    assert slow.take() == ([], 0, False)
    await end(hub, slow, last)


async def test_records_deleted_before_they_were_read_are_a_gap() -> None:
    tail = FakeTail()
    hub = Hub(lambda: tail)
    one = Subscription("all")
    await hub.join(one)
    tail.coming.put_nowait(LogRefusedError("gone"))
    await one.wait(10)
    assert one.take() == ([], 0, True)
    await end(hub, one)


async def test_one_stream_too_many_is_refused_with_the_way_out() -> None:
    hub = Hub(FakeTail, streams_max=1)
    one = Subscription("all")
    await hub.join(one)
    with pytest.raises(UnavailableError, match="OJS_STREAMS_MAX allows 1"):
        await hub.join(Subscription("all"))
    await hub.leave(one)
    other = Subscription("all")
    await hub.join(other)
    await end(hub, other)
    with pytest.raises(UnavailableError, match="shutting down"):
        await hub.join(one)


async def test_a_topic_that_cannot_be_read_is_told_and_leaves_nobody_counted() -> None:
    class Away(FakeTail):
        async def open(self) -> None:
            raise UnavailableError("Kafka does not answer.")

    hub = Hub(Away)
    with pytest.raises(UnavailableError, match="Kafka"):
        await hub.join(Subscription("all"))
    assert len(hub) == 0
