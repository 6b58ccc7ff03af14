"""``benchmarks.opacity`` on evidence in which it is known who says better whether, and what is marked."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks.opacity import CLASSIFIER, MEAN, OPACITY, abnormal, by_view, main, read, shown, ways_of, whether
from models.training.evaluation.lesions import COLUMN_NAMES

LABELS = ("abnormal", "lung_opacity")
KINDS = ("boxes", "normal", "absent", "boxes", "normal", "absent", "outlines", "normal")
IMAGES = 160


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that knows a little, a network that knows much and marks four pixels, also on the well."""
    folder, rng = tmp_path_factory.mktemp("evidence"), np.random.default_rng(3)
    said, marked = [], []
    for number in range(IMAGES):
        name, patient, kind = f"{number}.jpg", str(number // 2), KINDS[number % len(KINDS)]
        ill = kind in ("boxes", "outlines")
        abnormal, opacity = -3.0 if kind == "normal" else 5.0, rng.normal(1.0 if ill else 0.0)
        said.append([name, patient, f"fold-{number // 2 % 5}", _sigmoid(abnormal), "", _sigmoid(opacity), int(ill)])
        probability = _sigmoid(rng.normal(2.5 if ill else -2.5))
        row = [4, 4 if ill else 0, 2 if ill else 0, int(ill), int(ill), 1, int(not ill), 0]
        marked.append([name, patient, f"fold-{number // 2 % 3}", probability, int(ill), kind, *row])
    # An image that only one network has seen, and one of which nothing is known.
    marked += [
        ["another.jpg", "a", "fold-0", 0.5, 1, "boxes", *[1] * 8],
        ["0.jpg", "0", "fold-0", 0.5, "", "", *[""] * 8],
    ]
    names = [f"lung_opacity {name}" for name in ("unscaled", "truth", "against", *COLUMN_NAMES)]
    told = [f"{label}{suffix}" for label in LABELS for suffix in ("", " truth")]
    _write(folder / "chest-classifier.csv", ["image", "patient", "group", *told], said)
    _write(folder / "chest-opacity.csv", ["image", "patient", "group", *names], marked)
    return folder


def _sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def _write(file: Path, head: list[str], rows: list[list[object]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([head, *rows])


def test_the_network_that_knows_more_gains_on_the_same_images(evidence: Path) -> None:
    answers = read(evidence)
    assert (len(answers.truths), int(answers.truths.sum())) == (IMAGES, IMAGES * 3 // 8)
    ways = ways_of(answers)
    head, *rows = whether(answers, ways, 40)
    table = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    gain = table[OPACITY]["gain over the classifier"]
    low = float(gain.split("(")[1].split()[0])
    assert low > 0.05
    assert table[CLASSIFIER]["gain over the classifier"] == ""
    assert float(table[MEAN]["AUC"].split()[0]) > 0.95
    assert float(table[OPACITY]["specificity, normal"].split()[0]) > 0.9


def test_what_is_marked_goes_out_only_where_the_finding_is_called_present(evidence: Path) -> None:
    answers = read(evidence)
    sure = np.where(answers.truths, 2.0, -2.0)
    unsure = np.where(answers.truths | answers.where("absent"), 2.0, -2.0)
    head, *rows = shown(answers, {"sure": sure, "unsure": unsure}, "boxes", 20)
    table = {row[0]: row[1:] for row in rows}
    assert head == ("figure", "sure, against boxes", "unsure, against boxes")
    assert [cell.split()[0] for cell in table["IoU, all images with it"]] == ["0.333", "0.333"]
    assert [cell.split()[0] for cell in table["regions a normal image"]] == ["0.000", "0.000"]
    assert [cell.split()[0] for cell in table["regions an image without it"]] == ["0.000", "0.400"]


def test_abnormal_is_present_where_it_or_the_opacity_is(evidence: Path) -> None:
    answers = read(evidence)
    cut_offs = {"lung_opacity": 0.4, "abnormal": 0.7}
    nowhere, everywhere = np.full(IMAGES, 0.1), np.full(IMAGES, 0.5)
    called = {name: share.value for name, share in abnormal(answers, nowhere, cut_offs).items()}
    assert called == {"opacity": 1.0, "neither normal nor opacity": 1.0, "normal": 0.0}
    assert abnormal(answers, everywhere, cut_offs)["normal"].value == 1.0


def test_it_prints_its_tables(
    evidence: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["opacity", "--evidence", str(evidence), "--rounds", "20"])
    main()
    printed = capsys.readouterr().out
    assert printed.startswith("160 images of 80 patients: 40 boxes, 20 outlines, 60 normal, 40 absent")
    assert printed.count("| figure |") == 2
    assert printed.splitlines()[-1].startswith("abnormal is called present: opacity ")


def test_each_view_has_an_area_of_its_own(tmp_path: Path) -> None:
    """AP and PA differ in how often they are ill, and the answers tell nothing but the view."""
    rng, rows = np.random.default_rng(5), []
    for number in range(400):
        bed = number % 2 == 0
        ill = rng.random() < (0.7 if bed else 0.2)
        rows.append([f"{number}.jpg", str(number), (0.8 if bed else 0.1) + 0.1 * rng.random(), int(ill)])
    _write(
        tmp_path / "chest-opacity.csv",
        ["image", "patient", "lung_opacity", "lung_opacity truth"],
        [*rows, ["x", "x", 0.5, ""]],
    )
    views = {f"{number}.jpg": "AP" if number % 2 == 0 else "PA" for number in range(399)}
    _, *table = by_view(tmp_path, views, 40)
    found = {view: (counts.split(" / ")[1], float(area.split()[0])) for view, counts, area in table}
    assert {view: count for view, (count, _) in found.items()} == {"AP": "200", "PA": "199", "unknown": "1"}
    assert all(0.4 < found[view][1] < 0.6 for view in ("AP", "PA")), "within a view the answers know nothing"
