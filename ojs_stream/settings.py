"""Settings: one typed table, read from the environment once, at start.

Every setting is one field of ``Settings``: its variable, default, unit and meaning stand beside it, so that
the documentation (``table()``: docs/settings.md, ``ojs-stream config``) cannot drift. A wrong value ends the
start with a sentence, which never says a secret. Nothing else reads the environment, and the fold knows no
settings: views resolve them into commands.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from ojs_stream.core.homes import HOMES_MAX
from ojs_stream.core.records import DEFAULT_RETENTION, Retention
from ojs_stream.core.times import parse_duration
from ojs_stream.errors import SettingsError
from ojs_stream.log.connection import MECHANISMS, OAUTHBEARER, PROTOCOLS, KafkaAddress, Security

FOREVER_MS = -1
KIB = 1024
MIB = 1024 * KIB

Parse = Callable[[str], Any]
"""Text to value; ``ValueError`` says what it must be: the end of the sentence "OJS_PORT is 'x', it ..."."""

_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9.-]{0,40}")
_BROKER = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:]+\]):(\d{1,5})")
_KEY = re.compile(r"[!-~]{1,512}")
_URL_PASSWORD = re.compile(r"^((?:[a-z]+://)?+[^:@/]*):.*@")
_QUERY_PASSWORD = re.compile(r"([?&]password=)[^&]*")
_NO_VALUE = "\0"
"""A text that no bounded setting accepts: its refusal is the bound."""
MASK = "***"
"""What is shown of a secret."""
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the table, for people: texts only."""

    variable: str
    default: str
    unit: str
    bound: str
    """What a value must be, as a sentence that refuses one says it; empty when anything will do."""
    meaning: str


class Shown(NamedTuple):
    """A row of the table and what it is now; a secret is masked."""

    setting: Setting
    value: str
    given: bool
    """Whether the environment says so; else it is the default."""


@dataclass(frozen=True, slots=True)
class _Spec:
    row: Setting
    parse: Parse
    mask: Callable[[str], str]


def _as_it_is(text: str) -> str:
    return text


def _hidden(_text: str) -> str:
    return MASK


def without_password(url: str) -> str:
    """A URL that may be shown: ``redis://user:***@host``."""
    return _QUERY_PASSWORD.sub(rf"\1{MASK}", _URL_PASSWORD.sub(rf"\1:{MASK}@", url))


def _setting(
    variable: str,
    default: str,
    parse: Parse,
    *,
    unit: str = "",
    meaning: str,
    mask: Callable[[str], str] = _as_it_is,
) -> Any:
    """Declare a field. The default is written as in the environment and parsed like any other value."""
    spec = _Spec(Setting(variable, default, unit, _bound(parse), meaning), parse, mask)
    shows = mask is _as_it_is
    return field(default=parse(default) if default else None, repr=shows, metadata={"spec": spec})


def _bound(parse: Parse) -> str:
    try:
        parse(_NO_VALUE)
    except ValueError as error:
        return str(error).removeprefix("must be ")
    return ""


