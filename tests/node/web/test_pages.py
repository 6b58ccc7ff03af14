"""What the pages show and what their buttons do, on the real database."""

from __future__ import annotations

import io
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from sqlalchemy import event

from db import deliveries, feedback, rejection_notes
from db.prepared_statements import Prepared
from db.queries import study_details
from db.queries.worklist import Worklist
from db.records import RejectionNote
from db.states import DeliveryState, JobState, Priority
from db.user_tables import Verdict
from node.web.formatting import plain
from node.web.routes import page_endpoints
from tests.node.web.conftest import NOW, Site
from tests.node.web.demo import Case, phantom, region

# Studies are made oldest first: 1 failed analysis, 2 lung opacity with failed deliveries, 3 pneumothorax.
FAILED, OPACITY, PNEUMOTHORAX = 1, 2, 3


def test_the_worklist_is_in_the_order_of_due_times(site: Site) -> None:
    text = site.logged_in("viewer").get("/").text
    assert text.index("Okafor, Daniel") < text.index("Haddad, Samir") < text.index("Ferrante, Lucia")
    assert "Pneumothorax" in text
    assert "Analysis failed" in text


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", {"Okafor", "Ferrante", "Haddad"}),
        ("?show=critical", {"Okafor"}),
        ("?show=failed", {"Haddad"}),
        ("?show=reported", set()),
        ("?q=ferr", {"Ferrante"}),
        ("?q=K-2", {"Okafor", "Haddad"}),
        ("?q=%25", set()),
        ("?q=chest+okafor", {"Okafor"}),
        ("?q=OKAFOR,+DANIEL", {"Okafor"}),
        ("?finding=pneumothorax", {"Okafor"}),
        ("?finding=pneumothorax&destination=archive&calling=NOBODY", set()),
        ("?show=all&state=open&from=2026-01-01&to=2030-12-31&modality=CR", {"Okafor", "Ferrante", "Haddad"}),
        ("?show=all&to=2026-01-01", set()),
        ("?from=nonsense&state=nonsense", {"Okafor", "Ferrante", "Haddad"}),
        ("?station=%00&to=2026-13-01", {"Okafor", "Ferrante", "Haddad"}),
        ("?page=2", set()),
        ("?show=nonsense&order=nonsense&page=-1", {"Okafor", "Ferrante", "Haddad"}),
    ],
)
def test_filter_search_and_paging(site: Site, query: str, shown: set[str]) -> None:
    text = site.logged_in("viewer").get("/" + query).text
    assert {name for name in ("Okafor", "Ferrante", "Haddad") if name + "," in text} == shown


def test_sorting_by_patient_both_ways(site: Site) -> None:
    client = site.logged_in("viewer")
    up, down = client.get("/?order=patient").text, client.get("/?order=patient&down=1").text
    assert up.index("Ferrante") < up.index("Haddad") < up.index("Okafor")
    assert down.index("Okafor") < down.index("Haddad") < down.index("Ferrante")


def test_what_a_peer_writes_into_a_header_is_never_markup(site: Site) -> None:
    evil = Case("<script>alert(1)</script>^X", '"><img src=x>', "F", "19700101", "<b>Chest</b>", 5, fate="waiting")
    study = site.demo.add(evil, 77, NOW)
    client = site.logged_in("admin")
    for path in ("/", f"/studies/{study}", f"/studies/{study}/history"):
        text = client.get(path).text
        assert "<script>alert" not in text
        assert "<img src=x>" not in text
        assert "<b>Chest" not in text


def test_a_page_shows_states_as_words(site: Site) -> None:
    studies = [
        site.demo.add(Case("Silva^Ana", f"K-9{number}", "F", "20010217", "Chest PA", 203, {}, fate=fate), number, NOW)
        for number, fate in enumerate(("on_hold", "not_analysed"), 78)
    ]
    client = site.logged_in("admin")
    pages = [f"/studies/{study}{part}" for study in studies for part in ("", "/history")]
    for path in ["/", "/?show=on-hold", "/system", *pages]:
        seen = re.sub(r"<[^>]*>", " ", client.get(path).text)
        assert not re.findall(r"\b(?:on_hold|not_eligible|not_analysed|not-frontal|settled)\b", seen), path
    assert "On hold" in client.get(f"/studies/{studies[0]}").text


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("not_eligible", "not eligible"),
        ("not-frontal", "not frontal"),
        ("done", "done"),
        ("sent late, a-b", "sent late, a-b"),
    ],
)
def test_states_and_codes_as_words(stored: str, shown: str) -> None:
    assert plain(stored) == shown


