"""What ``pleura doctor`` says of a destination that has to verify what it holds, and of files that were set aside."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)
from sqlalchemy import update

from config.destinations import Destination
from config.settings import Models, Settings, Site, Store
from db import erasures
from db.database import Database
from db.engine import connect, migrate
from db.queries.statistics import RunningWorker
from db.queries.system import Growth
from db.states import JobState
from db.tables import Job
from node.monitoring import erasing_health
from node.monitoring.disk import check_room
from node.monitoring.erasing_health import check_erasures
from node.monitoring.health import (
    check_destination,
    check_issuers,
    check_models,
    check_same_findings,
    check_store,
)
from node.monitoring.parts import check_device, check_parts
from node.monitoring.time_zone import check_time_zone
from tests.db.examples import MINUTE, NOW, record
from tests.models.samples import classifier_graph, manifest
from tests.rules import NO_RULES
from workers.erasing import Eraser
from workers.store_files import INSTANCES, SET_ASIDE
from workers.worker_id import at_place

VERIFICATIONS = {"query": StudyRootQueryRetrieveInformationModelFind, "commitment": StorageCommitmentPushModel}


@pytest.fixture
def serving() -> Iterator[Callable[..., int]]:
    servers = []

    def start(*classes: str) -> int:
        entity = AE("PEER")
        for abstract_syntax in (Verification, *classes):
            entity.add_supported_context(abstract_syntax)
        servers.append(entity.start_server(("127.0.0.1", 0), block=False))
        return int(servers[-1].server_address[1])

    yield start
    for server in servers:
        server.shutdown()


def destination(port: int, verification: str) -> Destination:
    where = {"name": "pacs", "ae_title": "PEER", "host": "127.0.0.1", "port": port, "timeout_seconds": 5}
    return Destination(**where, verification=verification)


@pytest.mark.parametrize("verification", ["query", "commitment"])
def test_a_destination_must_offer_what_verifies_it(serving: Callable[..., int], verification: str) -> None:
    able, unable = serving(VERIFICATIONS[verification]), serving()
    found = check_destination(Settings(), destination(able, verification))
    assert (found.ok, found.found) == (
        True,
        f"PEER on 127.0.0.1:{able} answers C-ECHO, and supports verification by {verification}",
    )
    found = check_destination(Settings(), destination(unable, verification))
    assert not found.ok
    assert "does not support" in found.found
    assert "destinations[].verification" in found.remedy


def test_a_destination_that_verifies_nothing_need_only_answer(serving: Callable[..., int]) -> None:
    found = check_destination(Settings(), destination(serving(), "none"))
    assert (found.ok, "verification" in found.found) == (True, False)


def test_a_file_that_was_set_aside_is_a_matter_for_a_person(tmp_path: Path) -> None:
    settings = Settings(store=Store(folder=tmp_path, minimum_free_bytes=0))
    assert check_store(settings).ok
    (tmp_path / SET_ASIDE).mkdir()
    assert check_store(settings).ok
    (tmp_path / SET_ASIDE / "0123.2.part").touch()
    found = check_store(settings)
    assert not found.ok
    assert "1 files are set aside" in found.found


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a file system")
def test_a_store_that_is_read_only_is_told_as_such(tmp_path: Path) -> None:
    """A disk with errors is mounted so by the kernel. The parts that hold places there are seen all the same."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], check=False)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with at_place(tmp_path, "scheduler"):
            pass
        (tmp_path / "part-elsewhere-listener-0.lock").touch()
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        settings = Settings(store=Store(folder=tmp_path))
        told = check_store(settings)
        assert (told.ok, "read-only: images are refused with 0xA700" in told.found) == (False, True)
        assert "dmesg" in told.remedy
        assert list(check_parts(settings)) == []
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_where_networks_run_is_told_where_the_worker_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = [RunningWorker(f"w{each}", None, None, 1, None, device) for each, device in enumerate(("cpu", "", "cpu"))]
    (told,) = check_device("auto", ran)
    assert (told.ok, told.found, told.remedy) == (True, "workers.device is auto, and the latest jobs ran on: CPU", "")
    assert list(check_device("gpu", ran)) == list(check_device("auto", [])) == []
    monkeypatch.setattr("node.monitoring.parts.has_gpu", lambda: True)
    (told,) = check_device("auto", ran)
    assert "has a GPU: install what uses it" in told.remedy
    (told,) = check_device("auto", [*ran, RunningWorker("w9", None, None, 1, None, "gpu")])
    assert (told.found.endswith(": CPU, GPU"), told.remedy) == (True, "")


