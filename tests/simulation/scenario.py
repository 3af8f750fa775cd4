"""One seed, one run: workload and faults, then calm, then the audit."""

from __future__ import annotations

import asyncio
import gc
import traceback
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from ojs_stream.core.commands import Genesis
from ojs_stream.core.world import system_command
from ojs_stream.log.codec import encode_pack
from ojs_stream.log.producer import Record
from ojs_stream.store.memory import MemoryStore
from tests.simulation.auditor import RUNNABLE, Audit
from tests.simulation.clients import CRONS, Client
from tests.simulation.clock import Clock, patched
from tests.simulation.cluster import Cluster, task_factory
from tests.simulation.history import Asked, History
from tests.simulation.loop import StuckError, VirtualLoop
from tests.simulation.network import NAMESPACE, Faults, Network
from tests.simulation.releases import NEWER, two_releases
from tests.simulation.snapshots import Photographer
from tests.support.builders import replay
from tests.support.recount import recount

HOUR_MS = 3_600_000
CALM_S = 2.0
CRON_SHARE = 0.3
MIXED_SHARE = 0.25
"""So many runs have workers of two releases."""
GENTLE_SHARE = 0.08
"""So many runs know no bad luck but lost replies: there every request must be answered."""
RECOUNT_SHARE = 0.12
"""After so many faults the homes are recounted at once, as they are."""
DRAIN_S = 400.0
DRAIN_STEP_S = 0.7
QUIET_S = 30.0
NEWER_STATE = b'"v":%d,' % NEWER


@dataclass
class Result:
    """How a run went."""

    seed: int
    problems: list[str] = field(default_factory=list)
    journal: list[dict[str, Any]] = field(default_factory=list)
    requests: int = 0
    records: int = 0
    virtual_s: float = 0.0