def test_worklist_and_study_say_where_a_finding_is(site: Site) -> None:
    client = site.logged_in("viewer")
    assert "<small>right lower zone</small>" in client.get("/").text
    assert "right lower zone, 21 % of the lung" in client.get(f"/studies/{OPACITY}").text


def test_looking_at_a_study_is_written_down(site: Site) -> None:
    site.logged_in("viewer").get(f"/studies/{OPACITY}")
    entry = site.services.audit.entries(limit=1)[0]
    assert (entry.actor, entry.action, entry.study_id) == ("vera", "view study", OPACITY)


def test_a_failed_job_is_run_again_and_enqueued_for(site: Site) -> None:
    client = site.logged_in("radiologist")
    job = site.services.database.read(study_details.study_detail, FAILED).jobs[0]
    assert job.state is JobState.FAILED
    assert client.post(f"/studies/{FAILED}/retry", data={"id": job.id}).status_code == 303
    assert site.services.database.read(study_details.study_detail, FAILED).jobs[-1].state is JobState.QUEUED
    assert job.id in dict(site.task_queue.jobs)
    assert site.services.audit.entries(limit=1)[0].action == "retry job"
    again = client.post(f"/studies/{FAILED}/retry", data={"id": job.id}, follow_redirects=True)
    assert "cannot become" in again.text


def test_a_job_of_another_study_is_not_touched(site: Site) -> None:
    client = site.logged_in("radiologist")
    job = site.services.database.read(study_details.study_detail, FAILED).jobs[0]
    assert client.post(f"/studies/{OPACITY}/retry", data={"id": job.id}).status_code == 404
    for wrong in ("", "x", "9" * 40, "-1"):
        assert client.post(f"/studies/{FAILED}/retry", data={"id": wrong}).status_code == 404
    assert site.task_queue.jobs == []


def test_a_failed_delivery_is_sent_again(site: Site) -> None:
    client = site.logged_in("radiologist")
    delivery = next(
        d
        for d in site.services.database.read(study_details.study_detail, OPACITY).deliveries
        if d.state.value == "failed"
    )
    assert client.post(f"/studies/{OPACITY}/resend", data={"id": delivery.id}).status_code == 303
    now = next(
        d for d in site.services.database.read(study_details.study_detail, OPACITY).deliveries if d.id == delivery.id
    )
    assert now.state.value == "pending"
    assert site.task_queue.deliveries == [delivery.id]


def test_hold_and_release(site: Site) -> None:
    client = site.logged_in("radiologist")
    client.post(f"/studies/{PNEUMOTHORAX}/hold", data={"reason": "two patients in one study"})
    assert "two patients in one study" in client.get(f"/studies/{PNEUMOTHORAX}").text
    assert site.services.worklist.counts()["on-hold"] == 1  # type: ignore[index]
    client.post(f"/studies/{PNEUMOTHORAX}/release")
    assert not site.services.database.read(study_details.study_detail, PNEUMOTHORAX).row.on_hold


def test_a_reported_study_leaves_every_worklist_and_comes_back(site: Site) -> None:
    client = site.logged_in("radiologist")
    client.post(f"/studies/{PNEUMOTHORAX}/reported")
    assert "Okafor" not in client.get("/").text
    assert "Okafor" in client.get("/?show=reported").text
    assert PNEUMOTHORAX not in [row.study_id for row in Worklist(site.services.database.engine).page()]
    client.post(f"/studies/{PNEUMOTHORAX}/unreported")
    assert "Okafor" in client.get("/").text
    events = [
        event
        for event in site.services.database.read(study_details.study_detail, PNEUMOTHORAX).events
        if event.actor == "rosa"
    ]
    assert [event.to_state for event in events] == ["reported", "unreported"]


@pytest.mark.parametrize(
    ("action", "data", "repeated"),
    [
        ("reported", {}, "Marked as reported"),
        ("unreported", {}, "Back on the worklist"),
        ("hold", {"reason": "why"}, "On hold"),
        ("release", {}, "Released"),
        ("priority", {"priority": "urgent"}, "The priority is set"),
    ],
)
def test_an_action_repeats_whose_study_it_was(site: Site, action: str, data: dict[str, str], repeated: str) -> None:
    client = site.logged_in("radiologist")
    row = site.services.worklist.rows([PNEUMOTHORAX])[0]
    if action == "release":
        client.post(f"/studies/{PNEUMOTHORAX}/hold")
    done = client.post(f"/studies/{PNEUMOTHORAX}/{action}", data=data)
    text = client.get(done.headers["location"]).text
    line = text[text.index('role="status">') :].partition("</p>")[0]
    assert repeated in line
    assert f"ID {row.patient_id}, accession {row.accession_number}, study of {row.study_date[:4]}-" in line
    assert "Okafor" in line


