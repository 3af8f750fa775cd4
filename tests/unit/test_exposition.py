"""The metrics page, and everything that names its metrics: docs/metrics.md, the dashboard, the alert rules."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ojs_stream.core.records import Counts
from ojs_stream.telemetry.exposition import families, render
from ojs_stream.telemetry.facts import QueueFacts, StoreFacts, WorkerFacts
from ojs_stream.telemetry.meters import HomeMeter, WebMeter
from tests.support.builders import Fold
from tests.support.facts import partition, worker_facts

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "ojs-stream.json"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
RUNBOOKS = ROOT / "docs" / "runbooks.md"
METRICS = ROOT / "docs" / "metrics.md"
_NAME = re.compile(r"(?<![\w$])(?:ojs|process|python)_\w+")
_DEMANDED = {
    "counter": ("ojs_job_enqueued", "ojs_job_completed", "ojs_job_failed", "ojs_job_retried", "ojs_job_cancelled"),
    "histogram": ("ojs_job_duration_seconds", "ojs_job_queue_time_seconds", "ojs_job_enqueue_duration_seconds"),
    "gauge": ("ojs_queue_depth", "ojs_workers_active", "ojs_workers_busy"),
}
"""OJS.md 6.3, by type."""


def samples(facts: WorkerFacts) -> dict[str, dict[tuple[str, ...], float]]:
    """Sample name -> label values -> value, as a scraper reads the page."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(render(facts).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def names() -> set[str]:
    """Every sample name that a page may have."""
    found: set[str] = set()
    for family in text_string_to_metric_families(render(worker_facts()).decode()):
        found.update(_samples_of(family.name, family.type))
    return found


def _samples_of(name: str, kind: str) -> list[str]:
    match kind:
        case "counter":
            return [f"{name}_total"]
        case "histogram":
            return [f"{name}_bucket", f"{name}_sum", f"{name}_count"]
        case _:
            return [name]


# ------------------------------------------------------------------ the page


def test_a_page_has_what_ojs_demands_even_before_anything_happened() -> None:
    found = {family.name: family.type for family in families(worker_facts())}
    assert {name: kind for kind, all_of in _DEMANDED.items() for name in all_of}.items() <= found.items()


def test_every_metric_is_named_as_prometheus_wants_it_and_says_what_it_is() -> None:
    for family in families(worker_facts()):
        assert re.fullmatch(r"ojs_[a-z_]*[a-z]", family.name)
        assert family.documentation.endswith(".")


def test_a_partition_says_where_it_stands() -> None:
    home = HomeMeter()
    home.committed(records=3, commands=40)
    home.fences, home.recoveries, home.lost_events = 1, 2, 3
    found = samples(worker_facts(homes={0: home}))
    assert found["ojs_partition_applied_offset"] == {("0",): 7}
    assert found["ojs_partition_end_offset"] == {("0",): 10}
    assert found["ojs_partition_lag_records"] == {("0",): 2}
    assert found["ojs_partition_oldest_command_age_seconds"] == {("0",): 1.5}
    assert found["ojs_outbox_backlog"][("events", "0")] == 4
    assert found["ojs_partition_records_total"] == {("0",): 3}
    assert found["ojs_round_commands_sum"] == {("0",): 40}
    assert found["ojs_round_commands_bucket"][("32.0", "0")] == 0
    assert found["ojs_round_commands_bucket"][("64.0", "0")] == 1
    assert found["ojs_partition_fences_total"] == {("0",): 1}
    assert found["ojs_partition_recoveries_total"] == {("0",): 2}
    assert found["ojs_events_lost_total"] == {("0",): 3}


def test_without_kafka_there_is_no_lag_instead_of_a_wrong_one() -> None:
    found = samples(worker_facts(partitions=(partition(end=None, phase="catching_up"),), backend_up=False))
    assert "ojs_partition_lag_records" not in found
    assert "ojs_partition_end_offset" not in found
    assert found["ojs_partition_live"] == {("0",): 0}
    assert found["ojs_backend_up"] == {(): 0}


def test_an_empty_partition_has_no_lag() -> None:
    found = samples(worker_facts(partitions=(partition(applied=-1, end=0, oldest_s=0.0),)))
    assert found["ojs_partition_lag_records"] == {("0",): 0}