class Scenario:
    """A cluster, its clients and its bad luck."""

    def __init__(self, seed: int) -> None:
        self.result = Result(seed)
        self.rng = Random(seed)
        self.loop = VirtualLoop()
        self.clock = Clock(self.loop)
        self.homes = self.rng.choice((1, 2, 3, 4))
        self.workers = self.rng.choice((1, 2, 3))
        self.gentle = self.rng.random() < GENTLE_SHARE
        self.newer_share = (
            self.rng.choice((0.3, 0.7)) if self.rng.random() < MIXED_SHARE and not self.gentle else 0.0
        )
        self.history = History()
        self.history.touches_are_stored = self.rng.random() < 0.5
        self._note = self.result.journal
        self._clock_was_set = False
        self._photographers: list[asyncio.Task[None]] = []

    def run(self) -> Result:
        """The whole run, in no time."""
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(self._unheard)
        try:
            with self._releases(), patched(self.loop, self.clock, self.rng, self._note):
                self.loop.set_task_factory(task_factory)  # type: ignore[arg-type]
                self.loop.run_until_complete(self._main())
        except StuckError as error:
            self.result.problems.append(str(error))
        finally:
            self._end()
        return self.result

    def _unheard(self, _loop: Any, context: dict[str, Any]) -> None:
        """A task has ended with an exception that nobody asked for: a worker would go on without it."""
        if "exception" in context:
            self.result.problems.append(f"{context['message']}: {context['exception']!r}")

    def _releases(self) -> AbstractContextManager[None]:
        return two_releases(counted=self.history.touches_are_stored) if self.newer_share else nullcontext()

    def _end(self) -> None:
        self.result.virtual_s = self.loop.time()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(1.0))
        asyncio.set_event_loop(None)
        self.loop.close()

    async def _main(self) -> None:
        self.net = Network(self.rng, self.loop, self.clock.broker)
        self._begin_log()
        self.cluster = Cluster(self.net, self.homes, self.workers, self.newer_share)
        self.cluster.rebalance()
        if self.rng.random() < CRON_SHARE:
            policies = ("skip", "allow", "cancel_previous", "enqueue")
            self.history.crons = {name: self.rng.choice(policies) for name in CRONS}
        self.net.faults = Faults(reply_lost=1.0) if self.gentle else Faults.drawn(self.rng)
        clients = [Client(self.cluster, self.history, self.rng) for _ in range(self.rng.randint(1, 5))]
        bad_luck = asyncio.create_task(self._bad_luck() if not self.gentle else asyncio.sleep(0))
        await asyncio.gather(*[client.run(self.rng.randint(10, 26)) for client in clients])
        bad_luck.cancel()
        if self.gentle:
            self._all_answered(self.history.lines)
        await self._end_well(clients[0])

    async def _end_well(self, client: Client) -> None:
        """Bad luck ends; all work is done, and everything looked at."""
        await self._calm_down()
        asked = len(self.history.lines)
        await self._drain(client)
        self._all_answered(self.history.lines[asked:])
        await self._settle()
        self._leaks()
        self._photographs()
        await self._audit()

    def _begin_log(self) -> None:
        for home in range(self.homes):
            # Two workers may race at a cold start: the first genesis wins.
            for _ in range(self.rng.choice((1, 1, 2))):
                log_id = f"{self.rng.getrandbits(64):016x}"
                command = msgspec.json.encode(system_command(Genesis, log_id=log_id, partitions=self.homes))
                self.net.land(f"{NAMESPACE}.commands", home, [Record(None, encode_pack([command]), [])])

    # -- faults -------------------------------------------------------------------------------------------

    async def _bad_luck(self) -> None:
        events = [
            self._crash,
            self._crash_at_a_step,
            self._rebalance,
            self._zombies,
            self._freeze,
            self._wipe,
            self._roll_back,
            self._step_clocks,
            self._outage,
            self._expire,
            self._snapshot,
            self._change_weather,
        ]
        chosen = self.rng.sample(events, self.rng.randint(0, len(events)))
        pause = self.rng.choice((0.3, 1.0, 3.0))
        while chosen:
            await asyncio.sleep(self.rng.expovariate(1 / pause))
            fault = self.rng.choice(chosen)
            self._note.append({"at": round(self.loop.time(), 4), "level": "fault", "event": fault.__name__})
            fault()
            if self.rng.random() < RECOUNT_SHARE:
                await self._recount()

    async def _recount(self) -> None:
        """Whatever has happened: what is stored of a home is one of its commits, and each adds up."""
        for home, dump in enumerate(await self._dumps()):
            self.result.problems += [f"in between, home {home}: {text}" for text in recount(dump)]

    def _crash(self) -> None:
        if self.cluster.alive:
            self.rng.choice(self.cluster.alive).crash()

    def _crash_at_a_step(self) -> None:
        if self.cluster.alive:
            self.rng.choice(self.cluster.alive).link.steps_left = self.rng.randint(1, 60)

    def _rebalance(self) -> None:
        self.cluster.rebalance()

    def _zombies(self) -> None:
        self.cluster.rebalance(zombies=True)

    def _freeze(self) -> None:
        if self.cluster.alive:
            self.rng.choice(self.cluster.alive).link.frozen_until = self.loop.time() + self.rng.uniform(0.1, 8.0)
            if self.rng.random() < 0.7:
                self.cluster.rebalance(zombies=True)

    def _wipe(self) -> None:
        self.net.store.wipe(self._some_homes())

    def _roll_back(self) -> None:
        self.net.roll_back(self._some_homes())

    def _some_homes(self) -> list[int]:
        """All have one Redis, or one of them has another than the rest."""
        return list(range(self.homes)) if self.rng.random() < 0.7 else [self.rng.randrange(self.homes)]

    def _step_clocks(self) -> None:
        steps = (0, -5_000, -300, 300, 5_000, 60_000, -HOUR_MS, HOUR_MS)
        self._clock_was_set = True
        self.clock.step(self.rng.choice(steps), self.rng.choice(steps))
        for worker in self.cluster.alive:
            if self.rng.random() < 0.3:
                worker.skew_ms = self.rng.choice(steps)

    def _outage(self) -> None:
        end = self.loop.time() + self.rng.choice((0.2, 2.0, 7.0))
        # Who waits for the end of an outage has been told when it is.
        self.net.outage_until = max(self.net.outage_until, end)

    def _expire(self) -> None:
        self.net.expire()

    def _snapshot(self) -> None:
        photographer = Photographer(self.net, self.homes, self.clock.local)
        task = asyncio.create_task(photographer.take(self.rng.randrange(self.homes), trim=self.rng.random() < 0.7))
        self._photographers.append(task)

    def _change_weather(self) -> None:
        self.net.faults = Faults.drawn(self.rng)

    # -- the end ------------------------------------------------------------------------------------------

    async def _calm_down(self) -> None:
        net = self.net
        net.faults = Faults()
        self.clock.heal()
        self.cluster.calm_down()
        # Homes still change hands, some wait for the broker, and nobody knows what is on its way.
        rest = max(net.landing_until, net.outage_until) - self.loop.time()
        await self.loop.after(max(rest, 0.0) + CALM_S)

    async def _drain(self, client: Client) -> None:
        await client.resume_all()
        await client.end_crons()
        until = self.loop.time() + DRAIN_S
        while self.loop.time() < until:
            claimable, rest = self._work()
            if not rest and not claimable and self.net.bulk_is_done():
                return
            await client.drain_once(claimable)
            await self.loop.after(DRAIN_STEP_S)

    def _work(self) -> tuple[set[str], bool]:
        """Queues with jobs that can be claimed, and whether there are others that will run."""
        claimable: set[str] = set()
        rest = False
        for name, content in self.net.store.data.items():
            kind, _, index = name.partition("}:")[2].partition(":")
            queue, _, state = index.rpartition(":")
            if kind == "state" and state == "available":
                claimable.add(queue)
            elif (
                kind == "held"
                or (kind == "state" and state in RUNNABLE)
                or (kind == "step" and b'"state":"pending"' in content)
            ):
                rest = True
        return claimable, rest

    def _all_answered(self, lines: list[Asked]) -> None:
        """A lost reply never makes a client wait for its deadline."""
        unanswered = [line for line in lines if line.answer in ("unknown", "not_written")]
        if unanswered:
            self.result.problems.append(f"nothing was wrong and {unanswered[0]} was not answered")

    async def _settle(self) -> None:
        """Until every home is at the end of its log and has sent everything."""
        until = self.loop.time() + QUIET_S
        while self.loop.time() < until:
            await asyncio.sleep(0.5)
            owners = {home: worker.engine.owners.get(home) for home, worker in self.cluster.assignment.items()}
            if (
                all(
                    owner is not None and owner.live and owner.next == len(self._log(home)) and not owner.unsent
                    for home, owner in owners.items()
                )
                and self.net.bulk_is_done()
                and not any("}:stage:" in name for name in self.net.store.data)
            ):
                return
        self.result.problems.append("the homes do not come to rest")

    def _photographs(self) -> None:
        """A snapshot may fail, but only because something was away."""
        for task in self._photographers:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                self.result.problems.append(f"a snapshot failed: {error!r}")

    def _leaks(self) -> None:
        """Owners that were closed must not go on sending."""
        for worker in self.cluster.alive:
            mine = {
                f"{lane}-{home}" for lane in ("events", "effects", "messages") for home in worker.engine.owners
            }
            lanes = [task.get_name() for task in worker.tasks if not task.done()]
            lanes = [name for name in lanes if name.split("-")[0] in ("events", "effects", "messages")]
            if len(lanes) != len(set(lanes)) or not set(lanes) <= mine:
                self.result.problems.append(f"{worker.name} owns {sorted(worker.engine.owners)} and runs {lanes}")

    def _log(self, home: int) -> list[Any]:
        return self.net.partition(f"{NAMESPACE}.commands", home)

    async def _dumps(self) -> list[dict[str, Any]]:
        return [await self.net.store.dump(home) for home in range(self.homes)]

    async def _audit(self) -> None:
        dumps = await self._dumps()
        logs = [list(self._log(home)) for home in range(self.homes)]
        self.result.requests = len(self.history.lines)
        self.result.records = sum(len(log) for log in logs)
        # What came to the log after the dump (a pulse) is not in it.
        applied = [int(dump["applied"]) for dump in dumps]
        topics = {**self.net.topics}
        for home in range(self.homes):
            topics[f"{NAMESPACE}.commands", home] = logs[home][: applied[home] + 1]
        audit = Audit(topics, dumps, self.history)
        self.result.problems += audit.run()
        if not self._clock_was_set:
            self.result.problems += audit.timely()
        await self._replay(topics, dumps)
        for entry in self._note:
            if entry["level"] in ("error", "exception", "critical") and not self._is_refusal(entry):
                self.result.problems.append(f"the product logged {entry}")

    def _is_refusal(self, entry: dict[str, Any]) -> bool:
        """An older worker says that it cannot read what a newer one has written."""
        return bool(self.newer_share) and "upgrade this worker" in entry.get("reason", "")

    async def _replay(self, topics: dict[Any, Any], dumps: list[dict[str, Any]]) -> None:
        for home in range(self.homes):
            store = MemoryStore(NAMESPACE)
            log = [(record.timestamp_ms, record.value) for record in topics[f"{NAMESPACE}.commands", home]]
            sizes = [self.rng.randint(1, 60) for _ in log]
            await replay(store, log, home, homes=self.homes, sizes=sizes)
            again, stored = await store.dump(home), dumps[home]
            # An older release that wrote last has not said what the newer one says of the home.
            again["home"] = again["home"].replace(NEWER_STATE, b"")
            stored["home"] = stored["home"].replace(NEWER_STATE, b"")
            for name in sorted(again.keys() | stored.keys()):
                have, want = stored.get(name), again.get(name)
                if have != want:
                    self.result.problems.append(f"home {home}: {name} is {have!r}, a replay gives {want!r}")


def simulate(seed: int, kind: type[Scenario] = Scenario) -> Result:
    """Run one seed; whatever goes wrong is a problem of its result."""
    scenario = kind(seed)
    # A collection in the middle costs time and, as the only thing in a run, comes when it likes.
    gc.disable()
    try:
        return scenario.run()
    except Exception as error:
        scenario.result.problems.append(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        return scenario.result
    finally:
        gc.enable()
