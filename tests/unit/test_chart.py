"""The Helm chart: what a real helm made of it (``make chart``) against Kubernetes' schemas and against us."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

import ojs_stream
from tests.support.shipping import STOP_S, check_probe, check_settings, documents
from tools.chart import CASES, CHART, DIGEST, VALUES, digest_of, rendered_path

ALL = sorted(CASES.glob(f"*{VALUES}"))
#: The oldest that Chart.yaml allows, and a new one.
KUBERNETES = ("1.30", "1.37")
#: Kinds of operators: Kubernetes has no schema of these.
FOREIGN = {"ScaledObject", "PodMonitor"}
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())


def _rendered(name: str) -> dict[str, dict[str, Any]]:
    found = documents(rendered_path(CASES / f"{name}{VALUES}"))
    return {one["kind"]: one for one in found}


@pytest.fixture(params=[path.name.removesuffix(VALUES) for path in ALL])
def objects(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """The objects of one set of values, by kind."""
    return _rendered(request.param)


def _pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = objects["Deployment"]["spec"]["template"]
    return pod


def _container(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (container,) = _pod(objects)["spec"]["containers"]
    found: dict[str, Any] = container
    return found


# ------------------------------------------------------------------------------------------------ the chart


@pytest.mark.parametrize("values", ALL, ids=lambda path: path.name)
def test_what_is_tested_was_rendered_from_this_chart(values: Path) -> None:
    first, _ = rendered_path(values).read_text().split("\n", 1)
    assert first == DIGEST + digest_of(values), "the chart or these values have changed: run `make chart`"


def test_the_chart_installs_this_release() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == ojs_stream.__version__


def test_every_value_that_a_template_takes_has_a_default() -> None:
    used = {
        name
        for path in (CHART / "templates").iterdir()
        for name in re.findall(r"\.Values\.([\w.]+)", path.read_text())
    }
    assert used
    for name in used:
        node: Any = DEFAULTS
        for part in name.split("."):
            assert part in node, f"values.yaml has no {name}"
            node = node[part]


def test_the_defaults_fit_the_schema_of_values() -> None:
    _check_values({})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"replica": 3}, "replica"),
        ({"replicas": 0}, "minimum"),
        ({"config": {"kafka_brokers": "a:1"}}, "does not match"),
        ({"config": {"KAFKA_BROKERS": ["a:1"]}}, "is not of type"),
        ({"terminationGracePeriodSeconds": 30}, "minimum"),
        ({"networkPolicy": {"kafka": {"ports": []}}}, "non-empty"),
        ({"scaling": {"prometheus": "prometheus:9090"}}, "does not match"),
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=said):
        _check_values(wrong)


def _check_values(changed: dict[str, Any]) -> None:
    values = copy.deepcopy(DEFAULTS)
    for name, value in changed.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    jsonschema.validate(values, json.loads((CHART / "values.schema.json").read_text()))


def test_the_defaults_name_settings_only() -> None:
    check_settings([*DEFAULTS["config"], *DEFAULTS["secret"]["values"]])


# ------------------------------------------------------------------------------------------------ what it makes


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_fits_its_schema(objects: dict[str, dict[str, Any]], version: str) -> None:
    for kind, one in objects.items():
        if kind not in FOREIGN:
            kubernetes_validate.validate(one, version, strict=True)


def test_a_worker_is_told_settings_only(objects: dict[str, dict[str, Any]]) -> None:
    secret = objects.get("Secret", {"stringData": {}})["stringData"]
    named = [one["name"] for one in _container(objects)["env"]]
    check_settings([*objects["ConfigMap"]["data"], *secret, *named])


def test_large_numbers_stay_as_they_are() -> None:
    data = _rendered("everything")["ConfigMap"]["data"]
    assert data["OJS_BODY_BYTES_MAX"] == "4194304"
    assert data["OJS_KAFKA_QUEUE_TOPICS"] == "true"


def test_whatever_selects_workers_selects_them(objects: dict[str, dict[str, Any]]) -> None:
    labels = _pod(objects)["metadata"]["labels"].items()
    selectors = [objects["Service"]["spec"]["selector"]]
    kinds = [kind for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor") if kind in objects]
    selectors.extend(objects[kind]["spec"]["selector"]["matchLabels"] for kind in kinds)
    if "NetworkPolicy" in objects:
        selectors.append(objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"])
    assert all(selector.items() <= labels for selector in selectors)


def test_what_a_worker_refers_to_is_made_or_named_by_the_user(objects: dict[str, dict[str, Any]]) -> None:
    config, secret = _container(objects)["envFrom"]
    assert config["configMapRef"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    assert _pod(objects)["spec"]["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
    made = objects["Secret"]["metadata"]["name"] if "Secret" in objects else "ojs-credentials"
    assert secret["secretRef"]["name"] == made


def test_probes_ask_what_the_server_answers(objects: dict[str, dict[str, Any]]) -> None:
    container = _container(objects)
    paths = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    for path in paths.values():
        check_probe(path)
    assert paths["readinessProbe"] == "/ready"
    assert paths["livenessProbe"] == "/livez", "an outage of Kafka must not restart every worker"


def test_a_worker_is_not_root_and_writes_only_into_its_volumes(objects: dict[str, dict[str, Any]]) -> None:
    assert _pod(objects)["spec"]["securityContext"]["runAsNonRoot"]
    container = _container(objects)
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    datadir = next(one["value"] for one in container["env"] if one["name"] == "OJS_DATADIR")
    writable = {one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")}
    assert any(Path(datadir).is_relative_to(path) for path in writable)
    volumes = {one["name"] for one in _pod(objects)["spec"]["volumes"]}
    assert {one["name"] for one in container["volumeMounts"]} == volumes


def test_a_worker_may_take_its_time_to_stop(objects: dict[str, dict[str, Any]]) -> None:
    pause = _container(objects)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert _pod(objects)["spec"]["terminationGracePeriodSeconds"] > pause + STOP_S


def test_the_network_is_open_where_a_worker_must_go() -> None:
    egress = _rendered("default")["NetworkPolicy"]["spec"]["egress"]
    assert {port["port"] for rule in egress for port in rule["ports"]} == {53, 9092, 9093, 6379}


def test_scaling_is_off_until_it_is_asked_for() -> None:
    default, everything = _rendered("default"), _rendered("everything")
    assert "ScaledObject" not in default
    assert default["Deployment"]["spec"]["replicas"] == 3
    # Two owners of one number would fight over it.
    assert "replicas" not in everything["Deployment"]["spec"]
    target = everything["ScaledObject"]["spec"]["scaleTargetRef"]["name"]
    assert target == everything["Deployment"]["metadata"]["name"]


def test_everything_has_every_part() -> None:
    kinds = {"ScaledObject", "PodMonitor", "NetworkPolicy", "PodDisruptionBudget"}
    assert kinds <= set(_rendered("everything"))
    assert not kinds & set(_rendered("bare"))
