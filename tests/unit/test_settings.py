"""Settings: every default, every bound, every sentence."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from ojs_stream.core.records import Retention
from ojs_stream.errors import SettingsError
from ojs_stream.settings import FOREVER_MS, Settings, table

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
        ("OJS_RETENTION_COMPLETED", "a week"),
        ("OJS_RETENTION_COMPLETED", "-2"),
        ("OJS_BODY_BYTES_MAX", "8388608"),
        ("OJS_PACKS_IN_FLIGHT", "0"),
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


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]
