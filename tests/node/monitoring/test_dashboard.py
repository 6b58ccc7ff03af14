"""The dashboard for Grafana and the alert rules for Prometheus: what they name is there, and each alert fires."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.node.monitoring.test_metrics import documented

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "grafana"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
ALERTS = {rule["alert"]: rule for rule in RULES}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
BY_PROMETHEUS = {"job", "instance", "le"}
"""Labels that Prometheus sets itself, and that of a histogram's buckets."""

HEALTHY = {
    'up{job="pleura"}': "1x320",
    'pleura_part_up{part="jobs"}': "1x320",
    'pleura_jobs{state="failed"}': "0x320",
    'pleura_jobs{state="on_hold"}': "0x320",
    'pleura_deliveries{destination="pacs",state="failed"}': "0x320",
    'pleura_deliveries{destination="pacs",state="on_hold"}': "0x320",
    'pleura_notifications{channel="email",state="failed"}': "0x320",
    'pleura_queue_oldest_age_seconds{queue="jobs"}': "30x320",
    "pleura_studies_overdue": "0x320",
    "pleura_instances_received_total": "0+1x320",
    'pleura_jobs_finished_total{outcome="analysed"}': "0+1x320",
    'pleura_jobs_finished_total{outcome="not analysed"}': "0+0.2x320",
    'pleura_associations_rejected_total{reason="unknown caller"}': "3x320",
    'pleura_cstore_duration_seconds_count{status="0xA700"}': "2x320",
    "pleura_store_free_bytes": "500000000000-50000000x320",
    "pleura_store_size_bytes": "1000000000000x320",
    "pleura_store_minimum_free_bytes": "20000000000x320",
    'pleura_tls_certificate_end_timestamp_seconds{setting="hl7.tls_certificate"}': "8640000x320",
    'pleura_hl7_messages_total{acknowledgement="AE"}': "1x320",
    'pleura_audit_oldest_age_seconds{repository="arr"}': "5x320",
    "pleura_audit_intact": "1x320",
    'pleura_model_drift_psi{model="m",version="1",label="l"}': "0.1x320",
    'pleura_image_drift_psi{measure="brightness"}': "0.1x320",
}
"""Series with a value every 5 minutes, as they go on a good day (the notation of ``promtool test rules``)."""
FAULTS: dict[str, dict[str, str]] = {
    "PleuraGone": {'up{job="pleura"}': "0x320"},
    "PleuraPartDown": {'pleura_part_up{part="jobs"}': "0x320"},
    "PleuraDeliveryFailed": {'pleura_deliveries{destination="pacs",state="failed"}': "3x320"},
    "PleuraJobFailed": {'pleura_jobs{state="failed"}': "1x320"},
    "PleuraNotificationFailed": {'pleura_notifications{channel="email",state="failed"}': "1x320"},
    "PleuraOnHold": {'pleura_jobs{state="on_hold"}': "1x320"},
    "PleuraWaitsLong": {'pleura_queue_oldest_age_seconds{queue="jobs"}': "700x320"},
    "PleuraOverdue": {"pleura_studies_overdue": "2x320"},
    "PleuraNoImages": {"pleura_instances_received_total": "7x320"},
    "PleuraManyNotAnalysed": {'pleura_jobs_finished_total{outcome="not analysed"}': "0+2x320"},
    "PleuraRejects": {'pleura_associations_rejected_total{reason="unknown caller"}': "0+1x320"},
    "PleuraOutOfResources": {'pleura_cstore_duration_seconds_count{status="0xA700"}': "0+1x320"},
    "PleuraDiskFills": {"pleura_store_free_bytes": "500000000000-1000000000x320"},
    "PleuraDiskLow": {"pleura_store_free_bytes": "60000000000x320"},
    "PleuraCertificateEnds": {
        'pleura_tls_certificate_end_timestamp_seconds{setting="hl7.tls_certificate"}': "864000x320"
    },
    "PleuraCertificateEnded": {'pleura_tls_certificate_end_timestamp_seconds{setting="hl7.tls_certificate"}': "1x320"},
    "PleuraHL7Errors": {'pleura_hl7_messages_total{acknowledgement="AE"}': "0+1x320"},
    "PleuraAuditWaits": {'pleura_audit_oldest_age_seconds{repository="arr"}': "900x320"},
    "PleuraAuditBroken": {"pleura_audit_intact": "0x320"},
    "PleuraDrift": {'pleura_model_drift_psi{model="m",version="1",label="l"}': "0.3x320"},
    "PleuraImageDrift": {'pleura_image_drift_psi{measure="brightness"}': "0.3x320"},
}
NEAR, ENDED = {"PleuraDiskFills", "PleuraCertificateEnds"}, {"PleuraDiskLow", "PleuraCertificateEnded"}


