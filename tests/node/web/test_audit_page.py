"""The audit trail on the page: filtered, exported, and that somebody has read it."""

from __future__ import annotations

import csv
import io

from db.audit import AuditEntry
from db.queries.study_details import study_detail
from tests.node.web.conftest import NOW, Site


def test_it_is_filtered(site: Site) -> None:
    client = site.logged_in("admin")
    client.get("/studies/1")
    site.services.audit.add(AuditEntry(NOW, "MODALITY9", "receive", failed=True, study_instance_uid="1.2.3"))
    shown = client.get("/audit?actor=MODALITY9&outcome=failed&event=DICOM+Instances+Transferred").text
    assert "<td>MODALITY9</td>" in shown
    assert "View study" not in shown
    assert "<td>MODALITY9</td>" not in client.get("/audit?outcome=success").text
    assert "View study" in client.get("/audit?study=1&from=2026-03-01&to=2026-03-01").text
    assert "No entry." in client.get("/audit?from=2031-01-01").text
    assert client.get("/audit?from=x&event=x&study=x&page=x").status_code == 200
    assert site.services.audit.entries(limit=1)[0].action == "view audit"


def test_what_is_filtered_is_exported(site: Site) -> None:
    client = site.logged_in("admin")
    client.get("/studies/1")
    answer = client.get("/audit/export?format=csv&event=DICOM+Instances+Accessed")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert {row["action"] for row in rows} == {"view study"}
    assert {row["study_instance_uid"] for row in rows} != {""}
    assert client.get("/audit/export?format=json&study=1").json()[-1]["actor"] == "ada"
    assert client.get("/audit/export?format=exe").status_code == 404
    assert site.services.audit.entries(limit=1)[0].detail.endswith("entries as json")


def test_an_image_that_is_asked_for_alone_is_a_view_of_its_study_once(site: Site) -> None:
    client = site.logged_in("viewer")
    image = f"/studies/1/images/{site.services.database.read(study_detail, 1).instances[0].id}.png"

    def views() -> list[str]:
        return [
            one.detail for one in site.services.audit.entries() if (one.action, one.actor) == ("view study", "vera")
        ]

    for _ in range(2):
        assert client.get(image).status_code == 200
    assert views() == ["image"]
    client.get("/studies/1")
    client.get("/studies/1/history")
    client.get(image)
    assert views() == ["", "image"]
    site.clock.forward(minutes=31)
    client.get("/studies/1/history")
    assert views() == ["history", "", "image"]


def test_it_says_what_the_last_verification_has_found(site: Site) -> None:
    client = site.logged_in("admin")
    site.services.audit.add(AuditEntry(NOW, "scheduler", "verify audit", detail="7 entries hold, up to 7"))
    assert "7 entries hold, up to 7" in client.get("/audit").text
    site.services.audit.add(AuditEntry(NOW, "scheduler", "audit is broken", detail="entry 3 is missing", failed=True))
    shown = client.get("/audit").text
    assert "Broken" in shown
    assert "entry 3 is missing" in shown
