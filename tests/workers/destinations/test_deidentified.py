"""A folder as a destination: what the delivery worker brings there, and what stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from config.settings import Settings, SettingsError, load
from db.audit import AuditTrail
from db.database import Database
from db.engine import connect
from db.queries import study_details
from db.shown_records import DeliveryDetail
from db.states import DeliveryState
from node.monitoring.health import check_destination
from tests.migrated import migrate
from tests.rules import NO_RULES
from tests.workers.deidentification.samples import KEY, NOW, PSEUDONYMS, receive
from workers.delivery import DeliveryTools, deliver
from workers.destinations.destination_kind import PeerError
from workers.destinations.destination_kinds import destination_kinds

KINDS = ("seg", "sr", "gsps")


def _settings(tmp_path: Path, **options: Any) -> Settings:
    destination = {"name": "research", "kind": "deidentified", "folder": tmp_path / "research", "kinds": KINDS}
    return Settings(
        store={"folder": tmp_path / "store"},
        deidentification={"key": KEY, **options},
        destinations=(destination,),
    )


@pytest.fixture
def database(tmp_path: Path) -> Database:
    settings = _settings(tmp_path)
    settings.store.folder.mkdir()
    engine = connect(settings.database_url)
    migrate(engine)
    return Database(engine, NO_RULES)


Deliver = Callable[..., tuple[DeliveryDetail, ...]]


@pytest.fixture
def delivered(tmp_path: Path, database: Database) -> Deliver:
    """Receive a study whose results go to the folder, and let the worker deliver them."""

    def make(uid: str, **changes: Any) -> tuple[DeliveryDetail, ...]:
        settings = _settings(tmp_path)
        study = receive(database, settings.store.folder, uid, destinations={"research": KINDS}, **changes)
        tools = DeliveryTools(settings, database, destination_kinds(settings), lambda: NOW, "worker")
        deliver(database.read(study_details.study_detail, study).deliveries[0].id, tools)
        return database.read(study_details.study_detail, study).deliveries

    return make


def test_results_arrive_with_their_image_and_without_a_name(
    tmp_path: Path, database: Database, delivered: Deliver
) -> None:
    deliveries = delivered("1.2.3.1")
    assert [(each.kind, each.state) for each in deliveries] == [(kind, DeliveryState.SENT) for kind in KINDS]
    folder = tmp_path / "research"
    files = sorted(folder.rglob("*.dcm"))
    assert sorted(str(dcmread(path).Modality) for path in files) == ["CR", "PR", "SEG", "SR"]
    assert b"zq" not in b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()).lower()
    # As `pleura export` names them.
    assert PSEUDONYMS.uid("1.2.3.1") in {path.stem for path in files}
    (entry,) = AuditTrail(database.engine).entries()
    assert (entry.actor, entry.action, entry.study_id, entry.detail) == (
        "node",
        "export de-identified",
        1,
        "to research",
    )


def test_what_was_brought_is_not_written_again_and_is_found(
    tmp_path: Path, database: Database, delivered: Deliver
) -> None:
    delivered("1.2.3.1")
    settings = _settings(tmp_path)
    kind, (destination,) = destination_kinds(settings)["deidentified"], settings.destinations
    assert list(kind.holds(destination, "", [])) == []
    journal = (tmp_path / "research" / "journal.jsonl").read_text().splitlines()
    assert len(journal) == 5
    assert json.loads(journal[1])["kind"] == "image"


def test_results_of_an_image_that_may_not_leave_stay_with_it(tmp_path: Path, delivered: Deliver) -> None:
    deliveries = delivered("1.2.3.1", BurnedInAnnotation="YES")
    assert {each.state for each in deliveries} == {DeliveryState.FAILED}
    assert {each.error for each in deliveries} == {"it stays here: Burned In Annotation does not say NO"}
    assert list((tmp_path / "research").rglob("*.dcm")) == []


def test_a_folder_of_other_settings_takes_nothing_until_they_are_the_same(tmp_path: Path, delivered: Deliver) -> None:
    delivered("1.2.3.1")
    settings = _settings(tmp_path, dates="removed")
    kind, (destination,) = destination_kinds(settings)["deidentified"], settings.destinations
    with pytest.raises(PeerError, match="other settings: dates"):
        kind.verify(destination, "")
    check = check_destination(settings, destination)
    assert not check.ok
    assert "other settings" in check.found


def test_doctor_says_that_the_folder_can_be_written(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    check = check_destination(settings, settings.destinations[0])
    assert check.ok
    assert "takes de-identified" in check.found


FOLDER = "[[destinations]]\nname = 'research'\nkind = 'deidentified'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FOLDER, "destination `research`: folder: is missing"),
        (FOLDER + "folder = 'x'\nverification = 'query'\n", "has no verify_identity, verification"),
        (FOLDER + "folder = 'x'\nkinds = ['sc']\n", "takes no kind 'sc'"),
        (FOLDER + "folder = 'x'\n", "deidentification.key is not set"),
        ("[[destinations]]\nname = 'a'\nae_title = 'A'\nhost = 'h'\nport = 1\nfolder = 'x'\n", "folder: is for kind"),
        ("[deidentification]\nkey = 'short'\n", "32 characters"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pleura.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=message):
        load(path)
