"""Workers on one log and one store: the real gateway, packers, engine, owners, outboxes, timers, retry agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any, TypeVar

import msgspec

from ojs_stream.agents.bulk import BulkAgent, Lookups, Ways
from ojs_stream.agents.engine import Engine
from ojs_stream.agents.owner import Owner, Wiring
from ojs_stream.agents.retry import RetryAgent
from ojs_stream.agents.work import Work
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import DEFAULT_RETENTION, CronRecord, HomeState, JobRecord, decode_record
from ojs_stream.core.validation import Rules
from ojs_stream.core.world import World
from ojs_stream.errors import UnavailableError
from ojs_stream.log.gateway import Gateway, PackBounds
from ojs_stream.log.reader import LogRecord
from ojs_stream.log.topics import Topics
from ojs_stream.store import keys
from ojs_stream.store.queue_reads import Standing
from ojs_stream.store.reads import Positions
from ojs_stream.timers.cron import CronTicker
from ojs_stream.timers.ticker import Ticker
from tests.simulation.intake import SimIntake
from tests.simulation.network import NAMESPACE, Link, Network, SimReader, SimSender, SimStore
from tests.simulation.releases import NEWER, TODAY, whose

T = TypeVar("T")
TICK_S = 0.2
DEADLINE_S = 4.0
_state_decoder = msgspec.json.Decoder(HomeState)
_outcome_decoder = msgspec.json.Decoder(Outcome)


def task_factory(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> Any:
    """Every task belongs to the worker whose code made it: it dies with it."""
    task = asyncio.Task(work, loop=loop, **options)
    worker = whose.get()
    if worker is not None:
        worker.tasks[task] = None
        task.add_done_callback(lambda done: worker.tasks.pop(done, None))
    return task


class SimWorker:
    """One process."""

    def __init__(self, name: str, cluster: Cluster, release: int) -> None:
        self.name = name
        self.cluster = cluster
        self.release = release
        self.skew_ms = 0
        """How much its clock differs from the others'."""
        self.tasks: dict[asyncio.Task[Any], None] = {}
        """In the order of their beginning, in which a crash ends them: a set has another order at each run."""
        self.link = Link(cluster.net)
        self.link.on_crash = self.crash
        self._deliveries: dict[int, list[asyncio.Task[Any]]] = {}
        self._inside(self._build)

    def _build(self) -> None:
        homes = self.cluster.homes
        self.store = SimStore(self.link)
        reader = SimReader(self.link)
        sender, outbox_sender = SimSender(self.link), SimSender(self.link)
        self.gateway = Gateway(
            instance=self.name,
            homes=homes,
            topic=f"{NAMESPACE}.commands",
            producer=sender,
            bounds=PackBounds(deadline_s=DEADLINE_S),
            host=self,
        )
        self.work = Work(homes, self._owner)
        self.positions = Positions(homes)
        for home in range(homes):
            self.positions.raise_to(home, len(self.cluster.net.partition(f"{NAMESPACE}.commands", home)) - 1)
        wiring = Wiring(
            store=self.store,
            namespace=NAMESPACE,
            homes=homes,
            topics=Topics(NAMESPACE),
            sender=outbox_sender,
            open_reader=reader.open,
            gateway=self.gateway,
            positions=self.positions,
            wake=self._wake,
            on_commit=self._on_commit,
            publish=self._publish,
        )
        self.engine = Engine(wiring, reader)
        self.retry_agent = RetryAgent(self.gateway.submit_pack)
        self.intake = SimIntake(self.link)
        self.bulk_agent = BulkAgent(
            homes=homes,
            rules=Rules(retention=DEFAULT_RETENTION, homes=homes),
            intake=self.intake,
            ways=Ways(self.gateway.submit_pack, self.gateway.is_busy, sender),
            lookups=Lookups(self._find, self._standings),
            topics=Topics(NAMESPACE),
        )
        timing: Any = {"owners": lambda: list(self.engine.owners.values()), "submit": self._submit_system}
        self.tickers = [Ticker("run", **timing), Ticker("reap", **timing), CronTicker(self._due_crons, **timing)]
        self.gateway.start()
        self.engine.start()
        self.spawn(self.retry_agent.run())
        self.spawn(self.bulk_agent.run())
        self.spawn(self._beat())

    # -- life ---------------------------------------------------------------------------------------------

    @property
    def dead(self) -> bool:
        """Whether it has crashed."""
        return self.link.dead

    def _inside(self, act: Callable[..., T], *arguments: Any) -> T:
        """Do it as code of this process: the tasks it makes are its own."""
        token = whose.set(self)
        try:
            return act(*arguments)
        finally:
            whose.reset(token)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run as a part of this process."""
        return self._inside(asyncio.get_running_loop().create_task, work)

    def crash(self) -> None:
        """SIGKILL: nothing of it runs any more, nothing it says is heard."""
        if not self.dead:
            self.link.dead = True
            for task in list(self.tasks):
                task.cancel()
            self.cluster.crashed(self)

    async def call(self, home: int, command: Any) -> Outcome:
        """A view: submit and wait. ``ConnectionError`` when the process dies under it."""
        if self.dead:
            raise ConnectionError("the worker is dead")
        task = self.spawn(self.gateway.submit(home, command))
        await asyncio.wait([task])
        if task.cancelled() or self.dead:
            raise ConnectionError("the worker died")
        return task.result()  # type: ignore[no-any-return]

    # -- wiring -------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        while True:
            await self.cluster.net.loop.after(TICK_S)
            for ticker in self.tickers:
                await ticker.run_once()

    def _owner(self, home: int) -> Owner | None:
        return self.engine.owners.get(home)

    def _wake(self) -> None:
        self.engine.wake()

    async def _submit_system(self, home: int, command: Any) -> Outcome:
        return await self.gateway.submit(home, command, gated=False)

    def appended(self, home: int, record: LogRecord) -> None:
        """See ``Host``."""
        self.engine.foresee(home, record)

    def _on_commit(self, owner: Owner, world: World) -> None:
        self.work.committed(owner, world)

    def _publish(self, instance: str, home: int, applied: int, replies: list[tuple[str, Outcome]]) -> None:
        self.spawn(self._publish_one(instance, home, applied, replies))

    async def _publish_one(
        self, instance: str, home: int, applied: int, replies: list[tuple[str, Outcome]]
    ) -> None:
        await self.link.step()
        other = self.cluster.worker(instance)
        net = self.cluster.net
        if other is None or other.dead or net.rng.random() < net.faults.reply_lost:
            return
        other.positions.raise_to(home, applied)
        for submit, outcome in replies:
            other.gateway.resolve(submit, outcome)
        other.gateway.applied(home, applied)

    def check(self, home: int) -> None:
        """The simulated Redis is slow or empty, never known to be away."""

    async def outcomes(self, late: list[tuple[int, str]]) -> list[Outcome | None]:
        """See ``Host``."""
        await self.link.step()
        data = self.cluster.net.store.data
        for home in sorted({home for home, _ in late}):
            applied = data.get(keys.applied(NAMESPACE, home))
            if applied is not None:
                self.gateway.applied(home, int(applied))
        found = [data.get(keys.outcome(NAMESPACE, home, submit)) for home, submit in late]
        return [None if each is None else _outcome_decoder.decode(each) for each in found]

    async def mark(self, destination: int, source: int) -> int:
        """See ``Host``."""
        owner = self.engine.owners.get(destination)
        if owner is not None and owner.live:
            return owner.state.marks.get(str(source), 0)
        await self.link.step()
        data = self.cluster.net.store.data.get(keys.home_state(NAMESPACE, destination))
        return 0 if data is None else _state_decoder.decode(data).marks.get(str(source), 0)

    # -- reads --------------------------------------------------------------------------------------------

    async def _read(self, home: int, key: tuple[str, ...]) -> Any:
        """A record, or ``None``; as the real reads do, not of a home whose store is behind or empty."""
        data = self.cluster.net.store.data
        applied = data.get(keys.applied(NAMESPACE, home))
        self.positions.check_not_refused(home)
        if applied is None or int(applied) < self.positions.floor(home):
            raise UnavailableError(f"simulated: home {home} is not up to date")
        found = data.get(keys.record(NAMESPACE, home, key))
        return found if found is None or not isinstance(found, bytes) else decode_record(key, found)

    async def _find(self, job_ids: list[str]) -> dict[str, tuple[int, JobRecord]]:
        """See ``FindJobs``."""
        await self.link.step()
        found: dict[str, tuple[int, JobRecord]] = {}
        for job_id in job_ids:
            for home in range(self.cluster.homes):
                record = await self._read(home, ("job", job_id))
                if isinstance(record, JobRecord):
                    found[job_id] = home, record
        return found

    async def _standings(self, queues: Sequence[str]) -> dict[str, Standing]:
        """No queue has a bound here."""
        await self.link.step()
        return {queue: Standing(0, None) for queue in queues}

    async def _due_crons(self, home: int, now_ms: int) -> list[CronRecord]:
        """See ``ReadDue``."""
        await self.link.step()
        due = await self._read(home, ("due", "cron")) or {}
        found = [
            await self._read(home, ("cron", m.removeprefix("cron:"))) for m, at in due.items() if at <= now_ms
        ]
        return [entry for entry in found if entry is not None]

    # -- the group ----------------------------------------------------------------------------------------

    def assign(self, homes: set[int]) -> None:
        """What Faust says: these partitions are yours. The bulk topic's go with them."""
        self.intake.assign(homes)
        self._inside(self.engine.assign, homes)
        for home in sorted(homes - self._deliveries.keys()):
            deliver = (self._deliver, self._deliver_retries)
            self._deliveries[home] = [self.spawn(one(home)) for one in deliver]

    def revoke(self, homes: set[int]) -> None:
        """What Faust says: these are yours no more."""
        self.intake.revoke(homes)
        for home in sorted(homes & self._deliveries.keys()):
            for task in self._deliveries.pop(home):
                task.cancel()
        self._inside(self.engine.revoke, homes)
        for home in homes:
            self.work.forget(home)

    async def _deliver(self, home: int) -> None:
        net = self.cluster.net
        topic = f"{NAMESPACE}.commands"
        log = net.partition(topic, home)
        # Faust's committed offset is a metric: it may be behind or ahead of what is applied.
        at = max(0, len(log) - net.rng.randint(0, 10)) if net.rng.random() < 0.5 else len(log)
        while True:
            await self.link.step()
            while at >= len(log):
                net.appended(topic, home).clear()
                await net.appended(topic, home).wait()
            if net.rng.random() < net.faults.delay:
                await net.loop.after(net.rng.uniform(0.1, 5.0))
            if net.rng.random() < net.faults.duplicate:
                at = max(0, at - net.rng.randint(1, 10))
            end = min(len(log), at + net.rng.randint(1, 30))
            if net.rng.random() >= net.faults.gap:
                for record in log[at:end]:
                    self.engine.offer(home, record)
            at = end

    async def _deliver_retries(self, home: int) -> None:
        net = self.cluster.net
        topic = f"{NAMESPACE}.retry"
        log = net.partition(topic, home)
        at = len(log)
        while True:
            await self.link.step()
            while at >= len(log):
                net.appended(topic, home).clear()
                await net.appended(topic, home).wait()
            for record in log[at:]:
                self.retry_agent.offer(home, record.value)
            at = len(log)


