"""Settings: one typed table, read from the environment once, at start.

Every setting is one field of ``Settings``: its variable, default, unit and meaning stand beside it, so that
the documentation (``table()``) cannot drift. A wrong value ends the start with a sentence. Nothing else reads
the environment, and the fold knows no settings: views resolve them into commands.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from ojs_stream.core.homes import HOMES_MAX
from ojs_stream.core.records import DEFAULT_RETENTION, Retention
from ojs_stream.core.times import parse_duration
from ojs_stream.errors import SettingsError

FOREVER_MS = -1
KIB = 1024
MIB = 1024 * KIB

Parse = Callable[[str], Any]
"""Text to value; ``ValueError`` says what it must be: the end of the sentence "OJS_PORT is 'x', it ..."."""

_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9.-]{0,40}")
_BROKER = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:]+\]):(\d{1,5})")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the table, for people: texts only."""

    variable: str
    default: str
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class _Spec:
    row: Setting
    parse: Parse


def _setting(variable: str, default: str, parse: Parse, *, unit: str = "", meaning: str) -> Any:
    """Declare a field. The default is written as in the environment and parsed like any other value."""
    spec = _Spec(Setting(variable, default, unit, meaning), parse)
    return field(default=parse(default) if default else None, metadata={"spec": spec})


def _whole(low: int, high: int) -> Parse:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return parse


def _switch(text: str) -> bool:
    word = text.lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ValueError("must be 1 or 0 (true/false, yes/no, on/off)")


def _keep(text: str) -> int:
    if text == "-1":
        return FOREVER_MS
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{error}, or -1 for ever") from error


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,253}", text):
        raise ValueError("must be an address or a host name to listen on, such as 127.0.0.1 or 0.0.0.0")
    return text


def _namespace(text: str) -> str:
    if not _NAMESPACE.fullmatch(text):
        raise ValueError("must be 1 to 41 characters of a-z, 0-9, '.' and '-', the first a letter or a digit")
    return text


def _brokers(text: str) -> str:
    brokers = [part.strip() for part in text.removeprefix("kafka://").split(",")]
    for broker in brokers:
        match = _BROKER.fullmatch(broker)
        if not match or not 1 <= int(match[1]) <= _PORT_MAX:
            raise ValueError("must be host:port, or several with commas, such as localhost:9092")
    return ",".join(brokers)


def _redis_url(text: str) -> str:
    if urlsplit(text).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must be a URL such as redis://localhost:6379/0, rediss://... or unix:///path")
    return text


def _log_format(text: str) -> str:
    if text not in {"json", "text"}:
        raise ValueError("must be json or text")
    return text


