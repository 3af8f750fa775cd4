"""One worker, put together: producer, store, owners, gateway, timers, views. Faust only starts and stops it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import msgspec
import structlog
from aiohttp import web
from redis.exceptions import RedisError

from ojs_stream import __version__, stamp
from ojs_stream.agents.bulk import BulkAgent, Lookups, Ways
from ojs_stream.agents.delivery import Pace
from ojs_stream.agents.engine import Engine
from ojs_stream.agents.hangs import LOOK_S as HANG_LOOK_S
from ojs_stream.agents.hangs import Hang, Hangs
from ojs_stream.agents.mirrors import Mirrors
from ojs_stream.agents.owner import Owner, Wiring
from ojs_stream.agents.positions import positions_of
from ojs_stream.agents.retry import RetryAgent
from ojs_stream.agents.snapshotter import Rule, Snapshotter, last_of, make_by, snapshot_argv
from ojs_stream.agents.work import Work
from ojs_stream.core.outcomes import Outcome
from ojs_stream.core.records import HomeState
from ojs_stream.core.validation import Rules
from ojs_stream.core.world import NumberedEvent, World
from ojs_stream.errors import UnavailableError
from ojs_stream.forever import forever
from ojs_stream.log.beginning import begin_log
from ojs_stream.log.gateway import STALLED_S, Gateway, PackBounds
from ojs_stream.log.intake import BulkIntake
from ojs_stream.log.producer import LogProducer
from ojs_stream.log.reader import LogEnds, LogReader, LogRecord
from ojs_stream.log.tail import TopicTail
from ojs_stream.log.topics import Topics, declare, declare_mirrors
from ojs_stream.settings import Settings
from ojs_stream.store import keys
from ojs_stream.store.census import Census
from ojs_stream.store.connections import IO_TIMEOUT_S, open_reads, open_redis
from ojs_stream.store.queries import Queries
from ojs_stream.store.reads import Positions, Reads
from ojs_stream.store.redis import RedisStore
from ojs_stream.store.watch import RedisWatch
from ojs_stream.telemetry.facts import ProducerFacts, WorkerFacts
from ojs_stream.telemetry.jobs import JobMeters
from ojs_stream.telemetry.loop import LoopMeter
from ojs_stream.telemetry.meters import WebMeter
from ojs_stream.timers.cron import CronTicker
from ojs_stream.timers.ticker import Ticker
from ojs_stream.web import parser_errors
from ojs_stream.web.context import Context, Limits
from ojs_stream.web.hub import Hub
from ojs_stream.web.routes import setup

log = structlog.get_logger(__name__)

START_WAIT_S = 60.0
"""How long a start waits for Kafka: it may be starting just now, as we are."""
DRAIN_S = 10.0
MIRROR_WAIT_S = 10.0
REDIS_WATCH_S = 0.5
EXIT_HANG = 70
"""The exit code of a worker that believes it hangs."""
_outcome_decoder = msgspec.json.Decoder(Outcome)
_state_decoder = msgspec.json.Decoder(HomeState)


class Replies(msgspec.Struct, frozen=True):
    """What one worker publishes for another after a round."""

    home: int
    applied: int
    replies: list[tuple[str, Outcome]]


_replies_decoder = msgspec.json.Decoder(Replies)
_encoder = msgspec.json.Encoder()


class Runtime:
    """Everything of a worker that is not Faust."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = Topics(settings.namespace)
        self.instance = stamp.new_token()
        self.homes = 0
        self.assigned_once = False
        self._opened = False
        self.pace = Pace()
        self.loop_meter, self.job_meters, self.web_meter = LoopMeter(), JobMeters(), WebMeter()
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- start --------------------------------------------------------------------------------------------

    async def open(self, app: web.Application) -> None:
        """Connect, declare, build; after this the consumer and the web server may start."""
        settings = self.settings
        for warning in settings.warnings():
            log.warning(warning)
        bootstrap = settings.kafka
        self.redis = open_redis(settings.redis_url)
        self.redis_watch = RedisWatch(self.redis)
        await self.redis_watch.begin()
        self.homes = await declare(bootstrap, self.topics, partitions=settings.partitions, wait_s=START_WAIT_S)
        self.producer = LogProducer(bootstrap, client_id=f"{settings.namespace}-{self.instance}")
        self.outbox_producer = LogProducer(bootstrap, client_id=f"{settings.namespace}-outbox-{self.instance}")
        self.mirror_producer = LogProducer(bootstrap, client_id=f"{settings.namespace}-mirror-{self.instance}")
        await self.producer.start()
        await self.outbox_producer.start()
        self.read_redis = open_reads(settings.redis_url)
        self.store = RedisStore(self.redis, settings.namespace)
        self.positions = Positions(self.homes)
        self.ends = LogEnds(bootstrap, self.topics.commands)
        await self._begin_log()
        self._build()
        await self._start(app)
        self._opened = True

    async def _begin_log(self) -> None:
        """An empty partition gets its genesis; nothing older than the log's end now may be read."""
        ends = await self.ends.end_offsets(range(self.homes))
        for home, end in ends.items():
            if end == 0:
                await begin_log(self.producer, self.topics.commands, home, homes=self.homes)
            self.positions.raise_to(home, max(end - 1, 0))

    def _build(self) -> None:
        settings = self.settings
        self.gateway = Gateway(
            instance=self.instance,
            homes=self.homes,
            topic=self.topics.commands,
            producer=self.producer,
            bounds=PackBounds(
                deadline_s=settings.request_deadline_ms / 1000,
                waiting_commands_max=settings.packer_commands_max,
                waiting_bytes_max=settings.packer_bytes_max,
                pack_commands_max=settings.pack_commands_max,
                pack_bytes_max=settings.pack_bytes_max,
                packs_in_flight_max=settings.packs_in_flight,
            ),
            host=self,
        )
        self.work = Work(self.homes, self._owner)
        self.mirrors = Mirrors(
            self.topics, self.mirror_producer, self._declare_mirrors, key_is_queue=settings.kafka_use_queue_key
        )
        wiring = Wiring(
            store=self.store,
            namespace=settings.namespace,
            homes=self.homes,
            topics=self.topics,
            sender=self.outbox_producer,
            open_reader=lambda: LogReader.open(settings.kafka),
            gateway=self.gateway,
            positions=self.positions,
            wake=self._wake,
            on_commit=self._on_commit,
            on_event=self._on_event,
            publish=self._publish,
        )
        self.engine = Engine(wiring, self.ends)
        self.hangs = Hangs(
            owners=lambda: list(self.engine.owners.values()),
            ends=self.ends,
            outage=self._outage,
            give_up=self._give_up,
            limit_s=settings.hang_s,
        )
        self.retry_agent = RetryAgent(self.gateway.submit_pack)
        reads = Reads(self.read_redis, namespace=settings.namespace, homes=self.homes, positions=self.positions)
        self.queries, self.census = Queries(reads), Census(reads)
        self.hub = Hub(
            lambda: TopicTail(settings.kafka, self.topics.events, self.homes),
            streams_max=settings.streams_max,
        )
        self.bulk_intake = BulkIntake(
            settings.kafka,
            self.topics,
            session_timeout_s=settings.session_timeout_s,
            heartbeat_s=settings.heartbeat_s,
        )
        self.bulk_agent = BulkAgent(
            homes=self.homes,
            rules=self.rules(),
            intake=self.bulk_intake,
            ways=Ways(self.gateway.submit_pack, self.gateway.is_busy, self.producer),
            lookups=Lookups(self.queries.jobs, self.queries.queues.standings),
            topics=self.topics,
        )
        self.snapshotter = Snapshotter(
            self.engine.owners.values,
            Rule(settings.snapshot_every_ms, settings.snapshot_commands),
            lambda home: last_of(settings.kafka, self.topics, home),
            lambda home: make_by(snapshot_argv(home, trim=settings.log_trim)),
        )
        self.scheduler = self._ticker("run")
        self.reaper = self._ticker("reap")
        self.cron = CronTicker(
            self.queries.crons.due,
            owners=lambda: list(self.engine.owners.values()),
            submit=self._submit_system,
        )

    def rules(self) -> Rules:
        """What a job may be, for the bulk agent as for the views."""
        settings = self.settings
        return Rules(
            retention=settings.retention,
            homes=self.homes,
            meta_bytes_max=settings.meta_bytes_max,
            json_depth_max=settings.json_depth_max,
            batch_jobs_max=settings.batch_jobs_max,
        )

    def _ticker(self, index: Any) -> Ticker:
        return Ticker(
            index,
            owners=lambda: list(self.engine.owners.values()),
            submit=self._submit_system,
        )

    async def _start(self, app: web.Application) -> None:
        if self.settings.kafka_queue_topics:
            await self.mirror_producer.start()
        parser_errors.install(connections_max=self.settings.connections_max)
        setup(app, self.context())
        self.gateway.start()
        self.engine.start()
        self._spawn_forever(self.loop_meter.run_once, "loop-lag")
        self._spawn_forever(self._listen, "replies")
        self._spawn_forever(self._watch_redis, "redis-watch")
        self._spawn_forever(self._look_for_hangs, "hangs")
        self._spawn_forever(self.retry_agent.run, "retry-agent")
        self._spawn_forever(self.bulk_agent.run, "bulk-agent")
        if self.settings.snapshot_every_ms or self.settings.snapshot_commands:
            self._spawn_forever(self.snapshotter.run, "snapshotter")

    def _spawn_forever(self, step: Callable[[], Awaitable[Any]], name: str) -> None:
        self._spawn(forever(name, step), name)

    def _spawn(self, work: Awaitable[Any], name: str) -> None:
        task = asyncio.ensure_future(work)
        if isinstance(task, asyncio.Task):
            task.set_name(name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def context(self) -> Context:
        """What views may use."""
        settings = self.settings
        return Context(
            gateway=self.gateway,
            queries=self.queries,
            hub=self.hub,
            homes=self.homes,
            namespace=settings.namespace,
            retention=settings.retention,
            limits=Limits(
                body_bytes_max=settings.body_bytes_max,
                batch_jobs_max=settings.batch_jobs_max,
                json_depth_max=settings.json_depth_max,
                meta_bytes_max=settings.meta_bytes_max,
                result_bytes_max=settings.result_bytes_max,
            ),
            test_mode=settings.test_mode,
            started_ms=stamp.now_ms(),
            ready=self.ready,
            backend_ms=self._backend_ms,
            meter=self.web_meter,
            facts=self.facts,
            hint=self.work.hint,
            wait_for_work=self.work.wait,
        )

    # -- stop ---------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Refuse new requests, answer those in flight, send what is in the outboxes."""
        if not self._opened:
            return
        log.info("draining")
        await self.hub.close()
        await self.gateway.drain(DRAIN_S)
        until = asyncio.get_running_loop().time() + DRAIN_S
        while self._unsent() and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.01)

    def _unsent(self) -> int:
        return sum(owner.unsent for owner in self.engine.owners.values())

    async def close(self) -> None:
        """Give up the homes and disconnect."""
        if not self._opened:
            return
        self._opened = False
        await self.engine.stop()
        self.gateway.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.bulk_intake.stop()
        await self.ends.stop()
        await self.mirror_producer.stop(2.0)
        await self.outbox_producer.stop(5.0)
        await self.producer.stop(5.0)
        await self.read_redis.aclose()
        await self.redis.aclose()

    # -- from Faust ---------------------------------------------------------------------------------------

    def assigned(self, homes: set[int]) -> None:
        """The partitions of the command topic that are ours from now on."""
        self.assigned_once = True
        self.revoked(set(self.engine.owners) - homes)
        self.engine.assign(homes)

    def revoked(self, homes: set[int]) -> None:
        """Partitions that are ours no more."""
        self.engine.revoke(homes)
        for home in homes:
            self.work.forget(home)

    def offer(self, home: int, record: LogRecord) -> None:
        """A live record of the command topic."""
        if self.engine.offer(home, record):
            self.pace.news()

    # -- hooks --------------------------------------------------------------------------------------------

    def _owner(self, home: int) -> Owner | None:
        return self.engine.owners.get(home)

    def _wake(self) -> None:
        self.engine.wake()

    def appended(self, home: int, record: LogRecord) -> None:
        """For the gateway: a pack of this worker is in the log."""
        self.engine.foresee(home, record)

    def _on_commit(self, owner: Owner, world: World) -> None:
        self.work.committed(owner, world)

    def _on_event(self, event: NumberedEvent) -> None:
        self.job_meters.on_event(event)
        if self.settings.kafka_queue_topics:
            self.mirrors.on_event(event)

    async def _submit_system(self, home: int, command: Any) -> Outcome:
        return await self.gateway.submit(home, command, gated=False)

    async def _declare_mirrors(self, names: Any) -> None:
        await declare_mirrors(self.settings.kafka, names, wait_s=MIRROR_WAIT_S)

    def _publish(self, instance: str, home: int, applied: int, replies: list[tuple[str, Outcome]]) -> None:
        message = _encoder.encode(Replies(home, applied, replies))
        self._spawn(self._publish_one(keys.replies(self.settings.namespace, instance), message), "publish")

    async def _publish_one(self, channel: str, message: bytes) -> None:
        try:
            await self.redis.publish(channel, message)
        except (RedisError, OSError, TimeoutError) as error:
            # The outcome is stored beside the records: the other worker will poll it.
            log.info("a reply was not published", channel=channel, reason=str(error))

    async def _listen(self) -> None:
        """Outcomes that other workers' rounds produced for views of this one."""
        channel = keys.replies(self.settings.namespace, self.instance)
        try:
            async with self.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                await pubsub.subscribe(channel)
                while True:
                    message = await pubsub.get_message(timeout=1.0)
                    if message is not None:
                        self._take_replies(message["data"])
        except (RedisError, OSError, TimeoutError) as error:
            log.info("replies are polled until Redis is back", reason=str(error))
            await asyncio.sleep(0.5)

    def _take_replies(self, data: bytes) -> None:
        message = _replies_decoder.decode(data)
        self.positions.raise_to(message.home, message.applied)
        for submit, outcome in message.replies:
            self.gateway.resolve(submit, outcome)
        self.gateway.applied(message.home, message.applied)

    def check(self, home: int) -> None:
        """For the gateway: a refused home and a Redis that is lost or full are told before anything is written."""
        self.positions.check_not_refused(home)
        self.redis_watch.check()

    async def _watch_redis(self) -> None:
        await self.redis_watch.run_once()
        await asyncio.sleep(REDIS_WATCH_S)

    def _outage(self) -> str:
        """Why nothing can move, when the reason is outside."""
        return "Kafka does not answer" if self.producer.stalled_s() > STALLED_S else self.redis_watch.trouble

    async def _look_for_hangs(self) -> None:
        await asyncio.sleep(HANG_LOOK_S)
        await self.hangs.run_once()

    @staticmethod
    def _give_up(hang: Hang) -> None:
        """End at once: a stop would wait for what hangs. What is in the log is folded by the next worker."""
        log.critical("this worker hangs and ends, to be restarted", exit_code=EXIT_HANG, **asdict(hang))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_HANG)

    async def outcomes(self, late: list[tuple[int, str]]) -> list[Outcome | None]:
        """For the gateway: outcomes that another worker has stored; tells it positions in passing.

        Homes that are live here are not asked for: what they commit, they tell themselves.
        """
        here = {home for home, owner in self.engine.owners.items() if owner.live}
        elsewhere = [pair for pair in late if pair[0] not in here]
        found = iter(await self._stored_outcomes(elsewhere) if elsewhere else ())
        return [None if home in here else next(found) for home, _ in late]

    async def _stored_outcomes(self, late: list[tuple[int, str]]) -> list[Outcome | None]:
        homes = sorted({home for home, _ in late})
        pipe = self.redis.pipeline(transaction=False)
        for home in homes:
            pipe.get(keys.applied(self.settings.namespace, home))
        for home, submit in late:
            pipe.get(keys.outcome(self.settings.namespace, home, submit))
        try:
            async with asyncio.timeout(IO_TIMEOUT_S):
                answers = await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError(f"Redis does not answer: {error}") from error
        for home, applied in zip(homes, answers, strict=False):
            if applied is not None:
                self.gateway.applied(home, int(applied))
        found = answers[len(homes) :]
        return [None if data is None else _outcome_decoder.decode(data) for data in found]

    async def mark(self, destination: int, source: int) -> int:
        """For the gateway: how far ``destination`` has folded the messages of ``source``."""
        owner = self.engine.owners.get(destination)
        if owner is not None and owner.live:
            return owner.state.marks.get(str(source), 0)
        try:
            data = await self.redis.get(keys.home_state(self.settings.namespace, destination))
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError(f"Redis does not answer: {error}") from error
        return 0 if data is None else _state_decoder.decode(data).marks.get(str(source), 0)

    # -- health -------------------------------------------------------------------------------------------

    def ready(self) -> dict[str, Any]:
        """Whether every partition of this worker is live, and where each stands."""
        partitions = [
            {
                "partition": owner.home,
                "state": owner.phase,
                "applied": owner.applied,
                "catching_up": owner.progress.shown(),
                "recoveries": owner.recoveries,
                "lost_events": owner.lost_events,
                "reason": owner.progress.reason or None,
            }
            for owner in sorted(self.engine.owners.values(), key=lambda owner: owner.home)
        ]
        live = all(owner.live for owner in self.engine.owners.values())
        reason = None
        if self.gateway.closing:
            reason = "This worker is shutting down."
        elif not self.assigned_once:
            reason = "No partitions are assigned yet."
        elif not live:
            reason = "Some partitions are not live yet."
        return {"ready": reason is None, "partitions": partitions, "reason": reason}

    async def facts(self) -> WorkerFacts:
        """What the metrics page shows, also while Kafka or Redis is down."""
        up, partitions, store = await asyncio.gather(
            self._is_up(),
            positions_of(self.engine, self.ends),
            self.census.take(self.engine.owners, stamp.now_ms()),
        )
        return WorkerFacts(
            version=__version__,
            ready=self.ready()["ready"],
            backend_up=up,
            partitions=partitions,
            homes=self.engine.meters,
            stages=self.engine.stages,
            rounds=self.engine.rounds,
            jobs=self.job_meters,
            web=self.web_meter,
            loop_lag=self.loop_meter.lag,
            producers=(_producer("produce", self.producer), _producer("outbox", self.outbox_producer)),
            mirrors_dropped=self.mirrors.dropped + self.mirror_producer.dropped,
            waiting=self.gateway.waiting,
            connections=parser_errors.EnvelopeRequestHandler.open_now,
            store=store,
        )

    async def _is_up(self) -> bool:
        try:
            await self._backend_ms()
        except UnavailableError:
            return False
        return True

    async def _backend_ms(self) -> float:
        if self.producer.stalled_s() > STALLED_S:
            raise UnavailableError("Kafka does not answer.")
        return await self.redis_watch.latency_ms()


def _producer(name: str, producer: LogProducer) -> ProducerFacts:
    return ProducerFacts(
        name=name,
        replaced=producer.replaced,
        stalled_s=producer.stalled_s(),
        acknowledged=producer.acknowledged,
    )
