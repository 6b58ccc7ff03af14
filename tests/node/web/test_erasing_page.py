"""Erasing on the page: who may, what is shown before, what must be typed, and that the scheduler does it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from db import erasures
from db.audit import AuditFilter
from db.queries import study_details
from db.tables import Delivery
from tests.node.web.conftest import NOW, Site
from workers.erasing import Eraser

OPACITY = 2


def _ask(site: Site, **values: str) -> tuple[int, str]:
    client = site.logged_in("admin")
    answer = client.post(f"/studies/{OPACITY}/erase", data=values)
    return answer.status_code, answer.text


def _patient_id(site: Site) -> str:
    return site.services.database.read(study_details.study_detail, OPACITY).row.patient_id


def test_an_admin_alone_finds_it_and_sees_what_others_hold(site: Site) -> None:
    address = f"/studies/{OPACITY}/erase"
    for role in ("viewer", "radiologist"):
        client = site.logged_in(role)
        assert address not in client.get(f"/studies/{OPACITY}").text
        assert client.get(address).status_code == 403
    sent = update(Delivery).where(Delivery.study_id == OPACITY).values(sent_at=NOW)
    site.services.database.write(lambda connection: connection.execute(sent))
    client = site.logged_in("admin")
    assert f'href="{address}"' in client.get(f"/studies/{OPACITY}").text
    text = client.get(address).text
    held = site.services.database.read(erasures.held_elsewhere, OPACITY)
    assert held
    assert all(one.sop_instance_uid in text for one in held)
    assert f"Type {_patient_id(site)} to confirm" in text
    assert client.get("/studies/999/erase").status_code == 404


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"reason": "case 88", "confirmation": "somebody"}, "What was typed is not the patient ID of this study"),
        ({"reason": "  "}, "Say why: the audit trail keeps the reason"),
        ({"reason": "of {id}"}, "The reason names the patient"),
    ],
)
def test_what_is_missing_is_said_and_nothing_is_asked_for(site: Site, values: dict[str, str], said: str) -> None:
    patient_id = _patient_id(site)
    given = {"confirmation": patient_id, **{name: value.format(id=patient_id) for name, value in values.items()}}
    status, text = _ask(site, **given)
    assert status == 200
    assert said in text
    assert site.services.database.read(erasures.requested) == ()


def test_what_was_asked_for_is_on_hold_and_then_gone_with_who_did_it(site: Site) -> None:
    patient_id = _patient_id(site)
    _, text = _ask(site, reason="case 88", confirmation=patient_id)
    assert "It is being erased" in text
    assert 'name="reason"' not in text
    client = site.logged_in("admin")
    assert "it is being erased" in client.get(f"/studies/{OPACITY}").text.lower()
    database = site.services.database
    Eraser(database, site.services.settings.store.folder, lambda: NOW + timedelta(minutes=5)).once()
    assert client.get(f"/studies/{OPACITY}").status_code == 404
    assert f'href="/studies/{OPACITY}"' not in client.get("/?show=all").text
    (entry,) = site.services.audit.entries(AuditFilter(action="erase study"))
    assert (entry.study_id, entry.patient_id) == (OPACITY, patient_id)
    assert entry.detail.endswith(": case 88")
    shown = client.get("/audit").text
    assert "DICOM Study Deleted" in shown
    assert "case 88" in shown


def test_a_program_does_the_same(site: Site) -> None:
    client, address = site.logged_in("admin"), f"/api/v1/studies/{OPACITY}"
    sent = update(Delivery).where(Delivery.study_id == OPACITY).values(sent_at=NOW)
    site.services.database.write(lambda connection: connection.execute(sent))
    held = site.services.database.read(erasures.held_elsewhere, OPACITY)
    listed = client.get(f"{address}/erasure").json()["erasure"]
    assert [one["sop_instance_uid"] for one in listed["held"]] == [one.sop_instance_uid for one in held]
    assert listed["images"] == 1
    assert not listed["requested"]
    answers = [
        client.post(f"{address}/erase", json={"reason": reason, "confirmation": typed})
        for reason, typed in (
            ("case 88", "somebody"),
            (f"of {_patient_id(site)}", _patient_id(site)),
            ("", _patient_id(site)),
        )
    ]
    assert [each.status_code for each in answers] == [409, 409, 422]
    assert answers[0].json() == {"detail": "what was typed is not the patient ID of this study"}
    assert site.services.database.read(erasures.requested) == ()
    done = client.post(f"{address}/erase", json={"reason": "case 88", "confirmation": _patient_id(site)})
    assert done.status_code == 200
    assert done.json()["erasure"]["requested"]
    assert site.services.database.read(erasures.requested) == (OPACITY,)
    assert client.get("/api/v1/studies/999/erasure").status_code == 404


def test_in_german(site: Site) -> None:
    client = site.logged_in("admin")
    text = client.get(f"/studies/{OPACITY}/erase", headers={"accept-language": "de"}).text
    assert "Was bleibt, und wo" in text
    assert "Endgültig löschen" in text