def _folder(text: str) -> Path:
    return Path(text).expanduser()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a worker is told. Build it with ``from_env``; without arguments it has the defaults."""

    kafka_brokers: str = _setting(
        "KAFKA_BROKERS",
        "localhost:9092",
        _brokers,
        meaning="Kafka brokers to start from, host:port,host:port.",
    )
    redis_url: str = _setting(
        "REDIS_URL", "redis://localhost:6379/0", _redis_url, meaning="The Redis with the state."
    )
    port: int = _setting("OJS_PORT", "8080", _whole(1, _PORT_MAX), meaning="TCP port of the HTTP API.")
    host: str = _setting("OJS_HOST", "127.0.0.1", _host, meaning="Address to listen on; 0.0.0.0 for all of them.")
    namespace: str = _setting(
        "OJS_NAMESPACE",
        "ojs",
        _namespace,
        meaning="Prefix of topics, group and keys: stacks can share a Kafka.",
    )
    partitions: int | None = _setting(
        "OJS_PARTITIONS",
        "",
        _whole(1, HOMES_MAX),
        meaning="Partitions of a new log (8 if unset), 2 to 4 a worker; must agree with a log that exists.",
    )
    test_mode: bool = _setting(
        "OJS_TEST_MODE",
        "0",
        _switch,
        meaning="Offer the endpoints that conformance tests need, such as reset.",
    )
    kafka_queue_topics: bool = _setting(
        "OJS_KAFKA_QUEUE_TOPICS", "0", _switch, meaning="Mirror jobs into one topic a queue, for Kafka tools."
    )
    kafka_use_queue_key: bool = _setting(
        "OJS_KAFKA_USE_QUEUE_KEY", "0", _switch, meaning="Key mirrored jobs by queue instead of job type."
    )
    kafka_events_enabled: bool = _setting(
        "OJS_KAFKA_EVENTS_ENABLED", "1", _switch, meaning="Events go to Kafka. Always on here: 0 only warns."
    )
    request_deadline_ms: int = _setting(
        "OJS_REQUEST_DEADLINE_MS",
        "10000",
        _whole(100, 300_000),
        unit="ms",
        meaning="A request that was not applied by then is answered 503, outcome unknown.",
    )
    session_timeout_s: int = _setting(
        "OJS_SESSION_TIMEOUT_S",
        "6",
        _whole(6, 300),
        unit="s",
        meaning="A silent worker's partitions move after it.",
    )
    heartbeat_s: int = _setting(
        "OJS_HEARTBEAT_S",
        "1",
        _whole(1, 100),
        unit="s",
        meaning="A worker's sign of life to Kafka, every so often.",
    )
    retention_completed_ms: int = _setting(
        "OJS_RETENTION_COMPLETED",
        "P7D",
        _keep,
        unit="ISO 8601",
        meaning="How long completed jobs stay; -1 for ever.",
    )
    retention_cancelled_ms: int = _setting(
        "OJS_RETENTION_CANCELLED",
        "P7D",
        _keep,
        unit="ISO 8601",
        meaning="How long cancelled jobs stay; -1 for ever.",
    )
    retention_discarded_ms: int = _setting(
        "OJS_RETENTION_DISCARDED",
        "P30D",
        _keep,
        unit="ISO 8601",
        meaning="How long discarded jobs stay; -1 for ever.",
    )
    retention_dead_ms: int = _setting(
        "OJS_RETENTION_DEAD_LETTERS",
        "P180D",
        _keep,
        unit="ISO 8601",
        meaning="How long dead letters stay; -1 for ever.",
    )
    body_bytes_max: int = _setting(
        "OJS_BODY_BYTES_MAX",
        str(4 * MIB),
        _whole(1024, 7 * MIB),
        unit="bytes",
        meaning="Largest request body.",
    )
    batch_jobs_max: int = _setting(
        "OJS_BATCH_JOBS_MAX",
        "1000",
        _whole(1, 10_000),
        unit="jobs",
        meaning="Most jobs of one batch request.",
    )
    meta_bytes_max: int = _setting(
        "OJS_META_BYTES_MAX", "65536", _whole(1024, MIB), unit="bytes", meaning="Largest meta of a job."
    )
    result_bytes_max: int = _setting(
        "OJS_RESULT_BYTES_MAX",
        str(MIB),
        _whole(1024, 4 * MIB),
        unit="bytes",
        meaning="Largest result of a job.",
    )
    json_depth_max: int = _setting(
        "OJS_JSON_DEPTH_MAX",
        "64",
        _whole(8, 512),
        unit="levels",
        meaning="Deepest nesting in a request body.",
    )
    connections_max: int = _setting(
        "OJS_CONNECTIONS_MAX",
        "20000",
        _whole(1, 1_000_000),
        unit="connections",
        meaning="Open HTTP connections a worker.",
    )
    packer_commands_max: int = _setting(
        "OJS_PACKER_COMMANDS_MAX",
        "10000",
        _whole(1, 1_000_000),
        unit="commands",
        meaning="Commands that may wait for a partition; more are answered 503.",
    )
    packer_bytes_max: int = _setting(
        "OJS_PACKER_BYTES_MAX",
        str(64 * MIB),
        _whole(8 * MIB, 4096 * MIB),
        unit="bytes",
        meaning="Bytes that may wait for a partition; more are answered 503.",
    )
    pack_commands_max: int = _setting(
        "OJS_PACK_COMMANDS_MAX",
        "256",
        _whole(1, 10_000),
        unit="commands",
        meaning="Most commands of one record.",
    )
    pack_bytes_max: int = _setting(
        "OJS_PACK_BYTES_MAX",
        str(256 * KIB),
        _whole(1024, 7 * MIB),
        unit="bytes",
        meaning="A pack is closed at this size; one command alone may be larger.",
    )
    packs_in_flight: int = _setting(
        "OJS_PACKS_IN_FLIGHT",
        "1",
        _whole(1, 16),
        unit="packs",
        meaning="Packs of a partition that are not applied yet.",
    )
    log_format: str | None = _setting(
        "OJS_LOG_FORMAT",
        "",
        _log_format,
        meaning="json or text; if unset, text on a terminal and json elsewhere.",
    )
    datadir: Path | None = _setting(  # noqa: RUF009 - a Path does not change
        "OJS_DATADIR",
        "",
        _folder,
        meaning="Folder for Faust's own files and the embedded servers; a temporary one if unset.",
    )

    def __post_init__(self) -> None:
        """Check what no single setting can know."""
        if self.heartbeat_s * 3 > self.session_timeout_s:
            raise SettingsError(
                f"OJS_HEARTBEAT_S is {self.heartbeat_s}, it must be at most a third of OJS_SESSION_TIMEOUT_S "
                f"({self.session_timeout_s}), or a single lost heartbeat moves the partitions: lower it."
            )
        if self.pack_bytes_max > self.packer_bytes_max:
            raise SettingsError(
                f"OJS_PACK_BYTES_MAX is {self.pack_bytes_max}, it must be at most OJS_PACKER_BYTES_MAX "
                f"({self.packer_bytes_max}): lower it."
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings; an empty variable counts as unset. ``SettingsError`` for the first wrong one."""
        source = os.environ if environ is None else environ
        given = {
            one.name: _read(_spec(one), source[_spec(one).row.variable].strip())
            for one in fields(cls)
            if source.get(_spec(one).row.variable, "").strip()
        }
        return cls(**given)

    @property
    def retention(self) -> Retention:
        """Defaults that views resolve into commands; -1 keeps for ever."""
        chosen = Retention(
            self.retention_completed_ms,
            self.retention_cancelled_ms,
            self.retention_discarded_ms,
            self.retention_dead_ms,
        )
        # The encoder knows a default by its identity.
        return DEFAULT_RETENTION if chosen == DEFAULT_RETENTION else chosen

    def warnings(self) -> list[str]:
        """Sentences about values that are taken, but do not do what one may expect."""
        said = []
        if not self.kafka_events_enabled:
            said.append(
                "OJS_KAFKA_EVENTS_ENABLED is 0, but events are part of every commit and stay on: unset it."
            )
        if self.test_mode and self.host not in {"127.0.0.1", "localhost", "::1"}:
            said.append(f"OJS_TEST_MODE is 1 and OJS_HOST is {self.host}: anybody there can delete every job.")
        if self.kafka_use_queue_key and not self.kafka_queue_topics:
            said.append("OJS_KAFKA_USE_QUEUE_KEY has no effect without OJS_KAFKA_QUEUE_TOPICS=1.")
        return said


def table() -> list[Setting]:
    """All settings in order, for ``docs/settings.md`` and ``ojs-stream config``."""
    return [_spec(one).row for one in fields(Settings)]


def _spec(one: Field[Any]) -> _Spec:
    spec: _Spec = one.metadata["spec"]
    return spec


def _read(spec: _Spec, text: str) -> Any:
    try:
        return spec.parse(text)
    except ValueError as error:
        default = f"unset it for the default {spec.row.default}" if spec.row.default else "or unset it"
        raise SettingsError(f"{spec.row.variable} is {text!r}, it {error}; {default}.") from error
