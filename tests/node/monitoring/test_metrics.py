"""What Prometheus reads: by its own rules, true to the database and to other processes, and without patients."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from sqlalchemy import Connection

from node.listener_metrics import Instruments, read_instruments
from node.monitoring.metrics import OVERLAP, Follower
from tests.certificates import Certificates, certificates  # noqa: F401  (fixtures)
from tests.node.web.conftest import NOW, Site, filled, make_site, site  # noqa: F401  (fixtures)
from tests.node.web.demo import CASES
from workers.worker_id import occupied_places

DOCS = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


def metrics_of(site: Site) -> dict[str, Metric]:  # noqa: F811
    return {metric.name: metric for metric in site.services.metrics.collect()}


def value(site: Site, name: str, **labels: str) -> float:  # noqa: F811
    """The value of one sample; 0 if nothing was counted yet."""
    found = [
        s.value
        for metric in site.services.metrics.collect()
        for s in metric.samples
        if (s.name, s.labels) == (name, labels)
    ]
    assert len(found) <= 1
    return found[0] if found else 0.0


# --- what has ended, once each


@dataclass(frozen=True)
class Ended:
    key: int
    at: datetime


class Rows:
    """A table of which a query reads the rows after a time."""

    def __init__(self, *rows: Ended) -> None:
        self.rows = list(rows)

    def read(self, connection: Connection, since: datetime) -> list[Ended]:
        return [row for row in self.rows if row.at > since]


def test_each_row_is_counted_once_also_if_it_is_committed_late() -> None:
    connection: Connection = None  # type: ignore[assignment]
    before, after = Ended(1, NOW - timedelta(seconds=1)), Ended(2, NOW + timedelta(seconds=1))
    rows = Rows(before, after)
    follower = Follower(rows.read, NOW)

    assert follower.new(connection, NOW + timedelta(seconds=2)) == [after]
    assert follower.new(connection, NOW + timedelta(seconds=2)) == []
    late = Ended(3, NOW + timedelta(seconds=2) - OVERLAP / 2)
    rows.rows.append(late)
    assert follower.new(connection, NOW + timedelta(seconds=3)) == [late]
    for minute in (*range(1, 20), 2, 20):
        assert follower.new(connection, NOW + timedelta(minutes=minute)) == []


def test_what_ends_is_counted_and_what_ended_before_the_start_is_not(site: Site) -> None:  # noqa: F811
    jobs, arrivals = value(site, "pleura_jobs_finished_total", outcome="analysed"), "pleura_instances_received_total"
    assert (jobs, value(site, arrivals)) == (0, 0)
    site.clock.forward(minutes=1)
    site.demo.add(replace(CASES[0], minutes=0), 40, site.clock.now)
    site.demo.add(replace(CASES[5], minutes=0), 41, site.clock.now)
    site.demo.add(replace(CASES[4], minutes=0), 42, site.clock.now)
    site.demo.add(replace(CASES[1], minutes=0), 43, site.clock.now)
    site.clock.forward(minutes=3)

    assert value(site, arrivals) == 5
    assert value(site, "pleura_instances_not_eligible_total", code="lateral") == 1
    assert value(site, "pleura_jobs_finished_total", outcome="analysed") == 2
    assert value(site, "pleura_jobs_finished_total", outcome="not analysed") == 1
    assert value(site, "pleura_jobs_finished_total", outcome="failed") == 1
    assert value(site, "pleura_images_not_analysed_total", code="cropped") == 1
    assert value(site, "pleura_job_stage_duration_seconds_count", stage="queue") == 4
    assert value(site, "pleura_job_stage_duration_seconds_sum", stage="queue") == pytest.approx(4 * 0.4)
    assert value(site, "pleura_delivery_duration_seconds_count", destination="pacs") == 4
    assert value(site, arrivals) == 5  # asked again, nothing has come


def test_queues_say_how_much_waits_and_how_long(site: Site) -> None:  # noqa: F811
    assert value(site, "pleura_queue_oldest_age_seconds", queue="jobs") == 0
    site.demo.add(replace(CASES[3], minutes=0), 40, site.clock.now)
    site.clock.forward(minutes=10)
    assert value(site, "pleura_queue_length", queue="jobs") == 1
    assert value(site, "pleura_queue_oldest_age_seconds", queue="jobs") == 600
    assert value(site, "pleura_jobs", state="queued") == 1
    assert value(site, "pleura_deliveries", destination="pacs", state="failed") == 2


@pytest.mark.peer("openssl")
def test_the_end_of_a_certificate_in_use_is_told(
    filled: Path,  # noqa: F811
    certificates: Certificates,  # noqa: F811
    tmp_path: Path,
) -> None:
    secured = make_site(filled, tmp_path / "store", tls_certificate=certificates.node.certificate)
    ends = value(secured, "pleura_tls_certificate_end_timestamp_seconds", setting="admin.tls_certificate")
    assert ends == pytest.approx((datetime.now(UTC) + timedelta(days=20)).timestamp(), abs=3600)


# --- by the rules of Prometheus, and as documented


@pytest.mark.peer("promtool")
def test_promtool_finds_nothing_to_say(site: Site) -> None:  # noqa: F811
    text = site.user().get("/metrics").content
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_both_formats_hold_the_same(site: Site) -> None:  # noqa: F811
    client = site.user()
    plain = client.get("/metrics")
    open_format = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert plain.headers["content-type"].startswith("text/plain")
    assert open_format.headers["content-type"].startswith("application/openmetrics-text")
    names = [
        {metric.name for metric in read(answer.text)}
        for read, answer in ((read_text, plain), (read_openmetrics, open_format))
    ]
    assert names[0] == names[1] == set(metrics_of(site))


def documented() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Type, labels and meaning of each metric in the table of docs/metrics.md."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", DOCS.read_text(encoding="utf-8"), re.M)
    return {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows}


def test_the_table_of_metrics_is_true(site: Site) -> None:  # noqa: F811
    site.clock.forward(minutes=1)
    site.demo.add(replace(CASES[1], minutes=0), 40, site.clock.now)
    counted = Instruments()
    counted.cstore_duration.labels("0x0000").observe(1)
    counted.associations_rejected.labels("limit").inc()
    counted.count_acknowledgement("AA")
    families = [*site.services.metrics.collect(), *counted.registry.collect()]
    table = documented()
    found = {metric.name + ("_total" if metric.type == "counter" else ""): metric for metric in families}

    assert set(found) == set(table)
    for name, metric in found.items():
        kind, labels, text = table[name]
        assert (metric.type, metric.documentation) == (kind, text), name
        used = {label for sample in metric.samples for label in sample.labels} - {"le"}
        assert not metric.samples or used == set(labels), name


def test_no_label_is_of_a_patient_or_a_study(site: Site) -> None:  # noqa: F811
    texts = {
        label
        for metric in site.services.metrics.collect()
        for sample in metric.samples
        for label in sample.labels.values()
    }
    rows = site.services.worklist.rows(site.studies)
    for row in rows:
        for secret in (row.patient_name, row.patient_id, row.accession_number, row.study_instance_uid):
            assert not any(secret in text for text in texts)


# --- other processes

_PROCESS = """
import pathlib, sys
import workers.worker_id as places
from node.listener_metrics import open_instruments
folder = pathlib.Path(sys.argv[1])
with places.at_place(folder, sys.argv[2]) as place:
    counted = open_instruments(folder, place)
    counted.associations_accepted.inc(float(sys.argv[3]))
    counted.cstore_duration.labels("0x0000").observe(0.2)
    print(place, flush=True)
    sys.stdin.read()
