"""What the workers are made of: the reader of received files, the pipeline's name, and places."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite

from config.destinations import Destination
from config.settings import Models, Results, Settings, Site, Workers
from models.model_registry import UnknownModel
from tests.workers.harness import radiograph
from workers.composition import equipment_of, source_reader
from workers.job_outcome import kinds_wanted
from workers.pipeline_digest import active_pipeline, digest_of
from workers.worker_id import host_name, take_slot, worker_id_of


def _digest(settings: Settings) -> str:
    return digest_of(active_pipeline(settings), settings)


def test_a_received_file_is_read_as_header_and_pixels(tmp_path: Path) -> None:
    dcmwrite(tmp_path / "a.dcm", radiograph("1.2.3.1"), enforce_file_format=True)
    source = source_reader(Settings())(tmp_path / "a.dcm")
    assert source.not_analysed is None
    assert source.model_input is not None
    assert source.model_input.shape == (64, 48)
    assert "PixelData" not in source.header
    assert source.header.file_meta.MediaStorageSOPInstanceUID == "1.2.3.1"


def test_damaged_pixels_leave_a_header_and_a_reason(tmp_path: Path) -> None:
    dataset = radiograph("1.2.3.1")
    dataset.PixelData = dataset.PixelData[:100]
    dcmwrite(tmp_path / "a.dcm", dataset, enforce_file_format=True)
    source = source_reader(Settings())(tmp_path / "a.dcm")
    assert source.model_input is None
    assert source.not_analysed is not None
    assert source.not_analysed.is_chest
    assert source.header.PatientID == "P1"


def test_what_is_no_dicom_leaves_a_reason_and_no_object(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"what is this")
    source = source_reader(Settings())(tmp_path / "a.dcm")
    assert source.not_analysed is not None
    assert not source.not_analysed.is_chest


def test_a_file_that_cannot_be_read_now_is_no_verdict_on_its_bytes(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        source_reader(Settings())(tmp_path / "absent.dcm")


def test_the_name_of_an_analysis_changes_with_what_changes_its_results() -> None:
    plain = _digest(Settings())
    assert plain == _digest(Settings(workers=Workers(attempts=9), results=Results(late_after_hours=3)))
    unwritten = Site(time_zone="Europe/Berlin", language="de", patient_id_issuers=("A",), placeholder_patient_ids=())
    assert plain == _digest(Settings(site=unwritten)), "no result holds these settings"
    others = {
        _digest(Settings(results=Results(sr_storage="comprehensive"))),
        _digest(Settings(results=Results(series_number_base=100))),
        _digest(Settings(results=Results(seg_storage="fractional"))),
        _digest(Settings(site=Site(uid_root="1.2.3"))),
        _digest(Settings(models=Models(gate=""))),
        _digest(Settings(workers=Workers(device="gpu"))),
        _digest(Settings(models=Models(active=(), shadow=("chest-classifier",)))),
    }
    assert len(others | {plain}) == 8


def test_a_model_that_nobody_has_is_told() -> None:
    with pytest.raises(UnknownModel, match="chest-classifier"):
        _digest(Settings(models=Models(active=("none",))))


@pytest.mark.parametrize("module", ["workers.pipeline_digest", "node.dicom.listener", "node.web.app"])
def test_listener_and_pages_load_no_network_and_no_encoder(module: str) -> None:
    heavy = ("onnxruntime", "tensorflow", "keras", "highdicom", "matplotlib", "shapely")
    code = f"import sys, {module}; sys.exit(' '.join(m for m in {heavy} if m in sys.modules) or 0)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_delivery_workers_and_scheduler_start_without_encoders() -> None:
    code = "import sys, workers.composition; sys.exit('highdicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_seg_and_sr_are_always_made() -> None:
    def at(*kinds: str) -> Destination:
        return Destination.model_validate({"name": "a", "ae_title": "A", "host": "h", "port": 1, "kinds": kinds})

    assert kinds_wanted([]) == {"seg", "sr"}
    assert kinds_wanted([at("sc", "summary"), at("gsps")]) == {"seg", "sr", "sc", "gsps"}


def test_our_equipment_names_site_and_version() -> None:
    equipment = equipment_of(Settings(site=Site(name="General Hospital", station_name="CXR1")))
    assert (equipment.manufacturer, equipment.institution_name, equipment.station_name) == (
        "Pleura",
        "General Hospital",
        "CXR1",
    )


def test_two_workers_on_one_host_have_two_places(tmp_path: Path) -> None:
    first, lock = take_slot(tmp_path, "jobs")
    with lock:
        # POSIX locks are a process's own: the second worker has to be another one.
        code = "import sys, pathlib, workers.worker_id as p; print(p.take_slot(pathlib.Path(sys.argv[1]), 'jobs')[0])"
        command = [sys.executable, "-c", code, str(tmp_path)]
        second = subprocess.run(command, capture_output=True, text=True, check=True)
    third, again = take_slot(tmp_path, "jobs")
    again.close()
    assert (first, int(second.stdout), third) == (0, 1, 0)


def test_a_place_outlives_its_processes_and_a_name_does_not() -> None:
    one, two = worker_id_of("jobs", 0, 1), worker_id_of("jobs", 0, 1)
    assert one.prefix == two.prefix == f"{host_name()}/jobs/0/1#"
    assert one.name != two.name
    assert not worker_id_of("jobs", 0, 11).name.startswith(one.prefix)


@pytest.mark.peer("shared-data")
def test_a_real_radiograph_is_read(shared_data: Path) -> None:
    path = sorted((shared_data / "dicom").glob("*.dcm"))[0]
    source = source_reader(Settings())(path)
    assert source.model_input is not None
    assert source.header.SOPInstanceUID == dcmread(path, stop_before_pixels=True).SOPInstanceUID