def _between(read: Callable[[str], Any], low: float, high: float, bounds: str) -> Parse:
    def parse(text: str) -> Any:
        try:
            value = read(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ValueError(f"must be {bounds}")
        return value

    return parse


def _whole(low: int, high: int) -> Parse:
    return _between(int, low, high, f"a whole number from {low} to {high}")


def _number(low: float, high: float) -> Parse:
    return _between(float, low, high, f"a number from {low:g} to {high:g}")


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


def _every(text: str) -> int:
    if text == "0":
        return 0
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{error}, or 0 for never") from error


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


def _key(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise ValueError("must be 1 to 512 characters that can stand in a header: no spaces, no line ends")
    return text


def _one_of(words: Sequence[str]) -> Parse:
    def parse(text: str) -> str:
        if text.upper() not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}")
        return text.upper()

    return parse


def _word(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable characters")
    return text


def _file(text: str) -> Path:
    path = Path(text).expanduser()
    if "\0" in text or not path.is_file():
        raise ValueError("must be a file that can be read")
    return path


def _collector(text: str) -> str:
    at = urlsplit(text)
    if not _BROKER.fullmatch(text) and not (at.scheme in {"http", "https"} and at.hostname):
        raise ValueError("must be the URL of an OTLP collector such as http://localhost:4318, or host:port")
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
    kafka_security_protocol: str = _setting(
        "KAFKA_SECURITY_PROTOCOL",
        "PLAINTEXT",
        _one_of(PROTOCOLS),
        meaning="How to connect to Kafka; SSL with a certificate of ours is mTLS.",
    )
    kafka_sasl_mechanism: str = _setting(
        "KAFKA_SASL_MECHANISM", "PLAIN", _one_of(MECHANISMS), meaning="How to log in where the protocol is SASL."
    )
    kafka_sasl_username: str | None = _setting(
        "KAFKA_SASL_USERNAME", "", _word, meaning="Who logs in with PLAIN or SCRAM."
    )
    kafka_sasl_password: str | None = _setting(
        "KAFKA_SASL_PASSWORD", "", _word, mask=_hidden, meaning="Their password."
    )
    kafka_sasl_token_file: Path | None = _setting(  # noqa: RUF009 - a Path does not change
        "KAFKA_SASL_TOKEN_FILE",
        "",
        _file,
        meaning="A bearer token for OAUTHBEARER; read again at every connection, so that it can be renewed.",
    )
    kafka_ssl_ca_file: Path | None = _setting(  # noqa: RUF009 - a Path does not change
        "KAFKA_SSL_CA_FILE",
        "",
        _file,
        meaning="PEM certificates that the brokers' must come from; the system's if unset.",
    )
    kafka_ssl_cert_file: Path | None = _setting(  # noqa: RUF009 - a Path does not change
        "KAFKA_SSL_CERT_FILE", "", _file, meaning="PEM certificate (chain) that we show to the brokers."
    )
    kafka_ssl_key_file: Path | None = _setting(  # noqa: RUF009 - a Path does not change
        "KAFKA_SSL_KEY_FILE", "", _file, meaning="Its PEM key, unless that is in KAFKA_SSL_CERT_FILE, too."
    )
    kafka_ssl_key_password: str | None = _setting(
        "KAFKA_SSL_KEY_PASSWORD", "", _word, mask=_hidden, meaning="The password of that key, if it has one."
    )
    kafka_ssl_check_hostname: bool = _setting(
        "KAFKA_SSL_CHECK_HOSTNAME",
        "1",
        _switch,
        meaning="Whether a broker's certificate must name the host that we connect to.",
    )
    redis_url: str = _setting(
        "REDIS_URL",
        "redis://localhost:6379/0",
        _redis_url,
        mask=without_password,
        meaning="The Redis with the state; docs/connections.md has TLS and users.",
    )
    port: int = _setting("OJS_PORT", "8080", _whole(1, _PORT_MAX), meaning="TCP port of the HTTP API.")
    host: str = _setting("OJS_HOST", "127.0.0.1", _host, meaning="Address to listen on; 0.0.0.0 for all of them.")
    grpc_port: int | None = _setting(
        "GRPC_PORT",
        "",
        _whole(1, _PORT_MAX),
        meaning="Port of the gRPC API in other servers. There is none here: accepted, with a warning.",
    )
    api_key: str | None = _setting(
        "OJS_API_KEY",
        "",
        _key,
        mask=_hidden,
        meaning="The key that clients send to other servers. Not checked here yet: accepted, with a warning.",
    )
    allow_insecure_no_auth: bool = _setting(
        "OJS_ALLOW_INSECURE_NO_AUTH",
        "0",
        _switch,
        meaning="Say that serving without an API key is meant. So far it always is.",
    )
    otel_enabled: bool = _setting(
        "OJS_OTEL_ENABLED", "0", _switch, meaning="OpenTelemetry traces by OTLP. Not exported yet: 1 only warns."
    )
    otel_endpoint: str | None = _setting(
        "OJS_OTEL_ENDPOINT",
        "",
        _collector,
        mask=without_password,
        meaning="Where traces go; if unset, OTEL_EXPORTER_OTLP_ENDPOINT.",
    )
    otlp_endpoint: str | None = _setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "",
        _collector,
        mask=without_password,
        meaning="Where traces go when OJS_OTEL_ENDPOINT is unset: OpenTelemetry's own variable.",
    )
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
    heartbeat_s: float = _setting(
        "OJS_HEARTBEAT_S",
        "0.5",
        _number(0.1, 100),
        unit="s",
        meaning="A worker's sign of life to Kafka, every so often.",
    )
    hang_s: int = _setting(
        "OJS_HANG_S",
        "30",
        _whole(5, 3600),
        unit="s",
        meaning="A worker whose partition stands still for so long ends with code 70, to be restarted.",
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
    streams_max: int = _setting(
        "OJS_STREAMS_MAX",
        "5000",
        _whole(1, 1_000_000),
        unit="streams",
        meaning="Open event streams a worker; more are answered 503.",
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
    snapshot_every_ms: int = _setting(
        "OJS_SNAPSHOT_EVERY",
        "PT6H",
        _every,
        unit="ISO 8601",
        meaning="A partition with news gets a snapshot so often; 0 never because of the time.",
    )
    snapshot_commands: int = _setting(
        "OJS_SNAPSHOT_COMMANDS",
        "1000000",
        _whole(0, 10**12),
        unit="commands",
        meaning="A partition gets a snapshot after so many; 0 never because of their number.",
    )
    log_trim: bool = _setting(
        "OJS_LOG_TRIM",
        "0",
        _switch,
        meaning="Delete records of the log that two whole snapshots have made superfluous.",
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
                f"OJS_HEARTBEAT_S is {self.heartbeat_s:g}, it must be at most a third of OJS_SESSION_TIMEOUT_S "
                f"({self.session_timeout_s}), or a single lost heartbeat moves the partitions: lower it."
            )
        self._check_kafka()
        if self.pack_bytes_max > self.packer_bytes_max:
            raise SettingsError(
                f"OJS_PACK_BYTES_MAX is {self.pack_bytes_max}, it must be at most OJS_PACKER_BYTES_MAX "
                f"({self.packer_bytes_max}): lower it."
            )

    def _check_kafka(self) -> None:
        """A login needs what it logs in with."""
        security = self.kafka.security
        if security.key_file is not None and security.cert_file is None:
            raise SettingsError(
                f"KAFKA_SSL_KEY_FILE is {str(security.key_file)!r}, it must be the key of KAFKA_SSL_CERT_FILE: "
                "set that, or unset both."
            )
        if not security.authenticated:
            return
        said = f"KAFKA_SECURITY_PROTOCOL is {security.protocol!r} and KAFKA_SASL_MECHANISM {security.mechanism!r}"
        if security.mechanism == OAUTHBEARER and security.token_file is None:
            raise SettingsError(f"{said}: set KAFKA_SASL_TOKEN_FILE, which is unset.")
        if security.mechanism != OAUTHBEARER and not (security.username and security.password):
            raise SettingsError(f"{said}: set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD, one is unset.")

    @property
    def kafka(self) -> KafkaAddress:
        """The brokers and how to be let in, for every client of Kafka."""
        security = Security(
            protocol=self.kafka_security_protocol,
            mechanism=self.kafka_sasl_mechanism,
            username=self.kafka_sasl_username,
            password=self.kafka_sasl_password,
            token_file=self.kafka_sasl_token_file,
            ca_file=self.kafka_ssl_ca_file,
            cert_file=self.kafka_ssl_cert_file,
            key_file=self.kafka_ssl_key_file,
            key_password=self.kafka_ssl_key_password,
            check_hostname=self.kafka_ssl_check_hostname,
        )
        return KafkaAddress(self.kafka_brokers, security)

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
        if self.kafka_sasl_password and not self.kafka.security.authenticated:
            said.append("KAFKA_SASL_PASSWORD has no effect unless KAFKA_SECURITY_PROTOCOL is one of SASL.")
        return said + self._not_served()

    def _not_served(self) -> list[str]:
        """Names of the reference backend that are accepted, so that its environment starts a server here, too."""
        said = []
        if self.grpc_port is not None:
            said.append(f"GRPC_PORT is {self.grpc_port}, but there is no gRPC API here: unset it.")
        if self.api_key is not None:
            said.append("OJS_API_KEY is set, but this release checks no key: keep strangers off the port.")
        if self.otel_enabled:
            said.append("OJS_OTEL_ENABLED is 1, but this release exports no traces: unset it.")
        return said


def table() -> list[Setting]:
    """All settings in order, for ``docs/settings.md``."""
    return [_spec(one).row for one in fields(Settings)]


def shown(environ: Mapping[str, str] | None = None) -> list[Shown]:
    """All settings in order with what they are and where that comes from, for ``ojs-stream config``."""
    source = os.environ if environ is None else environ
    return [_shown(_spec(one), source.get(_spec(one).row.variable, "").strip()) for one in fields(Settings)]


def _shown(spec: _Spec, text: str) -> Shown:
    return Shown(spec.row, spec.mask(text), given=True) if text else Shown(spec.row, spec.row.default, given=False)


def _spec(one: Field[Any]) -> _Spec:
    spec: _Spec = one.metadata["spec"]
    return spec


def _read(spec: _Spec, text: str) -> Any:
    try:
        return spec.parse(text)
    except ValueError as error:
        default = f"unset it for the default {spec.row.default}" if spec.row.default else "or unset it"
        raise SettingsError(f"{spec.row.variable} is {spec.mask(text)!r}, it {error}; {default}.") from error
