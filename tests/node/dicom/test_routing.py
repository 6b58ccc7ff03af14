"""What the listener records of an image that routing rules decide about; `pleura route` foretells the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydicom import Dataset
from sqlalchemy import select

from config.dicomweb import DicomWebServer
from config.listener import Listener, Peer
from config.routing import RoutingRule
from config.settings import Models, Settings
from db.queries.routing import images_by_rule
from db.records import Route
from db.studies import routes
from db.tables import Instance, Job
from node.cli.main import cli
from node.monitoring.routing_health import check_decisions, check_rules
from tests.node.dicom.listening import PIPELINE, Listening, chest, listening
from tests.node.dicom.test_storage_scp import calling, send
from tests.workers.builders import NOON
from workers.pipeline_digest import active_pipeline, digest_of, rule_digests

WARD = RoutingRule(name="ward", calling_ae_titles=("KIDS",), analyse=False, reason="no AI on this ward")
BEDSIDE = RoutingRule(name="bedside", station_names=("^MOBILE",), models=("chest-classifier",), destinations=("pacs",))
MOBILE = {"StationName": "MOBILE3"}


def stored(listener: Listening) -> list[tuple[Any, ...]]:
    """Each image: its decision, why it is not eligible, the pipeline of its job and where that waits."""
    query = (
        select(Instance.route, Instance.not_eligible_code, Job.pipeline, Job.queue)
        .outerjoin(Job, Job.instance_id == Instance.id)
        .order_by(Instance.id)
    )
    with listener.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


def test_a_rule_is_recorded_with_the_image_that_it_decides(tmp_path: Path) -> None:
    digests = {"bedside": "1" * 64}
    rules, models = (WARD, BEDSIDE), Models(active=("chest-classifier", "large"), gpu=("large",))
    store, one = tmp_path / "store", Listener(port=0)
    with listening(store, one, routing=rules, rule_digests=digests, models=models) as listener:
        for title, image in (
            ("DX1", chest(**MOBILE)),
            ("DX1", chest()),
            ("KIDS", chest(**MOBILE)),
            ("KIDS", chest(BodyPartExamined="HAND")),
        ):
            with calling(listener.port, title=title) as association:
                assert send(association, image) == 0x0000
        assert stored(listener) == [
            (Route("bedside", "station name MOBILE3", ("chest-classifier",), ("pacs",)), "", "1" * 64, "jobs.cpu"),
            (Route("", "no rule matches"), "", PIPELINE, "jobs.gpu"),
            (Route("ward", "calling AE title KIDS", excluded="no AI on this ward"), "excluded-by-rule", None, None),
            (None, "not-a-chest", None, None),
        ]
        with listener.engine.connect() as connection:
            assert images_by_rule(connection, NOON) == {"": (1, False), "bedside": (1, False), "ward": (1, True)}
            assert routes(connection, 1) == (stored(listener)[0][0],)
            assert routes(connection, 4) == (), "a hand that no rule was asked about"


def test_without_rules_nothing_is_recorded(tmp_path: Path) -> None:
    with listening(tmp_path / "store") as listener, calling(listener.port) as association:
        assert send(association, chest(**MOBILE)) == 0x0000
        assert stored(listener) == [(None, "", PIPELINE, "jobs")]


def test_other_models_are_another_analysis_and_other_destinations_are_not() -> None:
    both = Models(active=("chest-classifier",))
    plain = Settings(models=both)
    same = Settings(models=both, routing=(WARD, RoutingRule(name="r", models=("chest-classifier",))))
    assert digest_of(active_pipeline(plain), plain) == digest_of(active_pipeline(same), same)
    assert rule_digests(same, active_pipeline(same)) == {"r": digest_of(active_pipeline(plain), plain)}
    pipeline = active_pipeline(plain)
    assert digest_of(pipeline.only(()), plain) != digest_of(pipeline, plain)
    assert pipeline.only(()).gate is not None


@pytest.fixture
def configured(tmp_path: Path) -> list[str]:
    path = tmp_path / "pleura.toml"
    path.write_text(
        "[[destinations]]\nname = 'pacs'\nae_title = 'PACS'\nhost = '127.0.0.1'\nport = 104\n"
        "[[destinations]]\nname = 'vna'\nae_title = 'VNA'\nhost = '127.0.0.1'\nport = 104\n"
        "[[routing]]\nname = 'ward'\ncalling_ae_titles = ['KIDS']\nanalyse = false\nreason = 'no AI on this ward'\n"
        "[[routing]]\nname = 'bedside'\nstation_names = ['^MOBILE']\nkinds = ['sr']\ndestinations = ['vna']\n",
        encoding="utf-8",
    )
    return ["--config", str(path), "route"]


def written(folder: Path, image: Dataset) -> str:
    path = folder / f"{image.SOPInstanceUID}.dcm"
    image.save_as(path, enforce_file_format=True)
    return str(path)


def test_the_command_foretells_it(configured: list[str], tmp_path: Path) -> None:
    mobile, hand = written(tmp_path, chest(**MOBILE)), written(tmp_path, chest(BodyPartExamined="HAND"))
    answer = json.loads(CliRunner().invoke(cli, [*configured, mobile, hand, "--json"]).output)
    assert answer[0]["route"]["rule"] == "bedside"
    assert answer[0]["destinations"] == {"vna": ["sr"]}
    assert (answer[0]["models"], answer[0]["queue"], answer[1]["queue"]) == (
        ["chest-classifier", "chest-opacity"],
        "jobs",
        "",
    )
    assert [each["why"] for each in answer[0]["checks"]] == ["calling AE title is unknown", "station name MOBILE3"]
    assert (answer[1]["route"], answer[1]["not_eligible"]["code"], answer[1]["models"]) == (None, "not-a-chest", [])
    excluded = CliRunner().invoke(cli, [*configured, mobile, "--calling-aet", "KIDS", "--explain"])
    assert excluded.exit_code == 0
    assert "no AI on this ward" in " ".join(excluded.output.split())
    config = Path(configured[1])
    config.write_text(config.read_text() + "[models]\ngpu = ['chest-classifier']\n", encoding="utf-8")
    assert "jobs.gpu" in CliRunner().invoke(cli, [*configured, mobile]).output


def test_a_file_that_no_peer_could_send_is_told(configured: list[str], tmp_path: Path) -> None:
    path = tmp_path / "text.dcm"
    path.write_bytes(b"no DICOM")
    found = CliRunner().invoke(cli, [*configured, str(path)])
    assert found.exit_code == 1
    assert "refused" in found.output


def test_a_sender_by_stow_rs_needs_no_listener_peer() -> None:
    listener, rule = Listener(peers=(Peer(ae_title="DX1"),)), RoutingRule(name="web", calling_ae_titles=("WEB",))
    assert len(list(check_rules(Settings(listener=listener, routing=(rule,))))) == 1
    web = DicomWebServer(enabled=True)
    assert list(check_rules(Settings(listener=listener, routing=(rule,), dicomweb=web))) == []


def test_doctor_tells_what_hides_images() -> None:
    everything = RoutingRule(name="stop", analyse=False, reason="x")
    settings = Settings(routing=(BEDSIDE.model_copy(update={"destinations": None}), everything))
    assert [check.ok for check in check_rules(settings)] == [True]
    assert [check.ok for check in check_rules(Settings(routing=(everything,)))] == [False, True]
    assert list(check_rules(Settings())) == list(check_decisions(Settings(), {})) == []
    (some,) = check_decisions(settings, {"": (3, False), "stop": (20, True)})
    assert (some.ok, some.found) == (True, "2 rules; images of the last 24 hours: no rule 3, stop 20 (not analysed)")
    (all_of_them,) = check_decisions(settings, {"stop": (20, True)})
    assert (all_of_them.ok, "excluded all 20 images" in all_of_them.found) == (False, True)
