"""The public Python API: the examples of its page run, and it keeps its promises."""

from __future__ import annotations

import doctest
import inspect
import re
import shutil
import typing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

import models.api
import workers.results.api
from models.api import ModelInput, Prediction, UnreadablePixels, read_radiograph
from tests.models.samples import classifier_graph, manifest
from tests.workers.results.sources import finding, source
from tests.workers.results.sources import model_input as made_input
from workers.results.api import RESULT_KIND_NAMES, make_objects

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python-api.md"
NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rg1 = get_testdata_file("RG1_UNCR.dcm", download=False)
    if rg1 is None:
        pytest.skip("pydicom-data is missing: pip install '.[demo]'")
    shutil.copyfile(str(rg1), tmp_path / "chest.dcm")
    own = manifest(classifier_graph(tmp_path / "my-network.onnx"), "my-network")
    (tmp_path / "misspelt.toml").write_text(own.read_text().replace("localised", "localized"))
    monkeypatch.chdir(tmp_path)
    text = re.sub(r"^```.*$", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    test = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    assert len(test.examples) > 10
    output: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=output.append)
    assert "".join(output) == ""
    assert str(dcmread("report.dcm").PatientID) == str(dcmread("chest.dcm").PatientID)


@pytest.mark.parametrize("module", [models.api, workers.results.api], ids=lambda module: module.__name__)
def test_all_that_is_public_is_documented_and_typed(module: ModuleType) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isfunction(thing):
            assert name in page
            assert inspect.getdoc(thing)
            assert {"return", *inspect.signature(thing).parameters} == set(typing.get_type_hints(thing))
    public = {name for name, thing in vars(module).items() if inspect.isfunction(thing) and not name.startswith("_")}
    own = {name for name in public if getattr(module, name).__module__ == module.__name__}
    assert own <= set(module.__all__)


@pytest.fixture
def header() -> Dataset:
    return source()


@pytest.fixture
def radiograph(header: Dataset) -> ModelInput:
    return made_input(header, None)


def predicted(radiograph: ModelInput, probability: float = 0.9) -> Prediction:
    mask = np.zeros(radiograph.shape, np.bool_)
    mask[4:20, 5:15] = True
    return Prediction(radiograph.shape, (finding(mask=mask, probability=probability),))


def content(objects: dict[str, Dataset]) -> dict[str, bytes]:
    found = {}
    for kind, made in objects.items():
        buffer = BytesIO()
        made.save_as(buffer, enforce_file_format=True)
        found[kind] = buffer.getvalue()
    return found


def test_the_same_arguments_give_the_same_bytes_and_others_other_uids(header: Dataset, radiograph: ModelInput) -> None:
    prediction = predicted(radiograph)
    first = make_objects(header, radiograph, prediction, created_at=NOW, kinds=RESULT_KIND_NAMES)
    assert content(first) == content(
        make_objects(header, radiograph, prediction, created_at=NOW, kinds=RESULT_KIND_NAMES)
    )
    assert {"seg", "sr"} <= set(first)
    renamed = source()
    renamed.PatientName = "Other^Name"
    (found,) = prediction.findings
    assert found.mask is not None
    turned = replace(prediction, findings=(replace(found, mask=~found.mask),))
    changed = [
        make_objects(header, radiograph, predicted(radiograph, 0.8), created_at=NOW),
        make_objects(header, radiograph, turned, created_at=NOW),
        make_objects(header, radiograph, prediction, created_at=NOW + timedelta(seconds=1)),
        make_objects(renamed, radiograph, prediction, created_at=NOW),
        make_objects(header, replace(radiograph, pixels=radiograph.pixels / np.float32(2)), prediction, created_at=NOW),
    ]
    uids = {made[kind].SOPInstanceUID for made in (first, *changed) for kind in ("seg", "sr")}
    assert len(uids) == 12


def test_what_was_not_analysed_has_no_objects(header: Dataset, radiograph: ModelInput) -> None:
    reason = models.api.NotAnalysed("unsure", "It is not certain.")
    assert make_objects(header, radiograph, Prediction(radiograph.shape, not_analysed=reason), created_at=NOW) == {}


def test_mistakes_are_named(header: Dataset, radiograph: ModelInput, tmp_path: Path) -> None:
    prediction = predicted(radiograph)
    with pytest.raises(ValueError, match=r"no kind pdf \(there are: seg, sr, sc, gsps, lungs\)"):
        make_objects(header, radiograph, prediction, created_at=NOW, kinds=["pdf"])
    with pytest.raises(ValueError, match="time zone"):
        make_objects(header, radiograph, prediction, created_at=datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="not of the same image"):
        make_objects(header, replace(radiograph, sop_instance_uid="1.2"), prediction, created_at=NOW)
    (tmp_path / "letter.txt").write_text("no image")
    with pytest.raises(UnreadablePixels):
        read_radiograph(tmp_path / "letter.txt")