def test_the_api_repeats_whose_study_it_was(site: Site) -> None:
    client = site.logged_in("radiologist")
    row = site.services.worklist.rows([PNEUMOTHORAX])[0]
    answer = client.post(f"/api/v1/studies/{PNEUMOTHORAX}/reported").json()
    assert answer == {
        "done": True,
        "study": {
            "id": PNEUMOTHORAX,
            "study_instance_uid": row.study_instance_uid,
            "patient_id": row.patient_id,
            "patient_name": row.patient_name,
            "accession_number": row.accession_number,
            "study_date": row.study_date,
        },
    }


def test_an_address_puts_no_words_of_its_own_on_the_page(site: Site) -> None:
    client = site.logged_in("radiologist")
    assert "anything" not in client.get(f"/studies/{PNEUMOTHORAX}?done=anything").text


def test_a_priority_set_by_hand_moves_the_study_and_findings_are_never_lowered(site: Site) -> None:
    client = site.logged_in("radiologist")
    client.post(f"/studies/{FAILED}/priority", data={"priority": "critical"})
    row = site.services.worklist.rows([FAILED])[0]
    assert row.priority is Priority.CRITICAL
    client.post(f"/studies/{FAILED}/priority", data={"priority": "triage"})
    assert site.services.worklist.rows([FAILED])[0].priority is Priority.ROUTINE
    client.post(f"/studies/{PNEUMOTHORAX}/priority", data={"priority": "routine"})
    assert site.services.worklist.rows([PNEUMOTHORAX])[0].priority is Priority.CRITICAL
    assert client.post(f"/studies/{FAILED}/priority", data={"priority": "x"}).status_code == 400


def test_a_verdict_is_stored_shown_and_counted(site: Site) -> None:
    client = site.logged_in("radiologist")
    finding = site.services.database.read(feedback.findings, PNEUMOTHORAX)[0]
    address = f"/studies/{PNEUMOTHORAX}/findings/{finding.id}"
    client.post(address, data={"verdict": "accept"})
    client.post(address, data={"verdict": "reject", "comment": "skin fold"})
    given = site.services.database.read(feedback.of_study, PNEUMOTHORAX)
    assert [record.verdict for record in given] == [Verdict.ACCEPT, Verdict.REJECT]
    assert "skin fold" in client.get(f"/studies/{PNEUMOTHORAX}").text
    (counted,) = client.get("/api/v1/system").json()["agreement"]
    assert (counted["accepted"], counted["rejected"], counted["agreed"]) == (0, 1, 0.0)
    assert client.post(address, data={"verdict": "maybe"}).status_code == 400
    assert client.post(f"/studies/{FAILED}/findings/{finding.id}", data={"verdict": "accept"}).status_code == 404


def test_the_picture_carries_sixteen_bits_of_the_radiograph(site: Site) -> None:
    client = site.logged_in("viewer")
    instance = site.services.database.read(study_details.study_detail, OPACITY).instances[0]
    answer = client.get(f"/studies/{OPACITY}/images/{instance.id}.png")
    channels = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)
    grey = (channels[..., 0] * 256 + channels[..., 1]) / 65535
    assert grey.shape == (640, 640)
    assert np.abs(grey - phantom()).max() < 2 / 4095
    assert client.get(f"/studies/{FAILED}/images/{instance.id}.png").status_code == 404


def test_the_overlay_lies_where_the_mask_is(site: Site) -> None:
    client = site.logged_in("viewer")
    text = client.get(f"/studies/{OPACITY}").text
    address = next(part.split('"')[0] for part in text.split('src="') if "/segments/" in part[:80])
    drawn = np.asarray(Image.open(io.BytesIO(client.get(address.replace("&amp;", "&")).content)))
    assert np.array_equal(drawn[..., 3] > 0, region("lung_opacity", (640, 640)))
    assert client.get(address.split("?")[0].replace("/segments/1", "/segments/9")).status_code == 404


def test_an_image_that_is_gone_is_a_404_and_not_an_error(site: Site) -> None:
    for path in (site.demo.folder / "instances").rglob("*.dcm"):
        path.unlink()
    client = site.logged_in("viewer")
    instance = site.services.database.read(study_details.study_detail, OPACITY).instances[0]
    assert client.get(f"/studies/{OPACITY}/images/{instance.id}.png").status_code == 404
    assert client.get(f"/studies/{OPACITY}").status_code == 200


