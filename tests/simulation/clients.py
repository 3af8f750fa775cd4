"""Simulated clients: they ask, and write down what they asked and what they were told."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import Any

from msgspec import Raw, structs

from ojs_stream import stamp
from ojs_stream.core.commands import (
    Ack,
    Activate,
    Beat,
    Bulk,
    Cancel,
    CancelWorkflow,
    Claim,
    DeleteCron,
    DeleteDead,
    Enqueue,
    Extend,
    GiveBack,
    Nack,
    NewJob,
    Pause,
    PutCron,
    Reprioritize,
    Resume,
    RetryDead,
    RetryJob,
    StartWorkflow,
    SwitchCron,
    TriggerCron,
)
from ojs_stream.core.homes import home_in_id, home_of
from ojs_stream.core.limits import limit_home
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import LimitRule, Retention, UniqueRule, Window
from ojs_stream.core.retry import RetryPolicy
from ojs_stream.core.unique import DEFAULT_STATES, deciding_home
from ojs_stream.errors import UnavailableError
from ojs_stream.log.producer import Record
from ojs_stream.timers.instants import Schedule, next_instant
from tests.simulation.cluster import Cluster
from tests.simulation.flows import draw
from tests.simulation.history import ARGS, Asked, Bound, History
from tests.simulation.network import NAMESPACE
from tests.simulation.releases import NEWER, Touch

QUEUES = ("alpha", "beta", "gamma", "delta")
DAY = 86_400_000
LIMITS = {"thin": Bound(1, 0, 0), "wide": Bound(3, 0, 0), "slow": Bound(0, 3, 1_000)}
CRONS = ("tick", "tock")
CRON_WEIGHT = 3


class Client:
    """Asks one thing after another, of any worker."""

    def __init__(self, cluster: Cluster, history: History, rng: Random) -> None:
        self._cluster = cluster
        self._history = history
        self._rng = rng
        self._held: list[tuple[str, str]] = []
        """(job id, worker id) of what it has claimed"""

    async def run(self, requests: int) -> None:
        """Any requests, with pauses."""
        weighted = [
            (self.enqueue, 30),
            (self.claim, 25),
            (self.finish, 30),
            (self.cancel, 4),
            (self.retry_dead, 5),
            (self.activate, 2),
            (self.beat, 4),
            (self.pause, 1),
            (self.start_workflow, 6),
            (self.cancel_workflow, 1),
            (self.reprioritize, 2),
            (self.retry_job, 2),
            (self.change_many, 2),
            (self.delete_dead, 1),
            (self.produce_to_bulk, 3),
            *((act, 14) for act in (self.touch,) if self._cluster.newer_share),
            *((act, CRON_WEIGHT) for act in (self.put_cron, self.trigger_cron) if self._history.crons),
            *((act, 1) for act in (self.switch_cron, self.delete_cron) if self._history.crons),
        ]
        acts = [act for act, weight in weighted for _ in range(weight)]
        for _ in range(requests):
            await asyncio.sleep(self._rng.expovariate(8.0))
            await self._rng.choice(acts)()

    async def ask(self, kind: str, home: int, command: Any, *, release: int = 0, **fields: Any) -> Asked:
        """Submit and write down. ``release``: of a worker of that release."""
        line = Asked(kind, fields.pop("tag", ""), self._cluster.net.loop.time(), fields)
        self._history.lines.append(line)
        workers = [worker for worker in self._cluster.alive if release in (0, worker.release)]
        if not workers:
            line.answer = "not_written"
            await asyncio.sleep(0.2)
            return line
        try:
            outcome: Outcome = await self._rng.choice(workers).call(home, command)
        except UnavailableError as error:
            line.answer, line.code = "unknown" if error.unknown else "not_written", str(error)
        except ConnectionError:
            pass
        else:
            line.answer = "refused" if outcome.refused else "ok"
            line.code = outcome.code
            line.jobs = [json.loads(bytes(each)) for each in outcome.jobs]
            line.data = outcome.data
        return line

    # -- requests -----------------------------------------------------------------------------------------

    def _new(self, queue: str, clients: float = 0.3) -> NewJob:
        rng, homes = self._rng, self._cluster.homes
        number = next(self._history.ids)
        by_client = rng.random() < clients
        home = home_of(queue, homes)
        job_id = (
            f"0197f0a0-1111-7000-9000-{number:012x}"
            if by_client
            else f"0197f0a0-0000-7000-8000-{number:09x}{home:03x}"
        )
        self._history.home[job_id] = home
        return NewJob(
            id=job_id,
            type="sim.job",
            queue=queue,
            args=Raw(ARGS),
            meta=Raw(b"{}"),
            priority=rng.choice((0, 0, 0, 5)),
            retry=RetryPolicy(
                max_attempts=rng.choice((1, 2, 4)),
                initial_ms=rng.choice((1, 500, 2_000)),
                coefficient=2.0,
                max_ms=4_000,
                jitter=rng.random() < 0.5,
                strategy="exponential",
                on_exhaustion="dead_letter" if rng.random() < 0.7 else "discard",
            ),
            retention=Retention(*[100 * DAY] * 4),
            timeout_ms=rng.choice((3_000, 10_000)),
            visibility_timeout_ms=rng.choice((1_500, 5_000)),
            client_id=by_client,
            pending=rng.random() < 0.05,
            delay_ms=rng.choice((0, 0, 0, 0, 300, 3_000)),
            expires_in_ms=rng.choice((0, 0, 0, 0, 0, 0, 2_000)),
            limit=self._limit(),
        )

    def _limit(self) -> LimitRule | None:
        """One of a few limits, for some jobs."""
        rng = self._rng
        if rng.random() < 0.85:
            return None
        key = rng.choice(list(LIMITS))
        bound = self._history.limits[key] = LIMITS[key]
        return LimitRule(
            key=key,
            home=limit_home(key, self._cluster.homes),
            concurrency=bound.concurrency or None,
            rate=Window(bound.starts, bound.period_ms) if bound.starts else None,
            on_limit=rng.choice(("wait", "wait", "wait", "reschedule", "drop")),
        )

    def _home(self, job_id: str) -> int:
        """Where its queue was at first."""
        known = self._history.home.get(job_id)
        return home_in_id(job_id) if known is None else known

    def _unique(self, *, alone: bool) -> UniqueRule | None:
        """A rule for one of a few fingerprints, for some jobs. In a batch it rejects: all or none."""
        if self._rng.random() < 0.8:
            return None
        key = self._rng.choice(("red", "green", "blue"))
        conflicts = ("reject", "ignore", "replace", "replace_except_schedule") if alone else ("reject",)
        home = home_of(key, self._cluster.homes)
        conflict = self._rng.choice(conflicts)
        return UniqueRule(key=key, home=home, states=DEFAULT_STATES, on_conflict=conflict)  # type: ignore[arg-type]

    async def enqueue(self) -> None:
        """One job or a batch over several queues."""
        count = self._rng.choice((1, 1, 1, 2, 5))
        jobs = tuple(
            structs.replace(self._new(self._rng.choice(QUEUES)), unique=self._unique(alone=count == 1))
            for _ in range(count)
        )
        chosen = [job.id for job in jobs if job.client_id]
        home = deciding_home(jobs, self._cluster.homes)
        command = Enqueue(v=1, actor="sim", jobs=jobs, batch=count > 1)
        ids = [job.id for job in jobs]
        rules = [[job.unique.key, job.unique.on_conflict] for job in jobs if job.unique is not None]
        lines = [await self.ask("enqueue", home, command, ids=ids, unique=rules)]
        if lines[0].answer in ("unknown", "not_written") and chosen and self._rng.random() < 0.7:
            # With ids of its own a client may simply ask again.
            lines.append(await self.ask("enqueue", home, command, ids=ids, unique=rules))
        if any(line.jobs == [None] for line in lines):
            # Another job is there already, or takes the contents of this one; one that began to run is replaced.
            for line in lines:
                line.fields["ids"] = []

    async def claim(self) -> None:
        """Some jobs of one home's queues."""
        first = self._rng.choice(QUEUES)
        home = home_of(first, self._cluster.homes)
        queues = tuple(dict.fromkeys([first, *[q for q in QUEUES if home_of(q, self._cluster.homes) == home]]))
        tag = self._history.tag()
        command = Claim(v=1, actor="sim", queues=queues, count=self._rng.choice((1, 1, 3)), worker_id=tag)
        line = await self.ask("claim", home, command, tag=tag)
        self._held.extend((str(job["id"]), tag) for job in line.jobs)

    async def finish(self) -> None:
        """Do something with a job it holds."""
        if not self._held:
            await self.claim()
        if not self._held:
            return
        job_id, worker_id = self._held.pop(self._rng.randrange(len(self._held)))
        await self._rng.choice((self._ack, self._ack, self._ack, self._nack, self._nack, self._keep, self._back))(
            job_id, worker_id
        )

    async def _ack(self, job_id: str, worker_id: str) -> None:
        tag = self._history.tag()
        command = Ack(v=1, actor="sim", job_id=job_id, worker_id=worker_id, result=Raw(f'"{tag}"'.encode()))
        line = await self.ask("ack", self._home(job_id), command, tag=tag, job_id=job_id)
        if line.answer in ("unknown", "not_written"):
            self._held.append((job_id, worker_id))

    async def _nack(self, job_id: str, worker_id: str) -> None:
        tag = self._history.tag()
        code = self._rng.choice(("handler_error", "handler_error", "DEAD_LETTER", "DISCARD"))
        command = Nack(
            v=1,
            actor="sim",
            job_id=job_id,
            code=code,
            type="Boom",
            message=tag,
            dice=self._rng.random(),
            worker_id=worker_id,
            requeue=self._rng.random() < 0.1,
        )
        fields = {"job_id": job_id, "requeue": command.requeue, "code": code}
        await self.ask("nack", self._home(job_id), command, tag=tag, **fields)

    async def _keep(self, job_id: str, worker_id: str) -> None:
        command = Extend(v=1, actor="sim", worker_id=worker_id, job_ids=(job_id,))
        await self.ask("extend", self._home(job_id), command, job_id=job_id)
        self._held.append((job_id, worker_id))

    async def _back(self, job_id: str, worker_id: str) -> None:
        command = GiveBack(v=1, actor="sim", worker_id=worker_id, job_ids=(job_id,))
        await self.ask("give_back", self._home(job_id), command, job_id=job_id)

    async def cancel(self) -> None:
        """Any job."""
        if self._history.home:
            job_id = self._rng.choice(list(self._history.home))
            tag = self._history.tag()
            command = Cancel(v=1, actor="sim", job_id=job_id, reason=tag)
            await self.ask("cancel", self._home(job_id), command, tag=tag, job_id=job_id)

    async def retry_dead(self) -> None:
        """Any job; sometimes it is a dead letter indeed. Sometimes into a queue of another home."""
        dead = [line.fields["job_id"] for line in self._history.lines if line.fields.get("code") == "DEAD_LETTER"]
        if dead:
            job_id = self._rng.choice(dead)
            queue = self._rng.choice(("", "", *QUEUES))
            command = RetryDead(v=1, actor="sim", job_id=job_id, queue=queue)
            await self.ask("retry_dead", self._home(job_id), command, job_id=job_id)

    async def start_workflow(self) -> None:
        """Any kind, over several queues. Its jobs have the server's ids; a pending one would never end."""
        rng, homes = self._rng, self._cluster.homes
        drawn = draw(rng, lambda: structs.replace(self._new(rng.choice(QUEUES), clients=0.0), pending=False))
        home = home_of(next(step.job.queue for step in drawn.steps if step.job), homes)
        name = f"0197f0a0-2222-7000-8000-{next(self._history.ids):09x}{home:03x}"
        self._history.workflows[name] = drawn
        command = StartWorkflow(
            v=1,
            actor="sim",
            id=name,
            name="sim",
            flow=drawn.flow,
            steps=drawn.steps,
            retention=Retention(*[100 * DAY] * 4),
        )
        await self.ask("start_workflow", home, command, tag=name)

    async def cancel_workflow(self) -> None:
        """Any workflow."""
        if self._history.workflows:
            name = self._rng.choice(list(self._history.workflows))
            command = CancelWorkflow(v=1, actor="sim", id=name)
            await self.ask("cancel_workflow", home_in_id(name), command, tag=name)

    async def activate(self) -> None:
        """Any job; sometimes it is pending indeed."""
        if self._history.home:
            job_id = self._rng.choice(list(self._history.home))
            command = Activate(v=1, actor="sim", job_id=job_id)
            await self.ask("activate", self._home(job_id), command, job_id=job_id)

    async def beat(self) -> None:
        """A worker says that it lives, and soon nothing more: its leases go back."""
        if self._held:
            worker_id = self._rng.choice(self._held)[1]
            command = Beat(v=1, actor="sim", worker_id=worker_id, dead_after_ms=3_000)
            await self.ask("beat", home_of(worker_id, self._cluster.homes), command, worker_id=worker_id)

    async def pause(self) -> None:
        """A queue rests for a while."""
        queue = self._rng.choice(QUEUES)
        home = home_of(queue, self._cluster.homes)
        tag = self._history.tag()
        await self.ask("pause", home, Pause(v=1, actor=tag, queue=queue), tag=tag, queue=queue)
        await asyncio.sleep(self._rng.random())
        await self._resume(queue)

    async def _resume(self, queue: str) -> None:
        tag = self._history.tag()
        home = home_of(queue, self._cluster.homes)
        await self.ask("resume", home, Resume(v=1, actor=tag, queue=queue), tag=tag, queue=queue)

    # -- operators ----------------------------------------------------------------------------------------

    def _any_job(self) -> str:
        return self._rng.choice(list(self._history.home))

    async def reprioritize(self) -> None:
        """Any job; it may wait."""
        if self._history.home:
            job_id = self._any_job()
            command = Reprioritize(v=1, actor="sim", job_id=job_id, priority=self._rng.choice((0, 5, 9)))
            await self.ask("reprioritize", self._home(job_id), command, job_id=job_id)

    async def retry_job(self) -> None:
        """Any job; it may have ended."""
        if self._history.home:
            job_id = self._any_job()
            command = RetryJob(v=1, actor="sim", job_id=job_id)
            await self.ask("retry_job", self._home(job_id), command, job_id=job_id)

    async def change_many(self) -> None:
        """Some jobs of one home."""
        home = self._rng.randrange(self._cluster.homes)
        ids = [job_id for job_id in self._history.home if self._home(job_id) == home]
        if not ids:
            return
        chosen = tuple(self._rng.sample(ids, min(len(ids), 4)))
        action, states = self._rng.choice(
            (
                ("cancel", ("available", "scheduled", "retryable")),
                ("retry", ("discarded", "cancelled", "retryable")),
                ("delete", ("completed", "cancelled", "discarded")),
            )
        )
        tag = self._history.tag()
        command = Bulk(v=1, actor="sim", action=action, job_ids=chosen, states=states, reason=tag)  # type: ignore[arg-type]
        await self.ask("bulk", home, command, tag=tag, ids=list(chosen), action=action)

    async def delete_dead(self) -> None:
        """Any job; it may be a dead letter."""
        if self._history.home:
            job_id = self._any_job()
            command = DeleteDead(v=1, actor="sim", job_id=job_id)
            await self.ask("delete_dead", self._home(job_id), command, job_id=job_id)

    # -- cron ---------------------------------------------------------------------------------------------

    def _cron(self) -> tuple[str, int]:
        name = self._rng.choice(list(self._history.crons))
        return name, home_of(name, self._cluster.homes)

    async def put_cron(self) -> None:
        """Register an entry, or once more, or with another schedule."""
        name, home = self._cron()
        expression, now = f"@every {self._rng.choice((1, 1, 2))}s", stamp.now_ms()
        first = next_instant(Schedule(expression, "UTC", now), now)
        assert first is not None
        command = PutCron(
            v=1,
            actor="sim",
            name=name,
            expression=expression,
            timezone="UTC",
            overlap=self._history.crons[name],  # type: ignore[arg-type]
            job=structs.replace(self._new(self._rng.choice(QUEUES), clients=0.0), pending=False, limit=None),
            template=Raw(b"{}"),
            anchor=now,
            next_at=first,
        )
        await self.ask("put_cron", home, command, name=name)

    async def switch_cron(self) -> None:
        """No more runs for now."""
        name, home = self._cron()
        await self.ask("switch_cron", home, SwitchCron(v=1, actor="sim", name=name, enabled=False), name=name)

    async def delete_cron(self) -> None:
        """Forget an entry."""
        name, home = self._cron()
        await self.ask("delete_cron", home, DeleteCron(v=1, actor="sim", name=name), name=name)

    async def trigger_cron(self) -> None:
        """A run by hand."""
        name, home = self._cron()
        await self.ask("trigger_cron", home, TriggerCron(v=1, actor="sim", name=name), name=name)

    # -- of the newer release -----------------------------------------------------------------------------

    async def touch(self) -> None:
        """What an older worker does not know."""
        queue, tag = self._rng.choice(QUEUES), self._history.tag()
        far = self._rng.random() < 0.3
        command = Touch(v=NEWER, actor="sim", queue=queue, tag=tag, far=far)
        home = home_of(queue, self._cluster.homes)
        await self.ask("touch", home, command, release=NEWER, tag=tag, far=far)

    # -- without a server ---------------------------------------------------------------------------------

    async def produce_to_bulk(self) -> None:
        """Records for the bulk topic, as any Kafka client writes them; some can be no job."""
        partition = self._rng.randrange(self._cluster.homes)
        records = [Record(None, self._envelope(), []) for _ in range(self._rng.randint(1, 6))]
        self._cluster.net.land(f"{NAMESPACE}.commands.bulk", partition, records)

    def _envelope(self) -> bytes:
        mark = f"b{next(self._history.ids)}"
        good = self._history.bulk[mark] = self._rng.random() < 0.9
        queue = self._rng.choice(QUEUES)
        body: dict[str, Any] = {
            "type": "sim.bulk" if good else "",
            "queue": queue,
            "args": json.loads(ARGS),
            "meta": {"mark": mark},
            "visibility_timeout_ms": 2_000,
        }
        if self._rng.random() < 0.3:
            body["id"] = f"0197f0a0-3333-7000-9000-{next(self._history.ids):012x}"
            self._history.bulk_ids[mark] = body["id"]
            self._history.home[body["id"]] = home_of(queue, self._cluster.homes)
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()

    # -- at the end ---------------------------------------------------------------------------------------

    async def resume_all(self) -> None:
        """Whoever has paused a queue may never have come to end it."""
        for queue in QUEUES:
            await self._resume(queue)

    async def end_crons(self) -> None:
        """Nothing fires any more."""
        for name in self._history.crons:
            home = home_of(name, self._cluster.homes)
            await self.ask("delete_cron", home, DeleteCron(v=1, actor="sim", name=name), name=name)

    async def drain_once(self, queues: set[str]) -> None:
        """Claim from some queues and ack what comes."""
        for queue in sorted(queues):
            home = home_of(queue, self._cluster.homes)
            tag = self._history.tag()
            command = Claim(v=1, actor="sim", queues=(queue,), count=50, worker_id=tag)
            line = await self.ask("claim", home, command, tag=tag)
            for job in line.jobs:
                await self._ack(str(job["id"]), tag)
