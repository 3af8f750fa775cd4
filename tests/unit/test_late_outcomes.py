"""An outcome that comes after its view's deadline: who must act on it hears of it all the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ojs_stream.core.commands import Claim
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.world import system_command
from ojs_stream.errors import UnavailableError
from ojs_stream.log import gateway as gateway_module
from ojs_stream.log.gateway import Gateway, PackBounds
from ojs_stream.log.producer import Appended

CLAIM: Claim = system_command(Claim, queues=("q",), count=1)


class _Producer:
    """Everything is acknowledged at once."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def send(self, _topic: str, _partition: int, value: bytes, **_: Any) -> Appended:
        self.sent.append(value)
        return Appended(len(self.sent), 1_000)

    def stalled_s(self) -> float:
        return 0.0


class _Host:
    """Another worker's round stores the outcome when the test says so."""

    def __init__(self) -> None:
        self.stored: dict[str, Outcome] = {}

    def appended(self, *_: Any) -> None:
        pass

    def check(self, _home: int) -> None:
        pass

    async def outcomes(self, late: list[tuple[int, str]]) -> list[Outcome | None]:
        return [self.stored.get(submit) for _, submit in late]


def _gateway(host: _Host, producer: _Producer, **bounds: int) -> Gateway:
    return Gateway(
        instance="w",
        homes=1,
        topic="c",
        producer=producer,
        host=host,  # type: ignore[arg-type]
        bounds=PackBounds(deadline_s=0.01, **bounds),
    )


@pytest.fixture(autouse=True)
def _fast_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "SWEEP_S", 0.001)


async def test_a_claim_that_is_applied_after_the_deadline_is_heard_of_once() -> None:
    host, heard = _Host(), []
    told = asyncio.Event()

    def late(outcome: Outcome) -> None:
        heard.append(outcome)
        told.set()

    gateway = _gateway(host, _Producer())
    gateway.start()
    with pytest.raises(UnavailableError):
        await gateway.submit(0, CLAIM, late=late)
    host.stored["w:1"] = Outcome(data={"at": "last"})
    async with asyncio.timeout(5):
        await told.wait()
    gateway.resolve("w:1", host.stored["w:1"])
    gateway.close()
    assert [outcome.data for outcome in heard] == [{"at": "last"}]


async def test_what_was_never_packed_is_not_looked_for() -> None:
    producer = _Producer()
    gateway = _gateway(_Host(), producer, packs_in_flight_max=0)
    gateway.start()
    with pytest.raises(UnavailableError):
        await gateway.submit(0, CLAIM, late=lambda _: None)
    gateway.close()
    assert not producer.sent
    assert not gateway._late
