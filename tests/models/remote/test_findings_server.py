"""A vendor's program that answers findings: the example of the docs for real, and every answer that is refused."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pydicom import dcmread

from models.contract import Finding, ModelInput, Spacing
from models.endpoint import EndpointProtocol, EndpointSpec, ImageFormat
from models.findings import findings_answered
from models.manifest import ManifestError, manifest_text, parse_manifest, read_manifest
from models.model_spec import Code, LabelSpec, Mode, ModelKind, ModelSpec
from models.pipeline import Pipeline
from models.predictor import load_predictor
from models.radiograph.reading import read_model_input
from models.reference import findings_tables
from models.remote.describing import check_server
from models.remote.findings_protocol import FindingsAnswer
from models.remote.findings_server import FindingsServer, Reply, describe, replies_of, request_for
from models.remote.http import HttpServer
from models.runtime.executor import ModelLoadError, ModelOutputError, ModelUnavailableError
from models.training.datasets import pixels, read_dataset
from models.training.evaluation.evaluate import EvaluationError, evaluate
from models.training.evaluation.predict_as_node import Shown, Unreadable, run
from models.training.evaluation.predictions import read_predictions
from node.cli.main import cli
from tests.models.samples import radiograph, ramp, written
from tests.models.training.drawn import write_drawn
from tests.ports import free_port

DOCS = Path(__file__).resolve().parents[3] / "docs"
OPACITY, AIR = Code("128477000", "SCT", "Abscess"), Code("36118008", "SCT", "Pneumothorax")
SHAPE = (300, 260)
LABELS = (
    LabelSpec("lung_opacity", OPACITY, 0.5, localised=True),
    LabelSpec("pneumothorax", AIR, 0.5, localised=True),
)


@pytest.fixture(scope="module")
def example() -> Iterator[str]:
    """The URL of the example of the docs."""
    command = [sys.executable, str(DOCS / "examples" / "findings_server.py"), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def spec_of(url: str, **more: Any) -> ModelSpec:
    where = EndpointSpec(
        protocol=EndpointProtocol.FINDINGS_HTTP, url=url, model="bright-middle", version="1.0.0", **more
    )
    manifest = {
        "model": {
            "name": "vendor",
            "version": "1.0.0",
            "title": "A vendor's program",
            "kind": "findings",
            "digest": describe(where).pinned_digest(),
            "device_uid": "2.25.1",
        },
        "endpoint": {"protocol": "findings-http", "url": url, "model": "bright-middle", "version": "1.0.0"},
        "labels": [
            {
                "name": "lung_opacity",
                "code": {"value": OPACITY.value, "scheme": OPACITY.scheme, "meaning": OPACITY.meaning},
                "threshold": 0.5,
            }
        ],
    }
    return replace(parse_manifest(manifest, Path("/models/vendor.toml")), endpoint=where)


def bright(share: float) -> ModelInput:
    pixels = np.full(SHAPE, 0.2, np.float32)
    pixels[75 : 75 + round(150 * share), 65:195] = 0.9
    return ModelInput(pixels, "1.2.3")


def only(predicted: Any) -> Finding:
    (finding,) = predicted.findings
    assert isinstance(finding, Finding)
    return finding


def test_the_example_of_the_docs_finds_and_finds_not(example: str) -> None:
    predictor = load_predictor(Pipeline(None, (spec_of(example),)))
    assert predictor.runs_on == "server"
    found = only(predictor.predict(bright(0.5)))
    assert found.present
    assert found.probability == pytest.approx(0.75, abs=0.01)
    (box,) = found.boxes
    assert (box.x, box.y, box.width, box.height) == (65, 75, 130, 150)
    other = only(predictor.predict(bright(0.1)))
    assert (other.present, other.boxes) == (False, ())


def test_an_administrator_adds_it(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    new = ["models", "new", "--server", example, "--protocol", "findings-http", "--model", "bright-middle"]
    wrong = CliRunner().invoke(cli, [*new, "--version", "2"])
    assert "runs bright-middle 1.0.0: name it with --model and --version" in wrong.stderr
    done = CliRunner().invoke(cli, [*new, "--version", "1.0.0"])
    assert done.exit_code == 0, done.output
    manifest = Path("bright-middle.toml")
    text = manifest.read_text()
    assert "# The vendor: Not for patients: it looks at brightness alone." in text
    with pytest.raises(
        ManifestError, match=r"not filled in yet: model\.name, model\.title, labels #1\.name, labels #1\.t"
    ):
        read_manifest(manifest)
    for key, value in (("name", '"vendor"'), ("title", '"A vendor"'), ("threshold", "0.5")):
        text = re.sub(rf'^{key} = "FILL IN[^"]*"', f"{key} = {value}", text, flags=re.MULTILINE)
    manifest.write_text(text)
    Path("pleura.toml").write_text('[models]\nfolder = "own"\n')
    added = CliRunner().invoke(cli, ["--config", "pleura.toml", "models", "add", "--manifest", str(manifest)])
    assert added.exit_code == 0, added.output
    assert "usable" in added.stdout
    spec = read_manifest(Path("own/vendor.toml"))
    assert spec.kind is ModelKind.FINDINGS
    assert "[input]" not in manifest_text(spec)
    assert CliRunner().invoke(cli, ["--config", "pleura.toml", "models", "show", "vendor"]).exit_code == 0
    check_server(spec)
    with pytest.raises(ModelUnavailableError, match="describes itself otherwise than before"):
        check_server(replace(spec, digest="0" * 64))


def test_another_program_than_the_pinned_one_is_never_asked(example: str) -> None:
    spec = spec_of(example)
    assert spec.endpoint is not None
    unknown = replace(spec.labels[0], code=AIR)
    for other in (
        replace(spec, digest="0" * 64),
        replace(spec, endpoint=replace(spec.endpoint, version="2")),
        replace(spec, labels=(unknown,)),
    ):
        with pytest.raises(ModelLoadError, match="manifest"):
            load_predictor(Pipeline(None, (other,)))
    away = replace(spec, endpoint=replace(spec.endpoint, url="http://127.0.0.1:1", attempts=1))
    with pytest.raises(ModelUnavailableError, match="cannot be reached"):
        load_predictor(Pipeline(None, (away,))).predict(bright(0.5))
    shadow = replace(away, mode=Mode.SHADOW)
    assert only(load_predictor(Pipeline(None, (shadow,))).predict(bright(0.5))).probability is None


def spoken(*findings: dict[str, Any]) -> str:
    model = {"name": "bright-middle", "version": "1.0.0"}
    return json.dumps({"protocol_version": 1, "model": model, "findings": list(findings)})


def one_finding(code: Code = OPACITY, probability: float | None = 0.9, **more: Any) -> dict[str, Any]:
    return {"code": {"value": code.value, "scheme": code.scheme}, "probability": probability, **more}


def png(shape: tuple[int, int], mode: str = "L") -> str:
    stream = io.BytesIO()
    picture = Image.new(mode, (shape[1], shape[0]))
    picture.paste(255 if mode == "L" else (255, 0, 0), (10, 20, 30, 60))
    picture.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


@pytest.fixture(scope="module")
def two(example: str) -> ModelSpec:
    return replace(spec_of(example), labels=LABELS)


def test_places_come_in_pixels_of_the_image(two: ModelSpec) -> None:
    square = [[10, 20], [30, 20], [30, 60], [10, 60]]
    answer = FindingsAnswer.model_validate_json(
        spoken(one_finding(AIR, mask=png(SHAPE)), one_finding(polygons=[square]))
    )
    outlined, masked = replies_of(two, answer, SHAPE)
    wanted = np.zeros(SHAPE, np.bool_)
    wanted[20:60, 10:30] = True
    for reply in (outlined, masked):
        assert reply.mask is not None
        assert np.logical_xor(reply.mask, wanted).sum() <= 62, "at most the pixels along two edges"
    assert masked.mask is not None
    np.testing.assert_array_equal(masked.mask, wanted)


_HUGE = b"IHDR" + struct.pack(">IIBBBBB", 90_000, 90_000, 8, 0, 0, 0, 0)
_CHUNK = struct.pack(">I", 13) + _HUGE + struct.pack(">I", zlib.crc32(_HUGE))
BOMB = base64.b64encode(b"\x89PNG\r\n\x1a\n" + _CHUNK).decode()
"""The beginning of a PNG of 90,000 x 90,000 pixels."""

REFUSED: dict[str, tuple[str, str]] = {
    "no json": ("high", "is no FindingsAnswer"),
    "a further key": (
        spoken(one_finding(), one_finding(AIR), one_finding(AIR) | {"urgent": True}),
        "urgent: Extra inputs",
    ),
    "probability above 1": (spoken(one_finding(probability=1.2), one_finding(AIR)), "less than or equal to 1"),
    "probability as text": (spoken(one_finding() | {"probability": "0.9"}, one_finding(AIR)), "valid number"),
    "no number": (spoken(one_finding(), one_finding(AIR)).replace("0.9", "NaN"), "finite number"),
    "unknown": (
        spoken(one_finding(), one_finding(AIR), one_finding(Code("1", "SCT", "x"))),
        "answers the finding 1 SCT",
    ),
    "missing": (spoken(one_finding()), "says nothing of pneumothorax"),
    "twice": (spoken(one_finding(), one_finding(AIR), one_finding()), "answers 'lung_opacity' twice"),
    "no reason": (spoken(one_finding(probability=None), one_finding(AIR)), "neither a probability nor a reason"),
    "outline beyond": (
        spoken(one_finding(polygons=[[[0, 0], [261, 0], [5, 5]]]), one_finding(AIR)),
        r"\(261, 0\), outside",
    ),
    "outline above": (
        spoken(one_finding(polygons=[[[0, -1], [9, 0], [5, 5]]]), one_finding(AIR)),
        "outside of the image of 260 x 300",
    ),
    "a line": (spoken(one_finding(polygons=[[[0, 0], [9, 0]]]), one_finding(AIR)), "at least 3 items"),
    "box beyond": (
        spoken(one_finding(boxes=[{"x": 200, "y": 0, "width": 61, "height": 5, "probability": 0.5}]), one_finding(AIR)),
        "outside of the image",
    ),
    "mask of another size": (spoken(one_finding(mask=png((299, 260))), one_finding(AIR)), "not of the image's size"),
    "mask in colour": (
        spoken(one_finding(mask=png(SHAPE, "RGB")), one_finding(AIR)),
        "not of the image's size in grey",
    ),
    "a mask that would fill the memory": (spoken(one_finding(mask=BOMB), one_finding(AIR)), "no PNG"),
    "no mask": (spoken(one_finding(mask="aGVsbG8="), one_finding(AIR)), "no PNG"),
    "another protocol": (
        spoken(one_finding(), one_finding(AIR)).replace('_version": 1', '_version": 2'),
        "protocol_version",
    ),
    "another version": (
        spoken(one_finding(), one_finding(AIR)).replace("1.0.0", "1.0.1"),
        "runs 'bright-middle' version '1.0.1'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_answer_is_taken_whole_or_not_at_all(two: ModelSpec, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, reason = REFUSED[case]
    monkeypatch.setattr(FindingsServer, "_described", lambda _self: None)
    server = FindingsServer(two)

    class Answer:
        body = text.encode()

    monkeypatch.setattr(HttpServer, "request", lambda *_arguments: Answer())
    with pytest.raises((ModelOutputError, ModelUnavailableError), match=reason):
        server.ask(bright(0.5))


def test_what_it_could_not_tell_is_no_negative(two: ModelSpec) -> None:
    unsure = FindingsAnswer.model_validate_json(
        spoken(one_finding(probability=None, reason="too dark"), one_finding(AIR, 0.8))
    )
    first, second = findings_answered(two, replies_of(two, unsure, SHAPE))
    assert (first.probability, first.reason, first.present) == (None, "too dark", False)
    assert (second.present, second.reason) == (True, "present, and the program shows no place")


PATIENT: dict[str, Any] = {
    "PatientName": "Zyxwvut^Quirinus",
    "PatientID": "MRN-77120045",
    "PatientBirthDate": "19470523",
    "PatientSex": "F",
    "AccessionNumber": "ACC-99821",
    "StudyInstanceUID": "1.2.826.0.1.3680043.9.7433.1.777",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.9.7433.1.778",
    "StudyDate": "20240229",
    "InstitutionName": "Saint Elsewhere",
    "ViewPosition": "QUIRINUS",
    "ReferringPhysicianName": "Hackenbush^Hugo",
}


@pytest.mark.parametrize("form", list(ImageFormat))
def test_nothing_of_a_patient_is_sent(tmp_path: Path, form: ImageFormat) -> None:
    source = radiograph(ramp(*SHAPE, 12), **PATIENT)
    image = read_model_input(written(source, tmp_path / "image.dcm"))
    asked = request_for(replace(image, patient_orientation=("L", "QUIRINUS")), form)
    sent = asked.model_dump_json().encode() + base64.b64decode(asked.image.data)
    identifiers = {
        *PATIENT.values(),
        str(source.SOPInstanceUID),
        *(part for v in PATIENT.values() for part in v.split("^")),
    }
    assert [word for word in identifiers if len(word) > 1 and word.encode() in sent] == []
    assert (asked.view, asked.patient_orientation) == ("", None)


@pytest.mark.peer("dciodvfy")
def test_the_object_of_pixels_is_a_cr_image(tmp_path: Path) -> None:
    image = replace(bright(0.5), spacing=Spacing(0.2, 0.3, "detector"), view="PA", patient_orientation=("L", "F"))
    asked = request_for(image, ImageFormat.DICOM)
    path = tmp_path / "sent.dcm"
    path.write_bytes(base64.b64decode(asked.image.data))
    checked = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    errors = [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith("Error")]
    assert errors == []
    dataset = dcmread(path)
    np.testing.assert_allclose(dataset.pixel_array / 65535, image.pixels, atol=1e-5)
    assert (dataset.ViewPosition, list(dataset.ImagerPixelSpacing)) == ("PA", [0.2, 0.3])
    assert asked.spacing_mm == (0.2, 0.3)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(request_for(image, ImageFormat.PNG16).image.data))))
    np.testing.assert_array_equal(picture, dataset.pixel_array)


def test_the_page_holds_every_key_and_its_answers_are_answers() -> None:
    page = (DOCS / "findings-protocol.md").read_text(encoding="utf-8")
    assert findings_tables() in page, "`make reference` writes it"
    described, _, answered = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert FindingsAnswer.model_validate_json(answered).findings[0].probability == 0.71
    assert json.loads(described)["name"] == "bright-middle"


def test_its_probabilities_are_measured_on_a_data_set(example: str, tmp_path: Path) -> None:
    data = write_drawn(tmp_path / "d", 12)
    file = tmp_path / "vendor.toml"
    file.write_text(manifest_text(spec_of(example)), encoding="utf-8")
    found = evaluate(file, data, "all", tmp_path / "out", rounds=20)
    assert found.figures["lung_opacity"].images == 12
    assert (tmp_path / "out" / "report.html").is_file()
    output = read_predictions(tmp_path / "out" / "predictions.csv")
    (reply,) = FindingsServer(spec_of(example)).ask(pixels.read(read_dataset.read(data).samples[1].image))
    assert output.scores[1] == pytest.approx([reply.probability], abs=6e-5)


def test_an_image_of_which_a_program_cannot_tell_is_left_out_and_no_negative(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = FindingsServer(spec_of(example))
    replies = iter([(Reply(None, "the image is cut"),), (Reply(0.2),)])
    monkeypatch.setattr(server, "ask", lambda _image: next(replies))
    one, other = read_dataset.read(write_drawn(tmp_path / "d", 2)).samples
    left_out, found = run(server, [one, other])
    assert left_out == Unreadable(one, "the program cannot tell of lung_opacity: the image is cut")
    assert isinstance(found, Shown)
    assert [finding.probability for finding in found.findings] == [0.2]


def test_a_server_that_is_away_ends_an_evaluation_with_one_sentence(example: str, tmp_path: Path) -> None:
    spec = spec_of(example)
    assert spec.endpoint is not None
    away = replace(spec, endpoint=replace(spec.endpoint, url=f"http://127.0.0.1:{free_port()}", timeout_seconds=1))
    file = tmp_path / "vendor.toml"
    file.write_text(manifest_text(away), encoding="utf-8")
    with pytest.raises(EvaluationError, match="cannot be reached"):
        evaluate(file, write_drawn(tmp_path / "d", 2), "all", tmp_path / "out")
