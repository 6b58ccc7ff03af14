"""What is done to all studies that the list shows."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

from db.queries.worklist import Worklist, WorklistPart
from node.web.pages.worklist_bulk import csv_of
from tests.node.web.conftest import Site


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_what_is_filtered_is_exported_in_its_order(site: Site) -> None:
    client = site.logged_in("viewer")
    answer = client.get("/worklist.csv?show=all&order=patient")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    rows = _rows(answer.text)
    assert [row["patient_name"] for row in rows] == ["Ferrante^Lucia", "Haddad^Samir", "Okafor^Daniel"]
    assert rows[2]["findings"].startswith("pneumothorax 0.9")
    assert rows[2]["received_at"].endswith("+00:00")
    assert {row["notice"] for row in rows} == {"Research use only. Pleura is not a medical device."}
    assert [row["patient_id"] for row in _rows(client.get("/worklist.csv?q=okafor").text)] == ["K-20418"]
    assert "Export worklist" in site.logged_in("admin").get("/audit").text
    assert "/worklist.csv?q=okafor" in client.get("/?q=okafor").text


def test_no_cell_is_a_formula_and_no_name_is_shown_that_is_hidden(site: Site) -> None:
    [row, *_] = site.services.worklist.page()
    evil = replace(row, study_description='=HYPERLINK("http://x")', patient_id="@1", accession_number="-5")
    [found] = _rows(csv_of([evil], hide_names=True))
    assert found["study_description"] == '\'=HYPERLINK("http://x")'
    assert (found["patient_id"], found["accession_number"]) == ("'@1", "'-5")
    assert found["patient_name"] == "name hidden"


def test_all_that_is_shown_is_changed_and_nothing_else(site: Site) -> None:
    client, reading = site.logged_in("radiologist"), site.services.worklist
    form = {"change": "hold", "count": "1", "reason": "wrong patient?"}
    done = client.post("/worklist/change?q=okafor", data=form)
    assert (done.status_code, done.headers["location"]) == (303, "/?q=okafor&changed=1&left=0")
    assert "Done for 1 study." in client.get(done.headers["location"]).text
    [held] = reading.page(show=WorklistPart.ON_HOLD)
    assert (held.patient_id, held.hold_reason) == ("K-20418", "wrong patient?")
    assert client.post("/worklist/change", data={"change": "release", "count": "3"}).headers["location"] == (
        "/?changed=1&left=2"
    ), "two were not on hold"
    assert client.post("/worklist/change", data={"change": "urgent", "count": "3"}).status_code == 303
    assert {row.priority.value for row in reading.page()} <= {"urgent", "critical"}
    client.post("/worklist/change", data={"change": "retry", "count": "3"})
    assert all(row.deliveries_failed == 0 and "failed" not in row.jobs for row in reading.page())


def test_a_list_that_has_changed_is_looked_at_again(site: Site) -> None:
    client = site.logged_in("radiologist")
    assert client.post("/worklist/change", data={"change": "hold", "count": "2"}).status_code == 409
    assert client.post("/worklist/change", data={"change": "delete", "count": "3"}).status_code == 400
    assert Worklist(site.services.engine).page(show=WorklistPart.ON_HOLD) == ()
    assert site.logged_in("viewer").post("/worklist/change", data={"change": "hold", "count": "3"}).status_code == 403