"""


@contextmanager
def process(folder: Path, part: str, number: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", "-c", _PROCESS, str(folder), part, str(number)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline()
        try:
            yield started
        finally:
            started.kill()


def accepted(folder: Path) -> dict[str, float]:
    merged = read_instruments(folder, occupied_places(folder))
    return {sample.name: sample.value for metric in merged for sample in metric.samples if not sample.labels}


def test_processes_are_added_up_while_they_run(tmp_path: Path) -> None:
    assert accepted(tmp_path) == {}
    with process(tmp_path, "listener", 3), process(tmp_path, "listener", 4) as second:
        assert accepted(tmp_path) == {"pleura_associations_accepted_total": 7}
        assert sorted(occupied_places(tmp_path).values()) == ["listener", "listener"]
        second.kill()
        second.wait()
        assert accepted(tmp_path) == {"pleura_associations_accepted_total": 3}
        # Its place is taken again, and counts from zero.
        with process(tmp_path, "listener", 10):
            assert accepted(tmp_path) == {"pleura_associations_accepted_total": 13}


def test_a_broken_file_of_another_process_does_not_break_the_answer(site: Site) -> None:  # noqa: F811
    with process(site.demo.folder, "listener", 1):
        assert value(site, "pleura_part_up", part="listener") == 1
        [path] = (site.demo.folder / "metrics").glob("counter_*.db")
        path.write_bytes(b"\x10\x27\0\0torn")
        assert value(site, "pleura_part_up", part="listener") == 1
    assert value(site, "pleura_part_up", part="listener") == 0


# --- probes


def test_a_node_is_ready_when_everything_that_a_study_needs_is_there(site: Site) -> None:  # noqa: F811
    client = site.user()
    answer = client.get("/readyz")
    expected = {"database": True, "broker": False, "listener": False, "store": True, "models": True}
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "checks": expected})
    with process(site.demo.folder, "listener", 0):
        assert client.get("/readyz").json()["checks"] == expected | {"listener": True}
    assert client.get("/healthz").status_code == 200


def test_without_its_database_the_page_lives_and_says_what_is_missing(site: Site) -> None:  # noqa: F811
    (site.demo.folder / "pleura.sqlite").rename(site.demo.folder / "gone")
    site.services.engine.dispose()
    (site.demo.folder / "pleura.sqlite").mkdir()
    client = site.user()
    client.headers["authorization"] = "Bearer something"
    assert client.get("/healthz").status_code == 200
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert not answer.json()["checks"]["database"]
    text = client.get("/metrics").text
    assert 'pleura_part_up{part="database"} 0.0' in text
    assert "pleura_jobs{" not in text
    assert "pleura_store_free_bytes" in text
