"""The other ways to run it: Strimzi's topics and user, systemd, a Procfile."""

from __future__ import annotations

import configparser
import re

import pytest

from ojs_stream.log.intake import BulkIntake
from ojs_stream.log.topics import PARTITIONS_DEFAULT, REPLICAS_MAX, Topics, _settings
from tests.support.shipping import DEPLOY, ROOT, STOP_S, check_command, check_settings, documents

TOPICS = Topics("ojs")
BY_NAME = {one["metadata"]["name"]: one for one in documents(DEPLOY / "strimzi" / "topics.yaml")}
(USER,) = documents(DEPLOY / "strimzi" / "user.yaml")
ACLS = {one["resource"]["type"]: one for one in USER["spec"]["authorization"]["acls"]}


def test_strimzi_makes_the_topics_of_a_worker_and_no_other() -> None:
    assert set(BY_NAME) == set(TOPICS.retention_ms())


@pytest.mark.parametrize(("name", "kept"), TOPICS.retention_ms().items())
def test_a_topic_is_as_a_worker_would_make_it(name: str, kept: int) -> None:
    topic = BY_NAME[name]
    assert (topic["apiVersion"], topic["kind"]) == ("kafka.strimzi.io/v1", "KafkaTopic")
    assert topic["spec"]["partitions"] == PARTITIONS_DEFAULT
    assert topic["spec"]["replicas"] == REPLICAS_MAX
    config = {key: str(value) for key, value in topic["spec"]["config"].items()}
    assert config == _settings(kept, REPLICAS_MAX)


def test_topics_and_user_are_of_one_cluster() -> None:
    labels = [one["metadata"]["labels"] for one in [*BY_NAME.values(), USER]]
    assert all(label == labels[0] for label in labels)
    assert set(labels[0]) == {"strimzi.io/cluster"}


def test_the_user_may_use_every_topic_and_group_of_a_worker() -> None:
    topics, groups = ACLS["topic"]["resource"], ACLS["group"]["resource"]
    assert topics["patternType"] == groups["patternType"] == "prefix"
    mirrors = [TOPICS.queue("q"), TOPICS.queue_retry("q"), TOPICS.dead_queue("q"), TOPICS.scheduled]
    assert all(name.startswith(topics["name"]) for name in [*TOPICS.retention_ms(), *mirrors])
    bulk = BulkIntake("localhost:9092", TOPICS, session_timeout_s=6, heartbeat_s=1)._group
    assert all(name.startswith(groups["name"]) for name in ("ojs-workers", bulk))
    assert {"Read", "Write", "Describe", "DescribeConfigs", "Create", "Delete"} == set(ACLS["topic"]["operations"])


def test_the_procfile_starts_a_worker() -> None:
    kind, line = (ROOT / "Procfile").read_text().strip().split(": ", 1)
    assert kind == "web"
    check_command(re.sub(r"\$\{(\w+):-(\w+)\}", r"\2", line))


def test_systemd_starts_a_worker_again_and_lets_it_stop() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((DEPLOY / "systemd" / "ojs-stream.service").read_text())
    service = unit["Service"]
    check_command(service["ExecStart"])
    check_settings(re.findall(r"\b(OJS_\w+)=", service["Environment"]))
    assert service["Restart"] == "always"
    assert int(service["TimeoutStopSec"]) > STOP_S