def _settings(folder: Path, **replaces: str) -> Settings:
    """Models of one kind with the same finding, each with what its manifest says that it replaces."""
    for name, other in replaces.items():
        file = manifest(classifier_graph(folder / f"{name}.onnx"), name)
        line = f'localised = true\nreplaces = "{other}"' if other else "localised = true"
        file.write_text(file.read_text().replace("localised = true", line, 1))
    return Settings(models=Models(gate="", lungs="", folder=folder, active=tuple(replaces)))


def test_models_that_send_the_same_finding_beside_each_other_are_told(tmp_path: Path) -> None:
    settings = _settings(tmp_path, first="", second="first", beside="")
    assert check_models(settings).ok
    (found,) = check_same_findings(settings)
    assert found.part == "finding lung_opacity"
    assert found.found == "second and beside both send it, and their answers may contradict each other"
    assert "replaces" in found.remedy
    assert list(check_same_findings(Settings())) == []


def test_models_that_do_not_go_together_are_told_before_a_worker_fails_on_them(tmp_path: Path) -> None:
    settings = _settings(tmp_path, first="second", second="first")
    found = check_models(settings)
    assert (found.ok, "each replaces 'lung_opacity' of the next one" in found.found) == (False, True)
    assert list(check_same_findings(settings)) == []


def test_the_doctor_asks_whose_patient_ids_come_without_an_issuer() -> None:
    seen = check_issuers(Settings())
    assert (seen.ok, bool(seen.remedy)) == (True, True)
    known = check_issuers(Settings(site=Site(patient_id_issuers=("HOSPITAL",))))
    assert "HOSPITAL" in known.found
    assert known.remedy == ""


GB = 10**9


@pytest.mark.parametrize(
    ("free", "growth", "keep_days", "expected", "ok"),
    [
        (5 * GB, Growth(None, 0.5), 30, None, True),
        (5 * GB, Growth(GB, 40), 0, "1 GB a day: images are refused with 0xA700 in 4 days", False),
        (31 * GB, Growth(GB, 40), 0, "1 GB a day: images are refused with 0xA700 in 30 days", True),
        (31 * GB, Growth(GB, 40), 30, "1 GB a day; files are removed after 30 days: the disk will do", True),
    ],
)
def test_doctor_tells_the_room_left_in_days(
    free: int, growth: Growth, keep_days: int, expected: str | None, ok: bool
) -> None:
    found = check_room(free, growth, Store(keep_days=keep_days, minimum_free_bytes=GB))
    assert (found.found, found.ok) == (expected, ok) if found else expected is None


@pytest.mark.parametrize(
    ("machine", "site", "told"),
    [
        ("Europe/London", {}, True),
        ("Europe/London", {"time_zone": "Etc/UTC"}, False),
        ("Etc/UTC", {}, False),
        ("CET-1CEST", {}, False),
        ("Nowhere/City", {}, False),
    ],
)
def test_results_in_utc_are_told_where_the_machine_s_clock_is_elsewhere(
    monkeypatch: pytest.MonkeyPatch, machine: str, site: dict[str, str], told: bool
) -> None:
    """London has the time of UTC in winter, when the hint is as true."""
    monkeypatch.setenv("TZ", machine)
    checks = list(check_time_zone(Settings(site=Site(**site))))
    assert [(check.ok, "Europe/London" in check.remedy) for check in checks] == ([(True, True)] if told else [])


def test_the_doctor_tells_what_waits_for_its_erasure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = connect(Settings(store=Store(folder=tmp_path)).database_url)
    migrate(engine)
    database = Database(engine, NO_RULES)
    job_id = record(database)
    database.write(erasures.request, 1, "admin", "", "case 88", NOW)
    monkeypatch.setattr(erasing_health, "utc_now", lambda: NOW + 9 * MINUTE)
    assert list(check_erasures(engine, Settings())) == []
    monkeypatch.setattr(erasing_health, "utc_now", lambda: NOW + 11 * MINUTE)
    (waits,) = check_erasures(engine, Settings())
    assert waits.found.startswith("study #1 is to be erased since ")
    assert waits.found.endswith(": nobody erases it")
    assert "scheduler" in waits.remedy
    running = update(Job).where(Job.id == job_id).values(state=JobState.RUNNING, lease_until=NOW + 20 * MINUTE)
    database.write(lambda connection: connection.execute(running))
    (waits,) = check_erasures(engine, Settings())
    assert waits.found.endswith(": an image is being analysed")
    assert not waits.ok
    assert database.write(erasures.erase, 1, NOW + 21 * MINUTE) is None
    monkeypatch.setattr(erasing_health, "utc_now", lambda: NOW + 32 * MINUTE)
    (files,) = check_erasures(engine, Settings())
    assert "files of erased studies are still to be removed" in files.found
    (tmp_path / INSTANCES).mkdir()
    assert Eraser(database, tmp_path, lambda: NOW).remove_files() == 0
    assert list(check_erasures(engine, Settings())) == []
    engine.dispose()