def test_the_system_page_tells_what_to_do_and_calls_a_destination(site: Site) -> None:
    client = site.logged_in("admin")
    text = client.get("/system").text
    assert "Check that the peer runs" in text
    assert "Raise workers.job_timeout_seconds" in text
    assert "reader-1:jobs:4711" in text
    for name, message in (("archive", "answers."), ("pacs", "connection refused")):
        shown = client.post(f"/system/destinations/{name}/echo").headers["location"]
        assert all(message in client.get(shown).text for _ in range(2)), "loaded again it is the same page"
    assert "does not answer:" not in client.get("/system?echo=elsewhere").text
    assert client.post("/system/destinations/elsewhere/echo").status_code == 404
    assert site.echoed == ["archive", "pacs"]


def test_the_address_of_a_forms_answer_is_no_error_when_it_is_entered(site: Site) -> None:
    client = site.logged_in("admin")
    paths = {endpoint.path for endpoint in page_endpoints(1) if endpoint.method == "POST"}
    paths -= {endpoint.path for endpoint in page_endpoints(1) if endpoint.method == "GET"}
    assert len(paths) > 8
    for template in paths:
        path = template
        for old, new in (("{study:row}", "1"), ("{name:str}", "pacs"), ("{action:str}", "hold")):
            path = path.replace(old, new)
        answer = client.get(re.sub(r"{\w+:row}", "1", path))
        assert answer.status_code == 303, path
        assert client.get(answer.headers["location"]).status_code == 200, path
    assert client.get("/api/v1/studies/1/hold").status_code == 405


def test_a_user_is_made_and_logs_in_and_the_last_admin_stays(site: Site) -> None:
    client = site.logged_in("admin")
    made = client.post("/users", data={"name": "New.User", "display_name": "New", "role": "viewer"})
    assert "Initial password of new.user" in made.text
    taken = client.post("/users", data={"name": "new.user", "role": "viewer"})
    assert taken.status_code == 400
    ada = site.services.accounts.find_user("ada")
    assert ada is not None
    last = client.post(f"/users/{ada.id}", data={"change": "role", "role": "viewer"})
    assert last.status_code == 400
    assert "one administrator must stay" in last.text.lower()
    assert client.get("/users").status_code == 200


def test_a_token_is_shown_once_and_can_be_revoked(site: Site) -> None:
    client = site.logged_in("admin")
    text = client.post("/tokens", data={"name": "dashboard", "role": "viewer"}).text
    secret = text.split('class="secret">')[1].split("<")[0]
    assert secret not in client.get("/users").text
    program = site.user()
    program.headers["authorization"] = f"Bearer {secret}"
    assert program.get("/api/v1/worklist").status_code == 200
    client.post("/tokens/1/revoke")
    assert program.get("/api/v1/worklist").status_code == 401


def _png(mode: str = "L") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.round(phantom(200) * 255).astype(np.uint8)).convert(mode).save(out, "PNG")
    return out.getvalue()


def test_a_file_is_tried_by_its_owner_alone_and_forgotten(site: Site) -> None:
    client = site.logged_in("radiologist")
    answer = client.post("/try", files={"file": ("chest.png", _png(), "image/png")})
    assert answer.status_code == 303
    address = answer.headers["location"]
    assert "Pneumothorax" in client.get(address).text
    overlay = np.asarray(Image.open(io.BytesIO(client.get(f"{address}/findings/0.png").content)))
    assert np.array_equal(overlay[..., 3] > 0, region("pneumothorax", (200, 200)))
    assert client.get(f"{address}/image.png").headers["content-type"] == "image/png"
    assert site.logged_in("admin").get(address).status_code == 404
    site.clock.forward(minutes=16)
    assert client.get(address).status_code == 404
    assert client.get(f"{address}/image.png").status_code == 404


def test_a_dicom_file_is_tried(site: Site, tmp_path: Path) -> None:
    client = site.logged_in("radiologist")
    path = next((site.demo.folder / "instances").rglob("*.dcm"))
    answer = client.post("/try", files={"file": ("a.dcm", path.read_bytes())})
    assert answer.status_code == 303
    text = client.get(answer.headers["location"]).text
    assert "What would happen to this file" in text
    assert "Modality <b>CR</b>" in text
    assert "Segmentation, Structured report; a summary when the study is complete" in text
    assert "Pneumothorax" in text
    assert "Critical" in text