class Cluster:
    """The group: who lives, who owns what."""

    def __init__(self, net: Network, homes: int, size: int, newer_share: float = 0.0) -> None:
        self.net = net
        self.homes = homes
        self.workers: list[SimWorker] = []
        self.assignment: dict[int, SimWorker] = {}
        self._born = 0
        self.calm = False
        self.newer_share = newer_share
        """How many of the workers are of the newer release, about."""
        for _ in range(size):
            self.add()

    @property
    def rng(self) -> Random:
        """The dice of the run."""
        return self.net.rng

    @property
    def alive(self) -> list[SimWorker]:
        """Those that answer."""
        return [worker for worker in self.workers if not worker.dead]

    def add(self) -> SimWorker:
        """A new process."""
        self._born += 1
        mixed = 0.0 < self.newer_share < 1.0
        is_newer = self.rng.random() < self.newer_share if mixed else self.newer_share == 1.0
        worker = SimWorker(f"w{self._born}", self, NEWER if is_newer else TODAY)
        self.workers.append(worker)
        return worker

    def worker(self, name: str) -> SimWorker | None:
        """A process by its instance name."""
        return next((worker for worker in self.workers if worker.name == name), None)

    def crashed(self, worker: SimWorker) -> None:
        """The group notices after a while; a supervisor starts another."""
        loop = self.net.loop
        if not self.calm:
            loop.call_later(self.rng.uniform(0.1, 1.0), self._add_another)
            loop.call_later(self.rng.uniform(0.2, 4.0), self.rebalance)

    def _add_another(self) -> None:
        if not self.calm:
            self.add()

    def calm_down(self) -> None:
        """Bad luck ends: everybody knows who owns what, and nobody else joins or leaves."""
        for worker in self.workers:
            worker.link.steps_left = -1
            worker.link.frozen_until = min(worker.link.frozen_until, self.net.loop.time())
            worker.skew_ms = 0
        if self.newer_share:
            self._finish_upgrade()
        if not self.alive:
            self.add()
        self.rebalance()
        self.calm = True

    def _finish_upgrade(self) -> None:
        """The last workers of the older release end: what they have refused is folded by the others."""
        self.newer_share = 1.0
        for worker in self.alive:
            if worker.release == TODAY:
                worker.crash()

    def rebalance(self, *, zombies: bool = False) -> None:
        """Every home to one living worker. ``zombies``: the old owners learn of it late and go on."""
        if self.calm:
            return
        if not self.alive:
            self.net.loop.call_later(0.2, self.rebalance)
            return
        for home in range(self.homes):
            before, after = self.assignment.get(home), self.rng.choice(self.alive)
            if before is after:
                continue
            self.assignment[home] = after
            if before is not None and not before.dead:
                wait = self.rng.uniform(0.5, 5.0) if zombies else self.rng.uniform(0.0, 0.05)
                self.net.loop.call_later(wait, self._revoke, before, home)
            if after.dead:
                continue
            self.net.loop.call_later(self.rng.uniform(0.0, 0.3), self._assign, after, home)

    def give(self, home: int, worker: SimWorker) -> None:
        """The home is this worker's from now on."""
        self.assignment[home] = worker
        worker.assign({home})

    def _revoke(self, worker: SimWorker, home: int) -> None:
        if not worker.dead and self.assignment.get(home) is not worker:
            worker.revoke({home})

    def _assign(self, worker: SimWorker, home: int) -> None:
        if not worker.dead and self.assignment.get(home) is worker:
            worker.assign({home})
