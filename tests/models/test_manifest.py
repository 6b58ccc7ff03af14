"""Manifests: what is read, and that every mistake is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models.manifest import ManifestError, file_digest, parse_manifest, read_manifest, verify_digest
from models.model_registry import BUNDLED, UnknownModel, read_registry
from models.model_spec import Mode, ModelKind
from tests.models.samples import CLASSES, classifier_graph, gate_graph, manifest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return manifest(classifier_graph(tmp_path / "tiny.onnx"), "tiny")


def test_reads_everything(path: Path) -> None:
    spec = read_manifest(path)
    assert (spec.name, spec.version, spec.kind, spec.mode) == ("tiny", "1.0.0", ModelKind.CLASSIFIER, Mode.ACTIVE)
    assert spec.file == path.with_suffix(".onnx")
    assert spec.digest == file_digest(spec.file)
    assert (spec.input.height, spec.input.width, spec.input.channels) == (32, 32, 1)
    opacity, other = spec.labels
    assert (opacity.name, opacity.threshold, opacity.localised, opacity.map_threshold) == (
        "lung_opacity",
        0.3,
        True,
        0.6,
    )
    assert (opacity.code.value, opacity.code.scheme) == ("128477000", "SCT")
    assert (other.mode, other.localised) == (Mode.SHADOW, False)
    verify_digest(spec)


def test_a_gate_needs_no_codes(tmp_path: Path) -> None:
    spec = read_manifest(manifest(gate_graph(tmp_path / "gate.onnx", [1, 0, 0, 0, 0]), "gate", "gate", CLASSES))
    assert spec.gate is not None
    assert (spec.gate.min_probability, spec.gate.distance_threshold) == (0.6, 10.0)
    assert [label.name for label in spec.labels] == ["frontal", "rotated", "inverted", "cropped", "other"]


MISTAKES = [
    (
        'name = "tiny"',
        'name = "Tiny Model"',
        "model.name: must be lower case letters, digits, '.', '_' and '-', 64 at most, not 'Tiny Model'",
    ),
    ('name = "tiny"', "", "model.name: is missing"),
    ('version = "1.0.0"', "version = 1", "model.version: must be text, not 1"),
    (
        'version = "1.0.0"',
        'version = "1.0.0"\ndevise_uid = 1',
        "model.devise_uid: there is no such key; did you mean `device_uid`?",
    ),
    (
        'kind = "classifier"',
        'kind = "oracle"',
        "model.kind: must be 'gate', 'classifier', 'segmenter', 'detector', 'lungs' or 'findings', not 'oracle'",
    ),
    ('file = "tiny.onnx"', 'file = "../tiny.onnx"', "beside the manifest"),
    ('file = "tiny.onnx"', 'file = "tiny.pickle"', "must end in .onnx"),
    ('file = "tiny.onnx"', 'file = "gone.onnx"', "there is no file"),
    ('file = "tiny.onnx"', 'file = "tiny.onnx"\ncard = "gone.md"', "there is no file"),
    ('device_uid = "2.25.1234567890"', 'device_uid = "2.25.01"', "model.device_uid: must be a UID (PS3.5 9.1)"),
    ('device_uid = "2.25.1234567890"', f'device_uid = "2.25.{"1" * 60}"', "65 characters"),
    ("map_threshold = 0.6", "map_threshold = 0.6\nmap_relative_threshold = 1", "must be less than 1"),
    ("height = 32", "height = 0", "input.height: must be 16 or more, not 0"),
    ("height = 32", "height = 32.5", "input.height: must be a whole number, not 32.5"),
    ("height = 32", "height = true", "input.height: must be a whole number, not True"),
    ("height = 32", "height = 32\nchannels = 2", "input.channels: must be 1 or 3, not 2"),
    ("height = 32", "height = 32\nstd = [0]", "input.std: must be greater than 0.0, not 0"),
    ("height = 32", "height = 32\nmean = [1, 2]", "input: mean must be a list of one number"),
    ("height = 32", "height = 32\nvalue_range = [1, 0]", "two rising numbers"),
    (
        "height = 32",
        "height = 32\nequalise = 'magic'",
        "input.equalise: must be 'none', 'histogram' or 'clahe', not 'magic'",
    ),
    ("height = 32", "height = 32\nlayout = 'CHWN'", "must be 'NHWC' or 'NCHW', not 'CHWN'; did you mean `NCHW`?"),
    ("height = 32", "height = 32\npadding = 255", "input.padding: must be 1.0 or less, not 255"),
    ("threshold = 0.3", "threshold = 1", "label `lung_opacity`: threshold: must be less than 1.0, not 1"),
    ("threshold = 0.3", "threshold = nan", "must be a finite number"),
    ("threshold = 0.3", "", "label `lung_opacity`: threshold: is missing"),
    (
        "threshold = 0.3",
        "threshold = 0.3\nmode = 'loud'",
        "label `lung_opacity`: mode: must be 'active' or 'shadow', not 'loud'",
    ),
    ('name = "other"', 'name = "lung_opacity"', "the label 'lung_opacity' stands there twice"),
    (
        'value = "128477000"',
        'value = "12847700012345678"',
        "code.value: is longer than 16 characters, not '12847700012345678'",
    ),
    ('value = "128477000", ', "", "label `lung_opacity`: code.value: is missing"),
    ("localised = true", 'localised = "yes"', "label `lung_opacity`: localised: must be true or false, not 'yes'"),
    ("threshold = 0.3", "threshold = 0.3\nevidence = {positives=3, auc=0.5, auc_low=0.6, auc_high=0.7}", "must rise"),
    ("threshold = 0.3", "threshold = 0.3\nparent = 'nobody'", "'nobody' of 'lung_opacity' is no label of this model"),
    ("threshold = 0.3", "threshold = 0.3\nparent = 'lung_opacity'", "'lung_opacity' is its own ancestor"),
    (
        "threshold = 0.3",
        "threshold = 0.3\nsite = {value='1', scheme='SCT'}",
        "label `lung_opacity`: site.meaning: is missing",
    ),
    (
        "threshold = 0.3",
        "threshold = 0.3\nevidence = {positives=3, auc=0.5, auc_low=0.4, auc_high=0.7, sensitivity=72}",
        "label `lung_opacity`: evidence.sensitivity: must be 1.0 or less, not 72",
    ),
    ("[[labels]]", "[gate]\n[[labels]]", "[gate] belongs to"),
    ("[[labels]]", "[pooling]\nmethod = 'area'\n[[labels]]", "[pooling] belongs to"),
    ("height = 32", "height = 32\nfit = 'strech'", "did you mean `stretch`?"),
    ("[[labels]]", "[outputs]\ncolumns = ['normal', 'other']\n[[labels]]", "does not name the label 'lung_opacity'"),
    ("[[labels]]", "[outputs]\ncolumns = ['other', 'other']\n[[labels]]", "the column 'other' stands there twice"),
    ('title = "A tiny classifier"', 'title = "FILL IN: its name"', "not filled in yet: model.title"),
    ("threshold = 0.3", "threshold = 'FILL IN'", "not filled in yet: labels #1.threshold"),
    ('version = "1.0.0"', "version = 2026-11-28\nonnx_digest = 3", "model.onnx_digest: must be text, not 3"),
    (
        'file = "tiny.onnx"',
        'file = "tiny.onnx"\nkeras = "tiny.keras.json"',
        "keras_digest stand together or not at all",
    ),
    ('file = "tiny.onnx"', 'file = "tiny.onnx"\nkeras = "tiny.keras"', "must end in .json"),
    (
        'file = "tiny.onnx"',
        f'file = "tiny.keras"\nkeras = "tiny.keras.json"\nkeras_digest = "{"0" * 64}"',
        "keras belongs beside an ONNX file",
    ),
    ("[input]", "[inputs]", "inputs: there is no such key; did you mean `input`?"),
    ("[input]", "[outputs]\nprobs = 'x'\n[input]", "outputs.probs: there is no such key"),
    ("[model]", "[model", "is not valid TOML"),
]


@pytest.mark.parametrize(("right", "wrong", "message"), MISTAKES)
def test_names_the_mistake(path: Path, right: str, wrong: str, message: str) -> None:
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_labels_must_be_there() -> None:
    table = {
        "model": {"name": "a", "version": "1", "title": "A", "kind": "classifier", "file": "a.onnx", "digest": "0" * 64}
        | {"device_uid": "1.2"},
        "input": {"height": 32, "width": 32},
    }
    with pytest.raises(ManifestError, match="labels"):
        parse_manifest(table, Path("a.toml"))


def test_notices_another_file(path: Path) -> None:
    spec = read_manifest(path)
    spec.file.write_bytes(spec.file.read_bytes() + b"x")
    with pytest.raises(ManifestError, match="its manifest says"):
        verify_digest(spec)
    with pytest.raises(ManifestError, match="its manifest says"):
        read_registry(path.parent, bundled=path.parent)
    spec.file.unlink()
    with pytest.raises(ManifestError, match="cannot be read"):
        verify_digest(spec)


def test_the_registry_finds_and_refuses(path: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    registry = read_registry(path.parent, bundled=empty)
    assert registry.names == ("tiny",)
    assert [spec.name for spec in registry.active(["tiny", "tiny"])] == ["tiny"]
    with pytest.raises(UnknownModel, match="tiny"):
        registry.find("tinny")
    with pytest.raises(ManifestError, match="no such folder"):
        read_registry(tmp_path / "gone", bundled=empty)


def test_a_name_is_taken_once(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "site"
    other.mkdir()
    manifest(classifier_graph(other / "copy.onnx"), "tiny")
    with pytest.raises(ManifestError, match="two manifests are called 'tiny'"):
        read_registry(other, bundled=path.parent)


def test_a_digest_costs_no_library() -> None:
    """The listener computes pipeline digests; its memory must not pay for networks, encoders or decoders."""
    heavy = "{'onnxruntime','tensorflow','keras','imagecodecs','highdicom','PIL','scipy','pydicom'}"
    code = f"import sys, models.pipeline; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_bundled_is_a_folder_of_this_room() -> None:
    assert BUNDLED.name == "bundled"
    assert BUNDLED.parent.name == "models"