def _metrics(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric of Pleura in an expression, and the labels that it is selected by."""
    for name, selected in re.findall(r"(pleura_\w+)(?:\{([^}]*)\})?", expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selected))


def _of_table(name: str) -> str:
    """The metric of the table that a series belongs to: histograms have three series each."""
    return re.sub(r"_(bucket|count|sum)$", "", name) if name not in documented() else name


@pytest.mark.parametrize("expression", [*QUERIES, *(rule["expr"] for rule in RULES)])
def test_every_metric_and_label_that_is_asked_for_is_there(expression: str) -> None:
    known, asked = documented(), dict(_metrics(expression))
    assert {_of_table(name) for name in asked} <= set(known)
    labels = {label for name in asked for label in known[_of_table(name)][1]} | BY_PROMETHEUS
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")}
    assert set().union(grouped, *asked.values()) <= labels


def test_legends_and_texts_show_labels_that_their_metrics_have() -> None:
    shown = [(target["expr"], target["legendFormat"]) for panel in PANELS for target in panel["targets"]]
    shown += [(rule["expr"], " ".join(rule["annotations"].values())) for rule in RULES]
    for expression, text in shown:
        labels = {label for name, _ in _metrics(expression) for label in documented()[_of_table(name)][1]}
        assert set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", text)) <= labels, text


def test_grafana_itself_would_write_the_same_dashboard() -> None:
    """Grafana's own library reads it: what its schema does not have would be left out."""
    register_default_plugins()
    assert list(_lost(DASHBOARD, json.loads(json.dumps(Dashboard.from_json(DASHBOARD), cls=JSONEncoder)))) == []


def _lost(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where ``theirs`` lacks something of ``ours`` or says something else; what it adds are its defaults."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from _lost(value, theirs.get(key), f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from _lost(*pair, f"{path}[{number}]")
    elif ours != theirs:
        yield path


def test_panels_have_a_title_of_their_own_and_lie_beside_each_other() -> None:
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in DASHBOARD["panels"]):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.peer("promtool")
def test_prometheus_understands_every_query_and_rule(tmp_path: Path) -> None:
    queries = [query.replace("$job", ".*").replace("$__rate_interval", "5m") for query in QUERIES]
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries)]
    of_dashboard = tmp_path / "queries.yml"
    of_dashboard.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    command = ["promtool", "check", "rules", "--lint-fatal", str(FOLDER / "alerts.yml"), str(of_dashboard)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.peer("promtool")
def test_each_alert_fires_on_its_fault_and_none_on_a_good_day(tmp_path: Path) -> None:
    """Two bad days, since a disk cannot fill and be nearly full, nor a certificate end soon and have ended."""
    days = [_day(set()), _day(set(FAULTS) - ENDED), _day(set(FAULTS) - NEAR)]
    test = {"rule_files": [str(FOLDER / "alerts.yml")], "evaluation_interval": "5m", "tests": days}
    file = tmp_path / "test.yml"
    file.write_text(json.dumps(test), encoding="utf-8")
    tested = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, timeout=120)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def _day(alerts: set[str]) -> dict[str, Any]:
    """A day with the faults of some alerts, at whose end exactly these fire (Prometheus keeps them in ALERTS)."""
    values = HEALTHY.copy()
    for alert in alerts:
        values |= FAULTS[alert]
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(alerts)]
    return {
        "interval": "5m",
        "input_series": [{"series": name, "values": value} for name, value in values.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "26h",
                "exp_samples": samples,
            }
        ],
    }


def test_each_alert_says_what_happened_how_urgent_it_is_and_what_to_do_and_the_page_lists_it() -> None:
    assert set(ALERTS) == set(FAULTS)
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    for name, rule in ALERTS.items():
        assert set(rule["annotations"]) == {"summary", "action"}, name
        assert len(rule["annotations"]["action"]) > 40, name
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert f"| `{name}` | {rule['labels']['severity']} |" in page