def test_an_object_that_is_no_radiograph_is_told_where_it_would_go(site: Site) -> None:
    """It has no pixels to show; what a node would do with it is known all the same."""
    client = site.logged_in("radiologist")
    path = get_testdata_file("reportsi.dcm")
    assert isinstance(path, str)
    report = Path(path).read_bytes()
    answer = client.post("/try", files={"file": ("report.dcm", report)})
    assert answer.status_code == 422
    assert "Not eligible: no model sees it" in answer.text
    assert "not-an-image" in answer.text
    nameless = report.replace(b"\x08\x00\x18\x00UI", b"\x08\x00\x19\x00UI", 1)
    answer = client.post("/try", files={"file": ("report.dcm", nameless)})
    assert "C-STORE is refused (0xC000)" in answer.text
    assert "SOPInstanceUID is missing" in answer.text


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\nbroken", b"\0" * 128 + b"DICM" + b"\xff" * 40])
def test_what_is_no_image_is_told_in_a_sentence(site: Site, data: bytes) -> None:
    answer = site.logged_in("radiologist").post("/try", files={"file": ("x.bin", data)})
    assert answer.status_code in (400, 422)
    assert 'role="alert"' in answer.text


def test_the_api_says_what_is_wrong(site: Site) -> None:
    client = site.logged_in("radiologist")
    for path, body, status in (
        ("/api/v1/studies/1/priority", {"priority": "high"}, 422),
        ("/api/v1/studies/1/hold", {}, 422),
        ("/api/v1/studies/999/release", None, 404),
        ("/api/v1/studies/2147483648/release", None, 404),
        ("/api/v1/studies/3/jobs/3/retry", None, 200),
        ("/api/v1/studies/3/jobs/3/retry", None, 409),
        ("/api/v1/studies/3/jobs/1/retry", None, 404),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == status, (path, answer.text)
        assert ("detail" in answer.json()) == (status != 200)
    assert client.get("/api/v1/worklist?limit=0").status_code == 422
    assert client.get("/api/v1/worklist?wrong=1").status_code == 422
    assert client.post("/api/v1/studies/1/hold", content=b"{").status_code == 400
    listed = client.get("/api/v1/worklist?show=critical").json()
    assert [row["patient_name"] for row in listed["studies"]] == ["Okafor^Daniel"]


def test_what_must_be_removed_by_hand_is_listed_by_uid(site: Site) -> None:
    detail = site.services.database.read(study_details.study_detail, OPACITY)
    image = next(one for one in detail.instances if not one.flag)
    client = site.logged_in("radiologist")
    assert "To remove by hand" not in client.get(f"/studies/{OPACITY}").text
    sent = [one for one in detail.deliveries if one.state in (DeliveryState.PENDING, DeliveryState.FAILED)]
    for one in sent:
        if one.state is DeliveryState.FAILED:
            site.services.database.write(deliveries.requeue, one.id, "admin", "again", NOW)
        site.services.database.write(deliveries.claim, one.id, "d", NOW, timedelta(minutes=1))
        site.services.database.write(deliveries.sent, one.id, "d", NOW)
    note = RejectionNote("1.9", "113001", "The hospital has rejected it.", (image.sop_instance_uid,))
    site.services.database.write(rejection_notes.reject, note, NOW)
    text = client.get(f"/studies/{OPACITY}").text
    assert "To remove by hand" in text
    uids = {result.id: result.record.sop_instance_uid for result in detail.results}
    assert any(uids[one.result_id] in text for one in sent)


@pytest.mark.parametrize(("address", "most"), [("/?part=rows", 5), ("/?part=rows&q=okafor", 6), ("/", 10)])
def test_the_worklist_is_few_statements(site: Site, monkeypatch: pytest.MonkeyPatch, address: str, most: int) -> None:
    """Who has it open asks for its rows with every change of a study."""
    client = site.logged_in("viewer")
    client.get("/")
    executed: list[str] = []
    execute = Prepared._execute

    def prepared(self: Prepared, connection: Any, compiled: Any, *values: Any) -> Any:
        executed.append(compiled.text)
        return execute(self, connection, compiled, *values)

    def sent(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if not statement.startswith("BEGIN"):
            executed.append(statement)

    monkeypatch.setattr(Prepared, "_execute", prepared)
    event.listen(site.services.engine, "before_cursor_execute", sent)
    try:
        assert client.get(address).status_code == 200
    finally:
        event.remove(site.services.engine, "before_cursor_execute", sent)
    assert len(executed) <= most, executed
