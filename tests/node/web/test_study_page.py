"""What the page of a study shows beside its image: scales, priors, downloads, and the way into the site's viewer."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydicom import dcmread

from config import settings
from config.settings import Admin
from db.queries import study_details
from tests.node.web.conftest import NOW, Site, make_site
from tests.node.web.demo import CASES, Case

FAILED, OPACITY, PNEUMOTHORAX = 1, 2, 3


def test_the_tick_stands_at_the_threshold_and_the_bar_ends_at_the_probability(site: Site) -> None:
    text = site.logged_in("viewer").get(f"/studies/{PNEUMOTHORAX}").text
    [scale] = re.findall(r'<svg class="scale f0".*?</svg>', text)
    assert 'class="fill" y="3" width="94.00"' in scale
    assert 'class="limit" x1="50.00"' in scale
    assert 'aria-label="Probability 94 %, threshold 50 %"' in scale


def test_findings_that_are_absent_are_folded_even_where_nothing_is_present(site: Site) -> None:
    study = site.demo.add(Case("Absent^Anna", "K-1", "F", "19700101", "Chest PA", 9, {"lung_opacity": 0.1}), 70, NOW)
    text = site.logged_in("viewer").get(f"/studies/{study}").text
    assert "No finding reaches its threshold in this image." in text
    assert '<details class="others"><summary>1 below threshold or in shadow</summary>' in text


def test_prior_studies_of_the_patient_are_listed_with_their_findings(site: Site) -> None:
    known = next(case for case in CASES if case.name == "Okafor^Daniel")
    later = site.demo.add(replace(known, minutes=1), 71, NOW)
    other = site.demo.add(replace(known, name="Okafor^Denise", minutes=0.5), 72, NOW)
    client = site.logged_in("viewer")
    listed = re.search(r'id="priors".*?</section>', client.get(f"/studies/{later}").text, re.DOTALL)
    assert listed
    assert f'href="/studies/{PNEUMOTHORAX}"' in listed[0]
    assert "Pneumothorax<span>94 %</span>" in listed[0]
    for study in (PNEUMOTHORAX, other):
        assert 'id="priors"' not in client.get(f"/studies/{study}").text, "what comes later, or has another name"


def test_a_result_is_downloaded_by_readers_alone_and_it_is_written_down(
    site: Site, filled: Path, tmp_path: Path
) -> None:
    result = site.services.database.read(study_details.study_detail, OPACITY).results[0]
    address = f"/studies/{OPACITY}/results/{result.id}.dcm"
    client = site.logged_in("radiologist")
    assert f'href="{address}"' in client.get(f"/studies/{OPACITY}").text
    answer = client.get(address)
    assert answer.headers["content-type"] == "application/dicom"
    assert (
        f'filename="{result.record.kind}-{result.record.sop_instance_uid}.dcm"' in answer.headers["content-disposition"]
    )
    assert answer.headers["cache-control"] == "no-store"
    assert dcmread(io.BytesIO(answer.content)).SOPInstanceUID == result.record.sop_instance_uid
    entry = site.services.audit.entries(limit=1)[0]
    assert (entry.actor, entry.action, entry.study_id) == ("rosa", "export result", OPACITY)
    assert entry.detail == result.record.sop_instance_uid
    viewer = site.logged_in("viewer")
    assert address not in viewer.get(f"/studies/{OPACITY}").text
    assert viewer.get(address).status_code == 403
    assert client.get(f"/studies/{FAILED}/results/{result.id}.dcm").status_code == 404, "of another study"
    (site.demo.folder / result.record.path).unlink()
    assert client.get(address).status_code == 404
    hidden = make_site(filled, tmp_path / "hidden", hide_patient_names=True).logged_in("admin")
    assert address not in hidden.get(f"/studies/{OPACITY}").text
    assert hidden.get(address).status_code == 403


def test_the_link_into_the_sites_viewer_has_the_study_uid(site: Site, filled: Path, tmp_path: Path) -> None:
    assert "Open in the viewer" not in site.logged_in("viewer").get(f"/studies/{OPACITY}").text
    url = "https://pacs.example/viewer?StudyInstanceUIDs={study_uid}&a=1"
    text = make_site(filled, tmp_path / "s", viewer_url=url).logged_in("viewer").get(f"/studies/{OPACITY}").text
    uid = site.services.worklist.rows([OPACITY])[0].study_instance_uid
    link = re.search(r'<a class="button" href="([^"]+)" ([^>]*)>Open in the viewer', text)
    assert link
    assert link[1] == f"https://pacs.example/viewer?StudyInstanceUIDs={uid}&amp;a=1"
    assert 'rel="noopener noreferrer"' in link[2]


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert('{study_uid}')",
        "//pacs.example/{study_uid}",
        "ftp://pacs.example/{study_uid}",
        "https://pacs.example/viewer",
        "https://{study_uid}.example/",
        "https://pacs.example/{study_uid}/{patient}",
        "https://pacs.example/{study_uid} x",
        'https://pacs.example/{study_uid}"',
    ],
)
def test_a_viewer_is_a_whole_http_address_with_one_place_for_the_study(url: str) -> None:
    with pytest.raises(ValidationError):
        Admin(viewer_url=url)


def test_list_filters_are_saved_opened_and_deleted_and_rows_are_chosen(site: Site) -> None:
    client = site.logged_in("viewer")
    saved = client.post("/worklist/filters?q=okafor&rows=100&page=7", data={"name": "My Okafor"})
    assert (saved.status_code, saved.headers["location"]) == (303, "/?q=okafor&rows=100")
    text = client.get("/").text
    assert '<a href="/?q=okafor&amp;rows=100">My Okafor</a>' in text
    assert "My Okafor" not in site.logged_in("radiologist").get("/").text
    assert client.post("/worklist/filters", data={"name": " "}).status_code == 400
    assert site.logged_in("radiologist").post("/worklist/filters/1/delete").status_code == 404
    assert client.post("/worklist/filters/1/delete").status_code == 303
    assert "My Okafor" not in client.get("/").text
    for number in range(80, 106):
        site.demo.add(
            Case(f"Many^{number}", f"M-{number}", "F", "19700101", "Chest PA", 1, fate="waiting"), number, NOW
        )
    shown = {rows: client.get(f"/?rows={rows}").text.count("data-study=") for rows in ("25", "50", "3", "x")}
    assert shown == {"25": 25, "50": 29, "3": 29, "x": 29}
    assert "1 to 25 of 29" in client.get("/?rows=25").text


def test_times_are_in_the_zone_of_the_site_and_the_csv_says_it(filled: Path, tmp_path: Path) -> None:
    client = make_site(filled, tmp_path / "s", site=settings.Site(time_zone="Asia/Kolkata")).logged_in("viewer")
    text = client.get(f"/studies/{PNEUMOTHORAX}").text
    assert '<time datetime="2026-03-01T02:49:00Z" title="2026-03-01 02:49:00 UTC">2026-03-01 08:19:00</time>' in text
    assert "Times: Asia/Kolkata" in text
    assert "2026-03-01T08:19:00+05:30" in client.get("/worklist.csv").text
    assert "2026-03-01T02:49:00Z" in client.get("/api/v1/worklist").text, "JSON stays as it is"
