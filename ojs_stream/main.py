"""The Faust app: agents that hand records over, timers, and the start and stop of the runtime.

``faust -A ojs_stream worker`` finds ``app`` here, through the package's lazy attribute.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import faust
import uvloop
from faust.auth import Credentials, OAuthCredentials, SASLCredentials, SSLCredentials
from faust.types import TP
from faust.web.base import BlueprintManager

from ojs_stream.agents.delivery import PacedTransport
from ojs_stream.log.connection import OAUTHBEARER, Security
from ojs_stream.log.reader import LogRecord
from ojs_stream.runtime import Runtime
from ojs_stream.settings import Settings
from ojs_stream.telemetry import configure_logs, faust_logging

SCHEDULER_S = 0.02
REAPER_S = 0.05
SWITCH_S = 0.001
GC_THRESHOLDS = (20_000, 20, 100)


class OjsApp(faust.App):
    """Faust's app with our runtime: opened before the consumer, drained before everything stops."""

    runtime: Runtime

    async def on_first_start(self) -> None:
        """Topics exist and the runtime is built before anything subscribes or listens.

        Faust's own part, making a data folder for its tables, is left out: our state is in Redis.
        """
        await self.runtime.open(self.web.web_app)  # type: ignore[attr-defined]

    def _new_transport(self) -> PacedTransport:
        return PacedTransport(self.conf.broker_consumer, self)

    async def stop(self) -> None:
        """Answer what is in flight while consumer and agents still work; then stop (DESIGN.md section 14)."""
        await self.runtime.drain()
        await super().stop()
        await self.runtime.close()


def create_app(settings: Settings) -> OjsApp:
    """The app with its agents and timers attached."""
    app = OjsApp(
        id=f"{settings.namespace}-workers",
        broker=[f"kafka://{broker}" for broker in settings.kafka_brokers.split(",")],
        broker_credentials=_credentials(settings.kafka.security),
        value_serializer="raw",
        key_serializer="raw",
        store="memory://",
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,
        stream_buffer_maxsize=4096,
        broker_session_timeout=float(settings.session_timeout_s),
        broker_heartbeat_interval=settings.heartbeat_s,
        broker_request_timeout=max(30.0, settings.session_timeout_s * 4.0),
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=8 * 1024 * 1024,
        web_bind=settings.host,
        web_port=settings.port,
        web_application_options={"client_max_size": settings.body_bytes_max},
        autodiscover=False,
        logging_config=faust_logging(settings.log_format),
    )
    app.runtime = Runtime(settings)
    app.web.blueprints = BlueprintManager([])
    _attach_agents(app)
    _attach_timers(app)
    _attach_rebalance(app)
    return app


def _credentials(security: Security) -> Credentials | None:
    """What Faust's consumer shows to Kafka: the same as our own clients (``log/connection.py``)."""
    context = security.ssl_context()
    if not security.authenticated:
        return SSLCredentials(context) if context is not None else None
    provider = security.token_provider()
    if security.mechanism == OAUTHBEARER and provider is not None:
        return OAuthCredentials(oauth_cb=provider, ssl_context=context)
    return SASLCredentials(
        username=security.username,
        password=security.password,
        mechanism=security.mechanism,
        ssl_context=context,
    )


def _attach_agents(app: OjsApp) -> None:
    topics = app.runtime.topics

    async def commands(stream: faust.StreamT[bytes]) -> None:
        """Hand live records to the owner of their home. Never raises, never waits."""
        async for event in stream.events():
            message = event.message
            app.runtime.offer(
                message.partition,
                LogRecord(message.offset, round(message.timestamp * 1000), None, message.value or b"", ()),
            )

    async def retries(stream: faust.StreamT[bytes]) -> None:
        """Hand retry records to the retry agent."""
        async for event in stream.events():
            app.runtime.retry_agent.offer(event.message.partition, event.message.value or b"")

    app.agent(app.topic(topics.commands, value_type=bytes, key_type=bytes), name="commands")(commands)
    app.agent(app.topic(topics.retry, value_type=bytes, key_type=bytes), name="retries")(retries)


def _attach_timers(app: OjsApp) -> None:
    async def scheduler(_app: Any) -> None:
        await app.runtime.scheduler.run_once()

    async def reaper(_app: Any) -> None:
        await app.runtime.reaper.run_once()

    async def cron(_app: Any) -> None:
        await app.runtime.cron.run_once()

    app.timer(SCHEDULER_S, name="scheduler")(scheduler)
    app.timer(SCHEDULER_S, name="cron")(cron)
    app.timer(REAPER_S, name="reaper")(reaper)


def _attach_rebalance(app: OjsApp) -> None:
    topic = app.runtime.topics.commands

    def homes(partitions: set[TP]) -> set[int]:
        return {tp.partition for tp in partitions if tp.topic == topic}

    async def assigned(_app: Any, *args: Any, **_: Any) -> None:
        app.runtime.assigned(homes(args[0]))

    async def revoked(_app: Any, *args: Any, **_: Any) -> None:
        app.runtime.revoked(homes(args[0]))

    # Faust's signal types do not admit the arguments that it passes.
    signals: Any = app
    signals.on_partitions_assigned.connect(assigned, weak=False)
    signals.on_partitions_revoked.connect(revoked, weak=False)


def _tune() -> None:
    """What a busy loop beside Faust's consumer thread wants of the interpreter."""
    # Records are handed over between two threads: with the default of 5 ms each may wait so long for the other.
    sys.setswitchinterval(SWITCH_S)
    # What is loaded now stays; collecting it again and again costs 10 ms pauses. Young garbage is rare here.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _load() -> OjsApp:
    settings = Settings.from_env()
    configure_logs(wanted=settings.log_format)
    _tune()
    if sys.platform != "win32":
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    return create_app(settings)


app = _load()
