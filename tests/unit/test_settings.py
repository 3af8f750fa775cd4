"""Settings: every default, every bound, every sentence."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from ojs_stream.core.records import Retention
from ojs_stream.errors import SettingsError
from ojs_stream.settings import FOREVER_MS, MASK, Settings, shown, table, without_password

DAY_MS = 86_400_000


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_env({})
    assert settings == Settings()
    assert (settings.kafka_brokers, settings.redis_url) == ("localhost:9092", "redis://localhost:6379/0")
    assert (settings.host, settings.port, settings.namespace) == ("127.0.0.1", 8080, "ojs")
    assert (settings.partitions, settings.datadir) == (None, None)
    assert settings.retention == Retention(7 * DAY_MS, 7 * DAY_MS, 30 * DAY_MS, 180 * DAY_MS)
    assert settings.warnings() == []


def test_a_setting_is_read_and_typed() -> None:
    settings = Settings.from_env(
        {
            "KAFKA_BROKERS": "kafka://one:9092, two:9093",
            "OJS_PORT": " 9000 ",
            "OJS_PARTITIONS": "1024",
            "OJS_TEST_MODE": "true",
            "OJS_RETENTION_COMPLETED": "PT1H",
            "OJS_RETENTION_DEAD_LETTERS": "-1",
            "OJS_DATADIR": "/var/lib/ojs",
        }
    )
    assert settings.kafka_brokers == "one:9092,two:9093"
    assert (settings.port, settings.partitions, settings.test_mode) == (9000, 1024, True)
    assert settings.retention_completed_ms == 3_600_000
    assert settings.retention.dead_ms == FOREVER_MS
    assert settings.datadir == Path("/var/lib/ojs")


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.from_env({"OJS_PORT": "", "OJS_PARTITIONS": "  "}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KAFKA_BROKERS", "localhost"),
        ("KAFKA_BROKERS", "localhost:0"),
        ("KAFKA_BROKERS", "one:9092,,two:9092"),
        ("REDIS_URL", "localhost:6379"),
        ("OJS_PORT", "0"),
        ("OJS_PORT", "65536"),
        ("OJS_PORT", "http"),
        ("OJS_HOST", "a b"),
        ("OJS_NAMESPACE", "Ojs"),
        ("OJS_NAMESPACE", ".ojs"),
        ("OJS_NAMESPACE", "o" * 42),
        ("OJS_PARTITIONS", "0"),
        ("OJS_PARTITIONS", "1025"),
        ("OJS_TEST_MODE", "maybe"),
        ("OJS_REQUEST_DEADLINE_MS", "10s"),
        ("OJS_SESSION_TIMEOUT_S", "5"),
        ("OJS_HEARTBEAT_S", "0.05"),
        ("OJS_HEARTBEAT_S", "nan"),
        ("OJS_HEARTBEAT_S", "often"),
        ("OJS_RETENTION_COMPLETED", "a week"),
        ("OJS_RETENTION_COMPLETED", "-2"),
        ("OJS_BODY_BYTES_MAX", "8388608"),
        ("OJS_PACKS_IN_FLIGHT", "0"),
        ("GRPC_PORT", "70000"),
        ("OJS_ALLOW_INSECURE_NO_AUTH", "perhaps"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("KAFKA_SASL_MECHANISM", "GSSAPI"),
        ("KAFKA_SSL_CA_FILE", "/nowhere/ca.pem"),
        ("KAFKA_SASL_TOKEN_FILE", "/"),
        ("OJS_OTEL_ENABLED", "2"),
        ("OJS_OTEL_ENDPOINT", "collector"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector"),
        ("OJS_LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_value_and_bound(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({variable: value})
    sentence = str(refused.value)
    assert sentence.startswith(f"{variable} is {value!r}, it must be ")
    assert "unset it" in sentence


def test_the_sentence_of_a_number() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"OJS_PORT": "http"})
    assert str(refused.value) == (
        "OJS_PORT is 'http', it must be a whole number from 1 to 65535; unset it for the default 8080."
    )


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OJS_HEARTBEAT_S": "3"}, "OJS_SESSION_TIMEOUT_S (6)"),
        ({"OJS_PACK_BYTES_MAX": "7340032", "OJS_PACKER_BYTES_MAX": "8388608"}, ""),
    ],
)
def test_settings_that_depend_on_each_other(environ: dict[str, str], named: str) -> None:
    if not named:
        assert Settings.from_env(environ).pack_bytes_max == 7_340_032
        return
    with pytest.raises(SettingsError) as refused:
        Settings.from_env(environ)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({"OJS_KAFKA_EVENTS_ENABLED": "0"}, "OJS_KAFKA_EVENTS_ENABLED"),
        ({"OJS_TEST_MODE": "1", "OJS_HOST": "0.0.0.0"}, "delete every job"),
        ({"OJS_KAFKA_USE_QUEUE_KEY": "1"}, "OJS_KAFKA_QUEUE_TOPICS"),
        ({"GRPC_PORT": "9090"}, "GRPC_PORT is 9090"),
        ({"OJS_API_KEY": "s3cret"}, "OJS_API_KEY"),
        ({"OJS_OTEL_ENABLED": "true"}, "OJS_OTEL_ENABLED"),
    ],
)
def test_what_does_not_do_what_one_may_expect_is_said(environ: dict[str, str], word: str) -> None:
    (said,) = Settings.from_env(environ).warnings()
    assert word in said


def test_every_setting_stands_in_the_table() -> None:
    rows = table()
    assert len(rows) == len(fields(Settings)) == len({row.variable for row in rows})
    assert all(row.meaning.endswith(".") for row in rows)
    assert Settings.from_env({row.variable: row.default for row in rows}) == Settings()


REFERENCE = {
    "OJS_PORT": "8080",
    "GRPC_PORT": "9090",
    "KAFKA_BROKERS": "kafka:9092",
    "REDIS_URL": "redis://redis:6379",
    "OJS_KAFKA_USE_QUEUE_KEY": "true",
    "OJS_KAFKA_EVENTS_ENABLED": "true",
    "OJS_API_KEY": "s3cret",
    "OJS_ALLOW_INSECURE_NO_AUTH": "true",
    "OJS_OTEL_ENABLED": "true",
    "OJS_OTEL_ENDPOINT": "collector:4317",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
}


def test_the_environment_of_the_reference_backend_starts_a_worker_here() -> None:
    assert set(REFERENCE) <= {row.variable for row in table()}
    settings = Settings.from_env(REFERENCE)
    assert (settings.grpc_port, settings.allow_insecure_no_auth, settings.otel_enabled) == (9090, True, True)
    assert (settings.otel_endpoint, settings.otlp_endpoint) == ("collector:4317", "http://collector:4318")


@pytest.mark.parametrize(
    ("environ", "secret"),
    [
        ({"OJS_API_KEY": "two words"}, "two words"),
        ({"REDIS_URL": "http://me:pass/wo@rd@redis:6379"}, "pass/wo"),
        ({"REDIS_URL": "me:password@redis:6379"}, "password"),
        ({"OJS_OTEL_ENDPOINT": "ftp://me:password@collector"}, "password"),
    ],
)
def test_a_sentence_never_says_a_secret(environ: dict[str, str], secret: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env(environ)
    assert secret not in str(refused.value)
    assert f"{next(iter(environ))} is '" in str(refused.value)
    assert MASK in str(refused.value)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://redis:6379/0", "redis://redis:6379/0"),
        ("redis://me@redis:6379/0", "redis://me@redis:6379/0"),
        ("redis://:word@redis:6379/0", "redis://:***@redis:6379/0"),
        ("rediss://me:wo:r@d@redis", "rediss://me:***@redis"),
        ("unix://me:word@/run/redis.sock?db=1", "unix://me:***@/run/redis.sock?db=1"),
        ("redis://redis/0?db=1&password=word&x=1", "redis://redis/0?db=1&password=***&x=1"),
        ("http://[::1]:4318", "http://[::1]:4318"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, safe: str) -> None:
    assert without_password(url) == safe


def test_what_is_shown_says_where_it_comes_from_and_hides_secrets() -> None:
    given = {"OJS_API_KEY": "s3cret", "REDIS_URL": "redis://me:word@redis", "OJS_PORT": " 9000 "}
    rows = {row.setting.variable: row for row in shown(given)}
    assert list(rows) == [row.variable for row in table()]
    assert {name for name, row in rows.items() if row.given} == set(given)
    assert rows["OJS_API_KEY"].value == MASK
    assert rows["REDIS_URL"].value == "redis://me:***@redis"
    assert (rows["OJS_PORT"].value, rows["OJS_HOST"].value) == ("9000", "127.0.0.1")


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "sasl_ssl"}, "set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_USERNAME": "me"},
            "set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "oauthbearer"},
            "set KAFKA_SASL_TOKEN_FILE",
        ),
        ({"KAFKA_SSL_KEY_FILE": __file__}, "it must be the key of KAFKA_SSL_CERT_FILE"),
    ],
)
def test_a_login_to_kafka_needs_what_it_logs_in_with(environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Settings.from_env(environ)


def test_what_is_no_certificate_is_said() -> None:
    settings = Settings.from_env({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA_FILE": __file__})
    with pytest.raises(SettingsError, match="must be PEM files that belong together"):
        settings.kafka.security.ssl_context()


def test_a_password_without_a_login_is_said_and_stands_in_no_text_of_ours() -> None:
    settings = Settings.from_env({"KAFKA_SASL_PASSWORD": "s3cret", "REDIS_URL": "redis://me:s3cret@redis"})
    (said,) = settings.warnings()
    assert "KAFKA_SASL_PASSWORD has no effect" in said
    assert "s3cret" not in f"{said}{settings!r}{settings.kafka!r}{settings.kafka}"


def test_the_table_knows_its_bounds() -> None:
    bounds = {row.variable: row.bound for row in table()}
    assert bounds["OJS_PORT"] == "a whole number from 1 to 65535"
    assert [name for name, bound in bounds.items() if not bound] == ["OJS_DATADIR"]


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_snapshots_are_made_now_and_then_and_the_log_is_kept_unless_somebody_says_otherwise() -> None:
    settings = Settings()
    assert (settings.snapshot_every_ms, settings.snapshot_commands, settings.log_trim) == (
        DAY_MS // 4,
        1_000_000,
        False,
    )
    off = Settings.from_env({"OJS_SNAPSHOT_EVERY": "0", "OJS_SNAPSHOT_COMMANDS": "0", "OJS_LOG_TRIM": "true"})
    assert (off.snapshot_every_ms, off.snapshot_commands, off.log_trim) == (0, 0, True)
    with pytest.raises(SettingsError, match=r"OJS_SNAPSHOT_EVERY is 'often', it .*, or 0 for never"):
        Settings.from_env({"OJS_SNAPSHOT_EVERY": "often"})
