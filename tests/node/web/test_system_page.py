"""The system page: what it says of parts, destinations, disk and configuration, and nothing of patients."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from config.destinations import Destination
from config.listener import Listener
from config.settings import load
from db.destinations import DestinationLeases
from db.queries.metrics import Waiting
from db.queries.statistics import RunningWorker
from db.queries.system import DeliveryPace, Growth, delivery_paces, delivery_queue, growth
from db.states import DeliveryState
from db.tables import Delivery, Instance, Result
from node.monitoring.disk import days_left
from node.monitoring.parts import part_statuses
from node.monitoring.queue_health import UnservedQueue, unserved_queues
from node.monitoring.recent_warnings import recent_warnings
from node.web.time_charts import RANGES
from tests.node.web.conftest import NOW, Site
from tests.node.web.demo import CASES
from tests.workers.test_worker_id import holding
from workers.worker_id import RunningPart


def row_of(text: str, name: str) -> str:
    """The words of the table row of a part or destination."""
    found = next(row for row in re.findall(r"<tr>.*?</tr>", text, re.DOTALL) if f"<b>{name}</b>" in row)
    return " ".join(re.sub(r"<[^>]*>", " ", found).split())


# --- parts


def test_a_part_is_shown_while_it_runs_and_as_stopped_since_it_was_seen(site: Site) -> None:
    client = site.logged_in("admin")
    with holding(site.demo.folder, "listener") as listener:
        row = row_of(client.get("/system?part=live").text, "Listener")
        assert "Running" in row
        assert version("pleura") in row
        assert f"process {listener.pid}" in row
    site.clock.forward(minutes=7)
    row = row_of(client.get("/system?part=live").text, "Listener")
    assert "Stopped" in row
    assert "pleura listen" in row
    assert "last seen 2026-03-01 03:00:00 7 min ago" in row


def test_where_no_worker_takes_a_queue_worklist_and_study_say_so(site: Site) -> None:
    """A reader must not take an image that nobody analyses for one that is about to be."""
    study = site.demo.add(replace(CASES[3], minutes=0), 40, site.clock.now)
    client, found = site.logged_in("viewer"), "No worker takes jobs"
    site.clock.forward(minutes=10)
    assert f"{found}: images that wait there are not analysed" in client.get("/?part=rows").text
    assert f"Waiting for analysis. {found}." in client.get(f"/studies/{study}").text
    advice = "Start <code>pleura serve</code> or <code>pleura worker --queue jobs</code>;"
    assert advice in site.logged_in("radiologist").get("/system").text


@pytest.mark.parametrize(
    ("running", "oldest", "found"),
    [
        ([], 0, []),
        ([], 30, []),
        ([], 90, [UnservedQueue("jobs.gpu", 4, 90.0)]),
        (["jobs.gpu", "jobs.cpu"], 9000, []),
        (["jobs.cpu"], 90, [UnservedQueue("jobs.gpu", 4, 90.0)]),
        (["jobs.cpu"], 0, [UnservedQueue("jobs.gpu", 0, 0.0)]),
    ],
)
def test_a_queue_that_no_worker_takes_is_told_once_something_waits_or_others_are_taken(
    running: list[str], oldest: int, found: list[UnservedQueue]
) -> None:
    waiting = {"jobs.gpu": Waiting(4, NOW - timedelta(seconds=oldest)) if oldest else Waiting(0, None)}
    queues = ("jobs.cpu", "jobs.gpu")
    assert list(unserved_queues(queues, running, waiting, NOW)) == found


def test_a_part_that_was_never_seen_says_since_when_nobody_saw_it(site: Site) -> None:
    row = row_of(site.logged_in("radiologist").get("/system").text, "Scheduler")
    assert "not seen since 2026-03-01 03:00:00 , when this page was started" in row


def test_what_waits_is_said_beside_the_part_that_works_it_off(site: Site) -> None:
    text = site.logged_in("admin").get("/system?part=live").text
    waiting = site.services.statistics.queue_counts()
    assert row_of(text, "Analysis worker").endswith(f" {waiting.get('jobs.queued', 0)}")
    assert "SQLite 3." in row_of(text, "Database")
    assert "Does not answer" in row_of(text, "Broker")
    assert "Running" in row_of(text, "Admin page")


def test_a_worker_has_the_device_of_its_last_job_and_every_process_a_row() -> None:
    old = RunningPart("a-jobs-0", "jobs", "a", "a/jobs/0/", "0.9", 7, NOW, "auto")
    new = RunningPart("a-jobs-1", "jobs", "a", "a/jobs/1/", "1.0", 8, NOW, "auto")
    workers = (
        RunningWorker("a/jobs/0/0#1.x", None, None, 3, NOW - timedelta(hours=2), "gpu"),
        RunningWorker("a/jobs/0/0#2.y", None, None, 3, NOW, "cpu"),
        RunningWorker("a/jobs/10/0#2.y", None, None, 3, NOW, "gpu"),
    )
    waiting = {"jobs": Waiting(4, NOW - timedelta(minutes=5))}
    found = part_statuses(("listener", "jobs"), (new, old), {"listener": NOW}, waiting, workers)
    assert [(one.name, one.up, one.place, one.device) for one in found] == [
        ("listener", False, "", ""),
        ("jobs", True, "a-jobs-1", "auto"),
        ("jobs", True, "a-jobs-0", "cpu"),
    ]
    assert (found[0].last_seen_at, found[0].waiting, found[1].waiting) == (NOW, None, waiting["jobs"])


def test_the_live_part_says_nothing_of_a_patient(site: Site) -> None:
    text = site.logged_in("admin").get("/system?part=live").text
    assert "<html" not in text
    for case in CASES:
        assert case.name.partition("^")[0] not in text
        assert case.patient_id not in text


# --- destinations


def change(site: Site, values: dict[str, object], **where: object) -> None:
    """Change rows of the table of deliveries."""
    chosen = [getattr(Delivery, name) == value for name, value in where.items()]
    with site.services.engine.begin() as connection:
        connection.execute(update(Delivery).where(*chosen).values(**values))


def test_a_destination_that_is_silent_says_until_when_nobody_calls_it(site: Site) -> None:
    client = site.logged_in("admin")
    leases = DestinationLeases(site.services.engine)
    leases.record_no_answer("pacs", NOW + timedelta(minutes=4))
    leases.record_no_answer("pacs", NOW + timedelta(minutes=8))
    row = row_of(client.get("/system?part=live").text, "pacs")
    assert "Not called until 03:08 2 calls in a row without an answer" in row
    site.clock.forward(minutes=9)
    assert "Tried again by one worker, after 2 calls" in row_of(client.get("/system?part=live").text, "pacs")
    leases.record_answer("pacs")
    assert "without an answer" not in row_of(client.get("/system?part=live").text, "pacs")


def test_success_and_latency_of_a_destination_count_the_last_day(site: Site) -> None:
    read = site.services.database.read
    change(site, {"state": DeliveryState.WITHDRAWN, "sent_at": None, "attempts": 0, "created_at": NOW})
    with site.services.engine.begin() as connection:
        ids = list(connection.scalars(select(Delivery.id).where(Delivery.destination == "archive")))
    assert read(delivery_paces, NOW - timedelta(days=1)) == {}
    first, second = ids[:2]
    sent = {"state": DeliveryState.SENT, "created_at": NOW - timedelta(seconds=90)}
    change(site, sent | {"attempts": 3, "sent_at": NOW}, id=first)
    change(site, sent | {"attempts": 1, "sent_at": NOW - timedelta(days=2)}, id=second)
    assert read(delivery_paces, NOW - timedelta(days=1)) == {"archive": DeliveryPace(1, 3, (90.0,))}
    change(site, {"state": DeliveryState.PENDING, "attempts": 2, "created_at": NOW, "sent_at": None}, id=second)
    pace = read(delivery_paces, NOW - timedelta(days=1))["archive"]
    assert (pace, pace.success) == (DeliveryPace(1, 5, (90.0,)), 0.2)
    row = row_of(site.logged_in("admin").get("/system?part=live").text, "archive")
    assert "20 % accepted 1 of 5" in row
    assert "median 90.0 s" in row


def test_the_queue_of_a_destination_is_listed_by_study_without_the_patient(site: Site) -> None:
    waits = {"state": DeliveryState.PENDING, "created_at": NOW - timedelta(hours=3), "attempts": 4}
    change(site, waits | {"due_at": NOW + timedelta(minutes=5)}, destination="pacs")
    queue = site.services.database.read(delivery_queue, "pacs")
    assert queue.count == len(queue.first) > 0
    assert queue.oldest == NOW - timedelta(hours=3)
    text = site.logged_in("admin").get("/system?part=live").text
    assert "the oldest for 3 h 00 min" in row_of(text, "pacs")
    assert f"{queue.count} objects on the way to pacs" in text
    assert text.partition('id="destinations"')[2].count("2026-03-01 03:05:00 UTC") == queue.count
    assert "on the way to archive" not in text


def test_a_test_object_is_sent_by_an_admin_who_hears_what_became_of_it(site: Site) -> None:
    client = site.logged_in("admin")
    answer = client.post("/system/destinations/archive/test")
    assert answer.headers["location"] == "/system?tested=archive"
    text = client.get(answer.headers["location"]).text
    assert "archive has taken the test object" in text
    assert "Study Instance UID <code>2.25.1</code>" in text
    text = client.get(client.post("/system/destinations/pacs/test").headers["location"]).text
    assert "pacs has not taken the test object:</b> Connection refused." in text
    assert site.services.audit.entries(limit=1)[0].action == "send test object"
    assert client.post("/system/destinations/elsewhere/test").status_code == 404
    assert site.logged_in("radiologist").post("/system/destinations/pacs/test").status_code == 403


def test_every_kind_of_destination_is_named_and_offers_what_it_can_do(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = (
        Destination(name="epr", kind="fhir", url="https://epr.example/fhir", patient_id_system="urn:oid:1.2.3"),
        Destination(name="asked", kind="on-request"),
        Destination(name="study", kind="deidentified", folder=Path("/research")),
        Destination(name="web", kind="dicomweb", url="https://pacs.example/dicom-web"),
    )
    settings = site.services.settings.model_copy(update={"destinations": others})
    monkeypatch.setitem(vars(site.services), "settings", settings)
    client = site.logged_in("admin")
    text = client.get("/system?part=live", headers={"accept-language": "de"}).text
    assert "FHIR https://epr.example/fhir" in row_of(text, "epr")
    assert "auf Abruf hier, zum Abruf" in row_of(text, "asked")
    assert "de-identifiziert /research" in row_of(text, "study")
    assert "DICOMweb https://pacs.example/dicom-web" in row_of(text, "web")
    offered = {name for name in ("epr", "asked", "study", "web") if f"/destinations/{name}/test" in text}
    assert offered == {"web"}, "only a DICOM server can take an object that is no result of a study"
    assert client.post("/system/destinations/epr/test").status_code == 404


# --- throughput and latency, warnings


@pytest.mark.parametrize("name", RANGES)
def test_every_range_has_charts_with_axes_and_a_table(site: Site, name: str) -> None:
    text = site.logged_in("radiologist").get(f"/system?range={name}").text
    assert text.count('<ol class="y-axis') == text.count('<ol class="x-axis') == 4
    assert re.search(rf'href="/system\?range={name}#trends" aria-current="true"', text)
    table = text.partition('id="trend-table"')[2].partition("</table>")[0]
    assert table.count("<tr>") == RANGES[name].count + 1


def test_a_range_that_nobody_knows_is_a_day(site: Site) -> None:
    text = site.logged_in("radiologist").get("/system?range=1y").text
    assert 'range=24h#trends" aria-current="true"' in text


def test_an_admin_sees_the_latest_warnings_of_every_part_once(site: Site) -> None:
    folder = site.settings.store.folder
    assert "No part has warned of anything." in site.logged_in("admin").get("/system").text
    line = '{"time": "2026-03-01T02:%02d:00Z", "level": "WARNING", "logger": "node.dicom", "message": "%s"}'
    many = [line % (minute, "the disk is nearly full") for minute in (10, 11, 12)]
    (folder / "part-here-listener-0.warnings").write_text("\n".join([*many, "cut o"]))
    (folder / "part-here-listener-0.warnings.1").write_text(line % (5, "the disk is nearly full"))
    (folder / "worker-there-jobs-1.warnings").write_text(line.replace("2026-03", "2026-01") % (20, "<b>odd</b>"))
    (folder / "worker-there-jobs-2.warnings").write_text(line % (20, "<b>odd</b>"))
    found = recent_warnings(folder, NOW)
    assert [(one.place, one.count) for one in found] == [("there-jobs-2", 1), ("here-listener-0", 4)]
    text = site.logged_in("admin").get("/system").text
    assert "the disk is nearly full" in text
    assert "&lt;b&gt;odd" in text
    assert "Recent warnings" not in site.logged_in("radiologist").get("/system").text


# --- disk


@pytest.mark.parametrize(
    ("free", "bytes_per_day", "age_days", "keep_days", "days"),
    [
        (100e9, 2e9, 400, 0, 50),
        (100e9, 2e9, 400, 30, None),  # as much goes as comes
        (100e9, 2e9, 10, 30, None),  # full in 50 days, but in 20 days the first files go
        (30e9, 2e9, 10, 30, 15),
        (-1, 2e9, 400, 0, 0),
        (100e9, 0, 400, 0, None),
        (100e9, None, 0.5, 0, None),
    ],
)
def test_days_left_count_until_files_are_removed_as_fast_as_they_come(
    free: float, bytes_per_day: float | None, age_days: float, keep_days: int, days: float | None
) -> None:
    assert days_left(free, Growth(bytes_per_day, age_days), keep_days) == days


def test_the_store_grows_by_what_came_in_the_last_week(site: Site) -> None:
    engine, read = site.services.engine, site.services.database.read
    with engine.begin() as connection:
        connection.execute(update(Instance).values(received_at=NOW - timedelta(days=20), byte_count=10**9))
        connection.execute(update(Result).values(created_at=NOW - timedelta(days=20), byte_count=10**6))
        assert growth(connection, NOW) == Growth(0, 20)
        connection.execute(update(Result).values(created_at=NOW - timedelta(days=3), byte_count=10**6))
        latest = connection.scalar(select(func.max(Instance.id)))
        connection.execute(update(Instance).where(Instance.id == latest).values(received_at=NOW - timedelta(days=6)))
        number = connection.scalar(select(func.count()).select_from(Result))
    assert number
    found = read(growth, NOW)
    assert found.bytes_per_day == pytest.approx((10**9 + number * 10**6) / 7)
    assert "143 MB a day" in site.logged_in("admin").get("/system?part=live").text
    # A node of two days has had no week.
    with engine.begin() as connection:
        connection.execute(update(Instance).values(received_at=NOW - timedelta(days=2), byte_count=0))
        connection.execute(update(Result).values(created_at=NOW - timedelta(days=1), byte_count=10**6))
    assert read(growth, NOW) == Growth(number * 10**6 / 2, 2)
    assert read(growth, NOW - timedelta(days=1.5)).bytes_per_day is None


# --- configuration


def test_an_admin_sees_the_settings_in_force_and_what_waits_for_a_restart(site: Site) -> None:
    client = site.logged_in("admin")
    text = client.get("/system").text
    assert "Nothing waits for a restart" in text
    assert "[listener]" in text
    changed = site.settings.model_copy(update={"listener": Listener(ae_title="CXR")})
    site.on_disk.append(lambda: changed)
    text = client.get("/system").text
    assert "1 setting waits for a restart" in text
    assert "listener.ae_title &#34;PLEURA&#34; &#34;CXR&#34;" in row_of(text, "listener.ae_title")
    assert "Settings in force" not in site.logged_in("radiologist").get("/system").text


def test_a_file_that_cannot_be_read_any_more_is_said_before_a_restart(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "pleura.toml"
    path.write_text("[listener]\nae_title = 'A TITLE THAT IS TOO LONG'\n")
    site.on_disk.append(lambda: load(path))
    text = site.logged_in("admin").get("/system").text
    assert "a part that is restarted would not start:" in text
    assert "an AE title has 1 to 16 ASCII characters" in text
