"""docker-compose.yml, the image and what they mount, without a Docker engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.shipping import (
    DEPLOY,
    ROOT,
    STOP_S,
    check_command,
    check_probe,
    check_settings,
    documents,
    seconds,
)

COMPOSE = ROOT / "docker-compose.yml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
WORKERS = {name: service for name, service in SERVICES.items() if name.startswith("ojs-")}
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def test_it_fits_the_specification_of_compose_files() -> None:
    check = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    answer = subprocess.run([sys.executable, *check], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_published_port_is_on_the_loopback_address() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert "127.0.0.1:8080:8080" in ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_is_mounted_is_there() -> None:
    declared = set(yaml.safe_load(COMPOSE.read_text())["volumes"])
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in declared or (ROOT / source).is_dir()


def test_who_is_waited_for_exists_and_says_when_it_is_healthy() -> None:
    for service in SERVICES.values():
        waited = service.get("depends_on", {})
        assert set(waited) <= set(SERVICES)
        if isinstance(waited, dict):
            assert all("healthcheck" in SERVICES[name] for name in waited)


def test_redis_keeps_what_it_is_told_and_evicts_nothing() -> None:
    words = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in words
    assert "--maxmemory-policy noeviction" in words


def test_kafka_is_its_own_controller_and_makes_no_topic_by_itself() -> None:
    environment = SERVICES["kafka"]["environment"]
    assert environment["KAFKA_PROCESS_ROLES"] == "broker,controller"
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_three_workers_are_told_settings_and_may_write_nowhere_else() -> None:
    assert len(WORKERS) == 3
    for worker in WORKERS.values():
        check_settings(worker["environment"])
        assert worker["read_only"]
        assert worker["cap_drop"] == ["ALL"]
        assert any(mount.startswith("/var/lib/ojs:uid=10001") for mount in worker["tmpfs"])


def test_a_worker_may_take_its_time_to_stop() -> None:
    assert all(seconds(worker["stop_grace_period"]) > STOP_S for worker in WORKERS.values())


def test_the_proxy_asks_each_worker_whether_it_is_ready() -> None:
    proxy = (DEPLOY / "caddy" / "Caddyfile").read_text()
    upstreams = re.search(r"reverse_proxy (.*) \{", proxy)
    asked = re.search(r"health_uri (\S+)", proxy)
    assert upstreams
    assert upstreams[1].split() == [f"{name}:8080" for name in WORKERS]
    assert asked
    check_probe(asked[1])


def test_prometheus_scrapes_each_worker() -> None:
    (config,) = documents(DEPLOY / "prometheus" / "prometheus.yml")
    (job,) = config["scrape_configs"]
    assert [target for one in job["static_configs"] for target in one["targets"]] == [
        f"{name}:8080" for name in WORKERS
    ]


def test_grafana_shows_dashboards_of_the_prometheus_beside_it() -> None:
    (sources,) = documents(DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml")
    (source,) = sources["datasources"]
    assert source["url"] == "http://prometheus:9090"
    for dashboard in (DEPLOY / "grafana").glob("*.json"):
        used = set(_uids(json.loads(dashboard.read_text())))
        assert {uid for uid in used if not uid.startswith("$")} <= {source["uid"], "-- Grafana --", "grafana"}


def _uids(node: Any) -> list[str]:
    """The data sources that a dashboard names."""
    if isinstance(node, list):
        return [uid for one in node for uid in _uids(one)]
    if not isinstance(node, dict):
        return []
    source = node.get("datasource")
    own = [source["uid"]] if isinstance(source, dict) and "uid" in source else []
    return own + [uid for one in node.values() for uid in _uids(one)]


# ------------------------------------------------------------------------------------------------ the image


def test_the_image_runs_the_worker_and_not_as_root() -> None:
    last = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    user = re.findall(r"^USER (\S+)$", last, re.MULTILINE)[-1]
    assert int(user) > 0
    assert f"--uid {user}" in last
    command = re.search(r"^CMD (\[.*\])$", last, re.MULTILINE)
    assert command
    check_command(json.loads(command[1]))


def test_the_image_checks_its_health() -> None:
    found = re.search(r"HEALTHCHECK.*?urlopen\(.*?(/\w+)\\\"", DOCKERFILE, re.DOTALL)
    assert found
    check_probe(found[1])


def test_the_image_sets_only_settings() -> None:
    check_settings(re.findall(r"\b((?:OJS|KAFKA|REDIS)_\w+)=", DOCKERFILE))


@pytest.mark.parametrize(
    "path",
    re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE),
    ids=lambda found: found.replace(" ", ","),
)
def test_what_the_image_is_built_from_is_sent_to_the_engine(path: str) -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name in path.split():
        assert name in sent
        assert (ROOT / Path(name)).exists()