def test_jobs_are_counted_by_queue_and_type() -> None:
    facts, fold = worker_facts(), Fold()
    fold.active("mail", type="mail.send")
    for event in fold.sent:
        facts.jobs.on_event(event)
    found = samples(facts)
    assert found["ojs_job_enqueued_total"] == {("mail", "mail.send"): 1}
    assert found["ojs_job_queue_time_seconds_count"] == {("mail", "mail.send"): 1}
    assert "ojs_job_completed_total" not in found


def test_requests_are_counted_by_the_template_of_their_route() -> None:
    web = WebMeter()
    web.route("GET", "/ojs/v1/jobs/{id}").answered(404, 0.02)
    web.route("GET", "/never/asked")
    web.enqueued("mail", 0.003)
    found = samples(worker_facts(web=web))
    assert found["ojs_http_requests_total"] == {("GET", "/ojs/v1/jobs/{id}", "404"): 1}
    assert found["ojs_http_request_duration_seconds_sum"] == {("GET", "/ojs/v1/jobs/{id}"): 0.02}
    assert found["ojs_job_enqueue_duration_seconds_count"] == {("mail",): 1}


def test_queues_show_their_states() -> None:
    queues = (QueueFacts(name="q", counts=Counts(available=3, active=2), paused=True),)
    found = samples(worker_facts(store=StoreFacts(queues=queues, workers=4)))
    assert found["ojs_queue_depth"][("q", "available")] == 3
    assert len(found["ojs_queue_depth"]) == len(Counts.__struct_fields__)
    assert found["ojs_queue_paused"] == {("q",): 1}
    assert found["ojs_workers_busy"] == {("q",): 2}
    assert found["ojs_workers_active"] == {(): 4}


def test_a_page_tells_of_its_process() -> None:
    found = samples(worker_facts())
    assert found["process_resident_memory_bytes"][()] > 0
    assert "python_gc_collections_total" in found
    assert found["ojs_stream_info"] == {("1.2.3",): 1}


# ------------------------------------------------------------------ what names metrics


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    told = {}
    for line in METRICS.read_text().splitlines():
        match = re.fullmatch(r"\| `(ojs_\w+)` \| (\w+) \| ([^|]*) \| (.+) \|", line)
        if match:
            told[match[1]] = (match[2], match[4])
    real = {}
    for family in families(worker_facts()):
        name = {"counter": f"{family.name}_total", "info": f"{family.name}_info"}.get(family.type, family.name)
        real[name] = (family.type, family.documentation.removesuffix("."))
    assert told == real


def _expressions(node: Any) -> list[str]:
    """All PromQL of a dashboard."""
    if isinstance(node, dict):
        own = [node[key] for key in ("expr", "query", "definition") if isinstance(node.get(key), str)]
        return own + [text for value in node.values() for text in _expressions(value)]
    if isinstance(node, list):
        return [text for value in node for text in _expressions(value)]
    return []


def test_the_dashboard_names_only_metrics_that_exist() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    used = {name for text in _expressions(dashboard) for name in _NAME.findall(text)}
    assert len(used) > 20
    assert used <= names()


def test_every_panel_of_the_dashboard_has_a_title_a_query_and_a_place() -> None:
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    assert len(panels) >= 12
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        assert [target["expr"] for target in panel["targets"]]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    assert len({panel["id"] for panel in panels}) == len(panels)


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_alert_rules_name_only_metrics_that_exist() -> None:
    for rule in _rules():
        used = set(_NAME.findall(rule["expr"]))
        assert used, rule["alert"]
        assert used <= names(), rule["alert"]


def _anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_every_alert_has_a_severity_a_sentence_and_a_runbook_section() -> None:
    anchors = _anchors(RUNBOOKS.read_text())
    rules = _rules()
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page.endswith("docs/runbooks.md")
        assert anchor == rule["alert"].lower()
        assert anchor in anchors


@pytest.mark.parametrize("part", ["**What it means.**", "**How to look.**", "**What to do.**"])
def test_every_runbook_section_is_of_an_alert_and_has_all_its_parts(part: str) -> None:
    sections = re.split(r"^## ", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]
    titles = [section.splitlines()[0].strip("` ") for section in sections]
    assert titles == [rule["alert"] for rule in _rules()]
    assert [title for title, section in zip(titles, sections, strict=True) if part not in section] == []


def test_runbooks_name_only_metrics_that_exist() -> None:
    used = set(_NAME.findall(RUNBOOKS.read_text()))
    assert used <= names() | {family.name for family in families(worker_facts())}
